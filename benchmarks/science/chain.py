"""The chain: score, discover, probe, predict failure, compress, measure; each step once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.encoders.fixed_view import ViewName
from qscore_fast.evaluation.compression import SHARES, compression_curve_of_runs
from qscore_fast.evaluation.discovery import discovery_report
from qscore_fast.evaluation.failure import RivalSettings, evaluate_run
from qscore_fast.evaluation.measures import measure_run
from qscore_fast.evaluation.probes import linear_probe
from qscore_fast.images import Source
from qscore_fast.scoring import ScoreRun

from .paired import paired_comparisons
from .purity import purity_beyond_chance
from .steps import Steps

# Of what the steps return: those of another one are done again.
REVISION = 3
VIEWS: tuple[ViewName, ...] = ("flip", "shift")


def run_chain(
    sources: Mapping[str, Source | Path],
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
    # The test images are scored in views, too: for consistency, LiDAR and alignment.
    passes: dict[str, tuple[str, Encoder]] = {
        "train": ("train", encoder),
        "test": ("test", encoder),
        **{f"test-{view}": ("test", encoder.with_view(view)) for view in VIEWS},
    }
    for name, (split, shown) in passes.items():
        say(f"scoring the {name} images (goes on where it was stopped)")
        runs[name] = qf.score(
            sources[split],
            shown,
            folder / "runs" / name,
            features=None if name == "train" else runs["train"].features,
            eps=eps if name == "train" else None,
            embeddings="npy",
            device=device,
            progress=progress,
        )
    train, test = runs["train"], runs["test"]
    views = [runs[f"test-{view}"] for view in VIEWS]
    key = {
        "chain": REVISION,
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
            logits=folder / "probe" / "logits.npy",
            views=views,
            settings=RivalSettings(device=device),
            num_resamples=num_resamples,
        )
        found.write(place)
        return found.table.to_json()

    def discovery(place: Path) -> dict[str, Any]:
        found = discovery_report(train, labels=True)
        found.write(place)
        return found.to_json() | {"purity_beyond_chance": purity_beyond_chance(found)}

    def compression(place: Path) -> dict[str, Any]:
        curve = compression_curve_of_runs(
            train, test, shares=shares, num_seeds=num_seeds, device=device, progress=say
        )
        curve.write(place)
        return curve.to_json() | {
            "markdown": curve.to_markdown(),
            "paired": paired_comparisons(curve),
        }

    def measures(_: Path) -> dict[str, Any]:
        found = measure_run(train, clid=True, device=device).to_json()
        compared = measure_run(test, views=views, device=device).to_json()
        of_views = {name: compared["measures"][name] for name in ("lidar", "alignment")}
        return found | {"of_views": of_views, "view_notes": compared["notes"]}

    done = {"probe": steps.run("probe", key, probe)}
    done["failure"] = steps.run(
        "failure", key | {"resamples": num_resamples, "views": VIEWS}, failure
    )
    done["discovery"] = steps.run("discovery", key, discovery)
    done["compression"] = steps.run(
        "compression", key | {"shares": shares, "seeds": num_seeds}, compression
    )
    done["measures"] = steps.run("measures", key | {"views": VIEWS}, measures)
    summary = {split: runs[split].summary for split in ("train", "test")}
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
