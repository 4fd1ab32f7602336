"""``python -m benchmarks.pipeline``: the whole of ``score`` against its own stages, a plain script, and timm.

Real JPEG files of ImageNet's usual size, cut from scikit-learn's photographs. Every measurement has a process
of its own; the contenders take turns, and the median over the rounds counts. ``of the slower stage`` is the
pipeline's rate over min(decoding alone, encoding alone), each with the threads that it has in the pipeline.
First each stage has half of the cores to itself, as where a GPU encodes; then both have all cores, which is
the default: there no pipeline can reach 1, and ``of the shared cores`` is the rate over
1 / (1/decoding + 1/encoding), which counts the cores once. With ``--device cuda`` a ResNet-50 in bfloat16 is
fed by every decoder in turn.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import qscore_fast as qf
from qscore_fast.allocator import freed_memory_kept
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.functional import sparse_activations
from qscore_fast.images import Preprocess, Subset, choose_decoder, open_source
from qscore_fast.images.nvjpeg import EncodedJpeg, decode_jpegs
from qscore_fast.scoring.local_engine import images_ahead
from qscore_fast.scoring.prefetch import decoded_ahead, default_workers

from . import plain_script
from .environment import describe
from .fresh_process import measured
from .results import RESULTS, write

EPS = 2.0
RIVALS = ("plain script", "timm", "plain script, freed memory kept")
TIMM_SCRIPT = "timm's inference.py"
SCORING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What ``qscore score`` sets for its own process, so that idle threads leave the cores alone."""

TOLERANCE = 1e-4


class Tiny(nn.Module):
    """Costs next to nothing: what an image is decoded to, seen through 48 windows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.relu(), 4).flatten(1)


def encoder_of(kind: str, device: str = "cpu") -> Encoder:
    """``resnet50`` under the ImageNet recipe, on a GPU in bfloat16; or ``tiny``."""
    if kind == "tiny":
        return qf.load_encoder(Tiny(), device=device)
    encoder = qf.load_encoder(plain_script.resnet50(), device=device, preprocess=Preprocess())
    if device == "cpu":
        return encoder
    return encoder.optimised("bfloat16", channels_last=True, fold_batch_norm=True)


def batch_size(device: str) -> int:
    """Images a call of the encoder."""
    return 64 if device == "cpu" else 256


def save_images(folder: Path, count: int, size: tuple[int, int]) -> None:
    """``count`` different JPEG files of (width, height) = ``size`` in ten class folders."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    generator = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        share = generator.uniform(0.4, 1.0)
        width, height = int(photo.width * share), int(photo.height * share)
        x, y = (
            generator.integers(photo.width - width + 1),
            generator.integers(photo.height - height + 1),
        )
        path = folder / f"n{number % 10:08d}" / f"{number:06d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.crop((x, y, x + width, y + height)).resize(size).save(path, quality=90)


def linked(folder: Path, target: Path, count: int) -> Path:
    """A folder of ``count`` images: those of ``folder`` again and again, under new names."""
    files = sorted(folder.rglob("*.JPEG"))
    for index in range(count):
        path = target / f"n{index % 10:08d}" / f"{index:07d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(files[index % len(files)])
    return target


def decode_only(
    folder: Path,
    kind: str,
    device: str = "cpu",
    decoder: str = "pillow",
    threads: int | None = None,
) -> float:
    """Images a second through decoding and transform; as many threads as ``score`` takes, or so many."""
    source, preprocess = open_source(folder), encoder_of(kind).preprocess
    workers, size = threads or default_workers(), batch_size(device)
    if decoder == "nvjpeg":  # the GPU's context and nvJPEG's own start are not the pipeline's
        warm = next(iter(open_source(folder).read(source.units(1024)[0])))
        postponed = choose_decoder("nvjpeg", 2**28).decode_or_postpone(warm, "RGB")
        decode_jpegs([postponed], preprocess, torch.device(device))
    start = time.perf_counter()
    images = decoded_ahead(
        source,
        source.units(1024),
        preprocess,
        decoder=choose_decoder(decoder, 2**28),
        workers=workers,
        ahead=images_ahead(size, workers),
    )
    count, waiting = 0, []
    for image in images:
        if image is not None:
            count += 1
            if isinstance(image.image, EncodedJpeg):
                waiting.append(image.image)
        if len(waiting) == size or (image is None and waiting):
            decode_jpegs(waiting, preprocess, torch.device(device))
            waiting = []
    if device != "cpu":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def encode_only(count: int, kind: str, device: str = "cpu", threads: int | None = None) -> float:
    """Images a second through encoder and kernels, from memory; on all cores, or with so many threads."""
    if threads is not None:
        torch.set_num_threads(threads)
    encoder, size = encoder_of(kind, device), batch_size(device)
    pixels = torch.randint(0, 256, (size, 3, 224, 224), dtype=torch.uint8)
    batches = max(1, count // size)

    def encoded() -> None:
        images = encoder.preprocess.normalise(pixels.to(device))
        for column in sparse_activations(encoder(images), 2.0):
            column.cpu()

    with freed_memory_kept():
        encoded()
        start = time.perf_counter()
        for _ in range(batches):
            encoded()
        return size * batches / (time.perf_counter() - start)


def pipeline(
    folder: Path,
    kind: str,
    out: Path,
    device: str = "cpu",
    decoder: str = "pillow",
    threads: int | None = None,
) -> dict[str, Any]:
    """``score`` from the listing to the finished tables; on a GPU once before, for what starts only once.

    Args:
        threads: to decode with, and to encode with; None for the defaults, all cores for both.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    encoder = encoder_of(kind, device)
    settings: dict[str, Any] = {
        "eps": EPS, "overwrite": True, "decoder": decoder, "batch_size": batch_size(device),
        "workers": threads,
    }  # fmt: skip
    if device != "cpu":
        qf.score(Subset(open_source(folder), limit=batch_size(device)), encoder, out, **settings)
    start = time.perf_counter()
    run = qf.score(folder, encoder, out, **settings)
    seconds = time.perf_counter() - start
    session = run.session
    assert session is not None
    return {
        "seconds": seconds,
        "images_per_second": session.images_per_second,
        "bottleneck": session.bottleneck,
        "seconds_by_stage": session.seconds_by_stage,
        "write_share": session.seconds_by_stage["write"] / session.seconds,
        "wait_for_writing_share": session.seconds_by_stage["wait_for_writing"] / session.seconds,
    }


def plain(folder: Path, workers: int) -> float:
    """Seconds of the plain script."""
    start = time.perf_counter()
    plain_script.main(folder, workers, EPS)
    return time.perf_counter() - start


def plain_keeping_memory(folder: Path, workers: int) -> float:
    """The same under our allocator's setting, which most of the difference comes from on a CPU."""
    with freed_memory_kept():
        return plain(folder, workers)


def timm_loop(folder: Path, workers: int) -> float:
    """Seconds of timm's data set, loader and model, put together as its inference script does."""
    import timm
    from timm.data import create_dataset, create_loader

    model = timm.create_model("resnet50", pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_data_config({}, model=model)
    start = time.perf_counter()
    loader = create_loader(
        create_dataset("", root=str(folder)),
        batch_size=64,
        use_prefetcher=False,
        num_workers=workers,
        device=torch.device("cpu"),
        **{k: config[k] for k in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    with torch.no_grad():
        np.concatenate([model(images).numpy() for images, _ in loader])
    return time.perf_counter() - start


def timm_script(folder: Path, workers: int, script: Path) -> float:
    """Seconds of timm's inference script itself, with a ResNet-50's file; its imports are not counted."""
    import timm

    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place) / "resnet50.pth"
        torch.save(timm.create_model("resnet50", pretrained=False).state_dict(), checkpoint)
        given, sys.argv = sys.argv, [
            str(script), "--data-dir", str(folder), "--model", "resnet50", "--checkpoint", str(checkpoint),
            "--device", "cpu", "--batch-size", "64", "--workers", str(workers), "--label-type", "none",
            "--results-dir", place, "--no-console-results",
        ]  # fmt: skip
        start = time.perf_counter()
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            sys.argv = given
        return time.perf_counter() - start


def largest_difference(folder: Path, out: Path) -> float:
    """Between our scores and the plain formula's on plain representations, D being ours."""
    mask = DiscriminativeFeatures.load(out / "features.npz").mask
    h = plain_script.representations(folder, 0)
    ours = qf.ScoreRun(out).scores()["q_score"].to_numpy()
    return float(np.abs(plain_script.q_scores(h, EPS, mask).numpy() - ours).max())


def check(difference: float) -> None:
    """RuntimeError where the contenders do not compute the same."""
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the scores differ by {difference:g}, more than {TOLERANCE:g}")


def stages(
    folder: Path,
    kind: str,
    count: int,
    rounds: int,
    device: str = "cpu",
    decoder: str = "pillow",
    threads: int | None = None,
) -> dict[str, Any]:
    """Decoding alone, encoding alone, and the pipeline, in turns, all with the same threads."""
    found: dict[str, list[Any]] = {"decode": [], "encode": [], "pipeline": []}
    steps: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "decode": (decode_only, (folder, kind, device, decoder, threads)),
        "encode": (encode_only, (count, kind, device, threads)),
        "pipeline": (pipeline, (folder, kind, folder.parent / "run", device, decoder, threads)),
    }
    for _ in range(rounds):
        for name, (function, arguments) in steps.items():
            found[name].append(measured(function, *arguments, environment=SCORING)["result"])
    decode, encode = (statistics.median(found[name]) for name in ("decode", "encode"))
    rate = statistics.median(one["images_per_second"] for one in found["pipeline"])
    return {
        "decode_only": decode,
        "encode_only": encode,
        "pipeline": rate,
        "of_the_slower_stage": rate / min(decode, encode),
        "of_the_shared_cores": rate * (1 / decode + 1 / encode),
        "bottleneck": found["pipeline"][0]["bottleneck"],
        "seconds_by_stage": found["pipeline"][0]["seconds_by_stage"],
        "write_share": statistics.median(one["write_share"] for one in found["pipeline"]),
        "wait_for_writing_share": statistics.median(
            one["wait_for_writing_share"] for one in found["pipeline"]
        ),
    }


def rivals(folder: Path, rounds: int, script: Path | None = None) -> dict[str, Any]:
    """Seconds of ours, of the plain script and of timm on the same images, in turns.

    Args:
        script: timm's ``inference.py``, which its package does not hold.
    """
    workers = default_workers()
    out = folder.parent / "run"
    seconds: dict[str, list[float]] = {"ours": [], **{name: [] for name in RIVALS}}
    if script is not None:
        seconds[TIMM_SCRIPT] = []
    for _ in range(rounds):
        ours = measured(pipeline, folder, "resnet50", out, environment=SCORING)
        seconds["ours"].append(ours["result"]["seconds"])
        seconds["plain script"].append(measured(plain, folder, workers)["result"])
        seconds["timm"].append(measured(timm_loop, folder, workers)["result"])
        seconds["plain script, freed memory kept"].append(
            measured(plain_keeping_memory, folder, workers)["result"]
        )
        if script is not None:
            seconds[TIMM_SCRIPT].append(measured(timm_script, folder, workers, script)["result"])
    difference = measured(largest_difference, folder, out)["result"]
    check(difference)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": medians,
        "times_as_fast": {n: s / medians["ours"] for n, s in medians.items() if n != "ours"},
        "largest_difference": difference,
    }


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Peak resident memory of ``count`` images, and of ten times as many."""
    peaks = []
    for number in (count, 10 * count):
        images = linked(folder, folder.parent / f"linked-{number}", number)
        found = measured(pipeline, images, "tiny", folder.parent / "run", environment=SCORING)
        peaks.append(found["peak_bytes"])
    return {"images": count, "peak_bytes": peaks, "ratio": peaks[1] / peaks[0]}


def say(name: str, row: dict[str, Any]) -> None:
    """One line of the stages."""
    print(
        f"{name:<43} decode {row['decode_only']:6.0f}  encode {row['encode_only']:6.0f}  pipeline "
        f"{row['pipeline']:6.0f} images/s: {row['of_the_slower_stage']:.2f} of the slower stage, "
        f"{row['of_the_shared_cores']:.2f} of the shared cores; writing {100 * row['write_share']:.2f} %",
        flush=True,
    )


def header(count: int, rounds: int, device: str) -> dict[str, Any]:
    return {
        "schema": "qscore-fast.pipeline.2",
        "environment": describe(torch.device(device)),
        "images": count,
        "rounds": rounds,
        "stages": {},
    }


def run_on_gpu(count: int, rounds: int, folder: Path, device: str) -> dict[str, Any]:
    """The stages of a ResNet-50 with each decoder that imports; prints as it goes."""
    save_images(folder / "cut" / "images", min(count, 1024), (500, 375))
    images = linked(folder / "cut" / "images", folder / "large" / "images", count)
    found = header(count, rounds, device)
    for decoder in ("pillow", "torchcodec", "nvjpeg"):
        name = f"ResNet-50, 500 x 375, {decoder}"
        try:
            choose_decoder(decoder)
        except SettingsError as error:
            found["stages"][name] = {"left_out": str(error)}
            continue
        row = stages(images, "resnet50", count, rounds, device, decoder)
        found["stages"][name] = row
        say(name, row)
    return found


def run(
    count: int, rounds: int, memory_images: int, folder: Path, script: Path | None = None
) -> dict[str, Any]:
    """All of it on the CPU; prints as it goes."""
    save_images(folder / "large" / "images", count, (500, 375))
    save_images(folder / "small" / "images", count, (128, 128))
    linked(folder / "large" / "images", folder / "many" / "images", 20 * count)
    found = header(count, rounds, "cpu")
    half = max(1, default_workers() // 2)
    cases = (
        ("ResNet-50, 500 x 375", "large", "resnet50"),
        ("ResNet-50, 128 x 128", "small", "resnet50"),
        ("next to no encoder, 500 x 375", "many", "tiny"),
    )
    for words, threads in ((", cores apart", half), ("", None)):
        for name, size, kind in cases:
            encoded = 20 * count if kind == "tiny" else count
            images = folder / size / "images"
            row = stages(images, kind, encoded, rounds, threads=threads)
            found["stages"][name + words] = row
            say(name + words, row)
    found["rivals"] = rivals(folder / "large" / "images", rounds, script)
    for name, times in found["rivals"]["times_as_fast"].items():
        print(f"{times:.2f} times as fast as {name}")
    found["memory"] = memory(folder / "large" / "images", memory_images)
    low, high = (peak / 2**20 for peak in found["memory"]["peak_bytes"])
    print(f"peak memory {low:.0f} MiB, with ten times the images {high:.0f} MiB")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command's entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-images", type=int, default=1500)
    parser.add_argument(
        "--timm-script", type=Path, help="inference.py of timm's repository, to time it too"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the stages alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="qscore-pipeline-") as folder:
        if options.device == "cpu":
            sizes = options.images, options.rounds, options.memory_images
            found = run(*sizes, Path(folder), options.timm_script)
        else:
            found = run_on_gpu(options.images, options.rounds, Path(folder), options.device)
    print(f"written {write(found, options.out, 'pipeline')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
