"""Decoding alone, encoding alone, and ``score``: each in a process of its own, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import qscore_fast as qf
from qscore_fast.allocator import NO_SMALL_CACHE, freed_memory_kept
from qscore_fast.encoders import Encoder
from qscore_fast.functional import sparse_activations
from qscore_fast.images import Preprocess, Subset, choose_decoder, open_source
from qscore_fast.images.nvjpeg import EncodedJpeg, decode_jpegs
from qscore_fast.scoring.local_engine import images_ahead
from qscore_fast.scoring.prefetch import decoded_ahead, default_workers

from ..fresh_process import measured
from . import plain_script

EPS = 2.0
SCORING = {"OMP_WAIT_POLICY": "PASSIVE", "GLIBC_TUNABLES": NO_SMALL_CACHE}
"""What ``qscore score`` sets for its own process: idle threads leave the cores alone, a batch fits in the
memory of the one before."""


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
