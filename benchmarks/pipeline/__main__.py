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
import tempfile
from pathlib import Path
from typing import Any

import torch

from qscore_fast.errors import SettingsError
from qscore_fast.images import choose_decoder
from qscore_fast.scoring.prefetch import default_workers

from ..environment import describe
from ..fresh_process import measured
from ..results import RESULTS, write
from .photographs import linked, save_images
from .rivals import rivals
from .stages import SCORING, pipeline, stages

SECTIONS = ("stages", "rivals", "memory")


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


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The sections on the CPU; prints as it goes."""
    count, rounds = options.images, options.rounds
    large = folder / "large" / "images"
    save_images(large, count, (500, 375))
    found = header(count, rounds, "cpu")
    if "stages" in options.sections:
        found["stages"] = stages_on_cpu(count, rounds, folder)
    if "rivals" in options.sections:
        found["rivals"] = rivals(large, rounds, options.timm_script)
        for name, times in found["rivals"]["times_as_fast"].items():
            print(f"{times:.2f} times as fast as {name}")
    if "memory" in options.sections:
        found["memory"] = memory(large, options.memory_images)
        low, high = (peak / 2**20 for peak in found["memory"]["peak_bytes"])
        print(f"peak memory {low:.0f} MiB, with ten times the images {high:.0f} MiB")
    return found


def stages_on_cpu(count: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Two sizes of images and two encoders, with the cores apart and shared."""
    save_images(folder / "small" / "images", count, (128, 128))
    linked(folder / "large" / "images", folder / "many" / "images", 20 * count)
    found = {}
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
            found[name + words] = row
            say(name + words, row)
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command's entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--memory-images", type=int, default=1500)
    parser.add_argument(
        "--timm-script", type=Path, help="inference.py of timm's repository, to time it too"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the stages alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="qscore-pipeline-") as folder:
        if options.device == "cpu":
            found = run(options, Path(folder))
        else:
            found = run_on_gpu(options.images, options.rounds, Path(folder), options.device)
    print(f"written {write(found, options.out, 'pipeline')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
