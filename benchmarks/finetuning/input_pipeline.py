"""A step on images from the disk against the same step on images that are in memory already."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from qscore_fast.finetuning.data import ViewBatch, ViewLoader
from qscore_fast.finetuning.view_recipes import views_of
from qscore_fast.finetuning.views import ViewTransform
from qscore_fast.images import FolderSource
from qscore_fast.scoring.prefetch import default_workers

from .networks import SYSTEM, Case
from .step_time import Step, regularisers

WARM_STEPS = 3


def save_photographs(folder: Path, count: int, size: tuple[int, int], grey: bool) -> None:
    """``count`` different JPEG files, (width, height) = ``size``: smooth shapes with some grain."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        grain = generator.normal(0, 9, (size[1], size[0], 3))
        pixels = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
        photo = Image.fromarray(pixels)
        (photo.convert("L") if grey else photo).save(folder / f"{number:06d}.jpg", quality=90)


def loader_of(case: Case, folder: Path, workers: int) -> ViewLoader:
    """The training's own loader over a folder."""
    return ViewLoader(
        FolderSource(folder),
        transform_of(case),
        case.encoder.preprocess.mode,
        case.batch_size,
        workers=workers,
        cropped=case.bf16,
    )


def transform_of(case: Case) -> ViewTransform:
    """SimCLR's views for the encoder."""
    preprocess = case.encoder.preprocess
    return ViewTransform(views_of(SYSTEM), case.side, preprocess.mean, preprocess.std)


def seconds_of(step: Step, batches: Iterator[list[torch.Tensor]], count: int, case: Case) -> float:
    """The mean seconds from one step to the next, so that a wait for a batch counts as long as it is."""
    fused = regularisers(case, step.device)["with"]
    times = []
    for views in itertools.islice(batches, count + WARM_STEPS):
        step(views, fused)
        step.synchronise()
        times.append(time.perf_counter())
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return statistics.mean(gaps[WARM_STEPS - 1 :])


def decoding_rate(loader: ViewLoader, count: int, batch_size: int) -> float:
    """Images a second of the loader alone, once its workers have begun."""
    batches = iter(loader.after(None, count + WARM_STEPS))
    for _ in range(WARM_STEPS):
        next(batches)
    start = time.perf_counter()
    done = sum(1 for _ in batches)
    return done * batch_size / (time.perf_counter() - start)


def measure(
    case: Case, device: torch.device, steps: int, images: int, folder: Path, workers: int | None
) -> dict[str, Any]:
    """Seconds a step from memory and from the disk, and what limits the second."""
    workers = default_workers() if workers is None else workers
    # ImageNet's usual size, or the bundled images'.
    size = (500, 375) if case.side > 100 else (28, 28)
    save_photographs(folder / "images", images, size, case.encoder.preprocess.mode == "L")
    loader = loader_of(case, folder / "images", workers)
    step, kept = Step(case, device), case.views(device)

    transform = transform_of(case)

    def on_device(batches: Iterable[ViewBatch]) -> Iterator[list[torch.Tensor]]:
        for batch in batches:
            views = batch.to(device).finished(transform).views
            if case.bf16:
                views = [view.contiguous(memory_format=torch.channels_last) for view in views]
            yield views

    memory = seconds_of(step, itertools.repeat(kept), steps, case)
    alone = decoding_rate(loader, steps, case.batch_size)
    one = next(iter(loader.after(None, 1)))
    crops = seconds_of(step, on_device(itertools.repeat(one)), steps, case)
    disk = seconds_of(step, on_device(loader.after(None, None)), steps, case)
    training = case.batch_size / memory
    if alone < case.batch_size / crops:
        bottleneck = "decoding and cropping" if case.bf16 else "decoding and augmentation"
    elif device.type == "cpu" and disk > 1.05 * memory:
        bottleneck = "the cores that training and decoding share"
    elif crops > 1.02 * memory:
        bottleneck = "augmentation on the device"
    else:
        bottleneck = "training"
    return {
        "network": case.name,
        "batch_size": case.batch_size,
        "image_size": list(size),
        "workers": workers,
        "steps": steps,
        "seconds_from_memory": memory,
        "seconds_from_crops_in_memory": crops,
        "seconds_from_disk": disk,
        "over_memory": disk / memory,
        "loader_alone_images_per_second": alone,
        "training_alone_images_per_second": training,
        "images_per_second": case.batch_size / disk,
        "bottleneck": bottleneck,
        # Where both need the same cores no pipeline can reach the faster of the two.
        "of_the_shared_cores": (case.batch_size / disk) * (1 / alone + 1 / training),
    }
