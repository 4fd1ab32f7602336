"""The files of results: one JSON file a run, in a folder a device."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .environment import ROOT
from .suite import SCHEMA

RESULTS = ROOT / "benchmarks" / "results"

Run = dict[str, Any]


def write(run: Run, out: Path, kind: str = "kernels") -> Path:
    """Write ``run`` below the folder ``out`` and return the file: DEVICE/KIND-DATE.json."""
    environment = run["environment"]
    stamp = re.sub(r"[:+].*", "", environment["date"].replace(":", "-", 2))
    path = out / _slug(environment["device"]) / f"{kind}-{stamp}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=1) + "\n")
    return path


def newest(folder: Path = RESULTS) -> list[Run]:
    """The newest full run of every device below ``folder``, CPUs first."""
    runs = []
    for device in sorted(folder.glob("*")):
        for path in sorted(device.glob("kernels-*.json"), reverse=True):
            run = json.loads(path.read_text())
            if run.get("schema") == SCHEMA and not run["quick"]:
                runs.append(run)
                break
    return sorted(runs, key=lambda run: on_gpu(run))


def on_gpu(run: Run) -> bool:
    return bool(run["environment"]["device_type"] == "cuda")


def find(
    run: Run, operation: str, rows: int, features: int, dtype: str, *, keep_freed: bool = False
) -> Run | None:
    """The result of one case; None where it was not measured or was wrong."""
    wanted = (operation, rows, features, dtype, keep_freed)
    names = ("operation", "rows", "features", "dtype", "keep_freed")
    for row in run["results"]:
        if tuple(row[name] for name in names) == wanted and "error" not in row:
            return row
    return None


def speedup(row: Run, comparator: str) -> float | None:
    """How many times faster than ``comparator`` ours is; None where that was not measured."""
    seconds = row["seconds"]
    return seconds[comparator] / seconds["ours"] if comparator in seconds else None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
