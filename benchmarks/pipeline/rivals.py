"""The same images through a plain script and through timm."""

from __future__ import annotations

import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qscore_fast as qf
from qscore_fast.allocator import freed_memory_kept
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.prefetch import default_workers

from ..fresh_process import measured
from . import plain_script
from .stages import EPS, SCORING, pipeline

RIVALS = ("plain script", "timm", "plain script, freed memory kept")
TIMM_SCRIPT = "timm's inference.py"
TOLERANCE = 1e-4


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
