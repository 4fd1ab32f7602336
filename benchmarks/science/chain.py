"""The chain: score, discover, probe, predict failure, compress, measure; each step once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.evaluation.compression import compression_curve_of_runs
from qscore_fast.evaluation.discovery import discovery_report
from qscore_fast.evaluation.failure import evaluate_run
from qscore_fast.evaluation.measures import measure_run
from qscore_fast.evaluation.probes import linear_probe
from qscore_fast.images import Source
from qscore_fast.scoring import ScoreRun

from .steps import Steps

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def run_chain(
    sources: dict[str, Source | Path],
    encoder: Encoder,
    folder: Path,
    say: Callable[[str], None],
    *,
    eps: float | Literal["auto"] = 4.0,
    num_resamples: int = 10_000,
    shares: tuple[float, ...] = SHARES,
    num_seeds: int = 4,
    device: str = "cpu",
    progress: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Everything from the images to the tables; what ``folder`` holds of it already is not done again.

    Args:
        sources: ``train``, whose D, probe and census are used, and ``test``; both with labels.
        encoder: of both.
        say: hears which step is at work.

    Returns:
        Plain values by step: ``data``, ``probe``, ``failure``, ``discovery``, ``compression``, ``measures``.
    """
    steps = Steps(folder, say)
    runs: dict[str, ScoreRun] = {}
    for split in ("train", "test"):
        say(f"scoring the {split} images (goes on where it was stopped)")
        runs[split] = qf.score(
            sources[split],
            encoder,
            folder / "runs" / split,
            features=runs["train"].features if split == "test" else None,
            eps=eps if split == "train" else None,
            embeddings="npy",
            device=device,
            progress=progress,
        )
    train, test = runs["train"], runs["test"]
    key = {
        "encoder": encoder.fingerprint,
        "eps": eps,
        "images": [run.summary["num_scored"] for run in (train, test)],
    }

    def probe(place: Path) -> dict[str, Any]:
        found = linear_probe(train, test, device=device)
        found.write(place)
        return found.to_json()

    def failure(place: Path) -> dict[str, Any]:
        found = evaluate_run(
            test,
            folder / "probe" / "probe.parquet",
            reference=train,
            columns=["confidence"],
            num_resamples=num_resamples,
        )
        found.write(place)
        return found.table.to_json()

    def discovery(place: Path) -> dict[str, Any]:
        found = discovery_report(train, labels=True)
        found.write(place)
        return found.to_json()

    def compression(place: Path) -> dict[str, Any]:
        curve = compression_curve_of_runs(
            train, test, shares=shares, num_seeds=num_seeds, device=device, progress=say
        )
        curve.write(place)
        return curve.to_json() | {"markdown": curve.to_markdown()}

    done = {"probe": steps.run("probe", key, probe)}
    done["failure"] = steps.run("failure", key | {"resamples": num_resamples}, failure)
    done["discovery"] = steps.run("discovery", key, discovery)
    done["compression"] = steps.run(
        "compression", key | {"shares": shares, "seeds": num_seeds}, compression
    )
    done["measures"] = steps.run("measures", key, lambda _: measure_run(train).to_json())
    summary = {split: run.summary for split, run in runs.items()}
    data = {
        split: {name: found[name] for name in ("num_images", "num_scored", "num_failed")}
        for split, found in summary.items()
    }
    about = ("encoder", "system", "num_features", "num_discriminative", "eps", "lower", "upper")
    return {
        "data": data | {name: summary["train"][name] for name in about}
        | {"test_empty_fraction": summary["test"]["empty_fraction"],
           "fingerprint": encoder.fingerprint, "encoder": Path(summary["train"]["encoder"]).name},
        **done,
    }  # fmt: skip
