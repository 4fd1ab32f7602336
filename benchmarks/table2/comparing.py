"""One system: D, then base, control, lasso and Q-Score from one checkpoint, probed and measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.finetuning import Settings, compare
from qscore_fast.finetuning.comparison.result import BASE, Probed
from qscore_fast.finetuning.watching import read_log
from qscore_fast.images import Source

from .representation import has_collapsed, representation


def compare_arms(
    encoder: Encoder,
    images: Source,
    labelled: dict[str, Source],
    settings: Settings,
    arms: tuple[str, ...],
    seeds: tuple[int, ...],
    work: Path,
    device: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Everything about one checkpoint, in plain values; goes on where it was stopped.

    Args:
        images: to train on. labelled: ``train`` and ``test``, for D and the probes.
        work: a folder of the system's own. Embeddings are deleted once everything is measured.
    """
    discovery = qf.score(labelled["train"], encoder, work / "discovery", eps="auto", device=device)
    features = discovery.features
    found = compare(
        encoder, images, features, work / "arms", settings, probe_train=labelled["train"],
        probe_test=labelled["test"], arms=arms, seeds=seeds, device=device, note=say,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for one in found.probed:
        about = representation(_place(work / "arms", one), features.eps, one.fingerprint)
        row = {**asdict(one), **about, "log": _log(work / "arms", one)}
        rows.append({**row, "collapsed": has_collapsed(row, rows[0] if rows else row)})
    for one in found.probed:
        for split in ("train", "test"):
            shutil.rmtree(_place(work / "arms", one) / split, ignore_errors=True)
    summary = discovery.summary
    return {
        "system": found.system,
        "encoder": encoder.architecture,
        "num_features": encoder.num_features,
        "fingerprint": encoder.fingerprint,
        "discovery": {
            "eps": features.eps,
            "num_discriminative": summary["num_discriminative"],
            "empty_fraction": summary["empty_fraction"],
        },
        "rows": rows,
    }


def _place(arms: Path, one: Probed) -> Path:
    return arms / BASE if one.arm == BASE else arms / f"{one.arm}-seed{one.seed}" / "probes"


def _log(arms: Path, one: Probed) -> dict[str, Any] | None:
    """The first and last objective, and the regulariser's share at the end."""
    if one.arm == BASE:
        return None
    lines = read_log(arms / f"{one.arm}-seed{one.seed}")
    names = ("q_term", "column_term", "lasso_term")
    last = {name: lines[-1][name] for name in names if name in lines[-1]}
    return {
        "steps": lines[-1]["step"],
        "first_ssl": lines[0]["ssl"],
        "ssl": lines[-1]["ssl"],
        **last,
    }
