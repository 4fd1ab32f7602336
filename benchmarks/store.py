"""``python -m benchmarks.store``: finalise, rescore and read a run of any size, made of synthetic parts.

The parts are real ones, written by the store itself: the kernels' sparse activations of ReLU-like features,
of which a few matrices are dealt out again and again under new names. What is measured runs in a process of
its own, whose peak resident memory is the figure given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qscore_fast as qf
from qscore_fast.errors import QScoreError
from qscore_fast.scoring.part import OK, PartRows
from qscore_fast.scoring.record import RunRecord
from qscore_fast.scoring.store import Store

from .environment import describe
from .fresh_process import measured
from .results import RESULTS, write

IMAGENET = 1_281_167
NUM_MATRICES = 8
ACTIVATION_EPS = 2.0


def representations(rows: int, features: int, seed: int) -> torch.Tensor:
    """(rows, features) float32, 0 or above: heavy-tailed, sparse, and every feature of its own
    frequency, as the pooled features of a ResNet are.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.empty(features).log_normal_(0, 0.4, generator=torch.Generator().manual_seed(0))
    strength = torch.empty(rows, features).exponential_(1.0, generator=generator)
    return (strength * scale - 0.4).clamp_(min=0).pow_(1.2)


def make_store(folder: Path, rows: int, features: int, unit_size: int) -> int:
    """Write a complete run without results; returns the number of active entries."""
    asked = {
        "source": {"kind": "synthetic", "num_images": rows, "manifest_hash": "0" * 64},
        "encoder": {"fingerprint": "0" * 64, "num_features": features, "dtype": "float32"},
        "preprocess": {},
        "decoder": {},
        "unit_size": unit_size,
        "activation_eps": ACTIVATION_EPS,
        "two_sided": False,
        "embeddings": "none",
    }
    about = {"source_notes": [], "encoder_name": "synthetic", "encoder_system": None}
    index_type = np.uint16 if features <= 2**16 else np.uint32
    matrices = []
    for seed in range(NUM_MATRICES):
        h = representations(unit_size, features, seed + 1)
        offsets, feature, value, *stats = (
            column.numpy() for column in qf.sparse_activations(h, ACTIVATION_EPS)
        )
        matrices.append(
            (np.diff(offsets), feature.astype(index_type), value, np.stack(stats, axis=1))
        )
    total = 0
    with Store.writing(folder, RunRecord(asked, about)) as store:
        for unit in range(store.record.num_units):
            first = unit * unit_size
            n = min(unit_size, rows - first)
            lengths, feature, value, stats = matrices[unit % NUM_MATRICES]
            nnz = int(lengths[:n].sum())
            total += nnz
            part = PartRows(
                sample_ids=[
                    f"n{row // 1300:08d}/n{row // 1300:08d}_{row % 1300}.JPEG"
                    for row in range(first, first + n)
                ],
                labels=[f"n{row // 1300:08d}" for row in range(first, first + n)],
                status=[OK] * n,
                stats=stats[:n],
                lengths=lengths[:n].astype(np.int32),
                feature=feature[:nnz],
                value=value[:nnz],
            )
            store.write_part(unit, part, {})
    return total


def _list(folder: Path) -> None:
    if missing := Store(folder).missing_units():
        raise QScoreError(f"{len(missing)} parts of {folder} are missing")


def _finalise(folder: Path) -> None:
    qf.rescore(folder, eps=4.0)


def _rescore_other(folder: Path) -> None:
    qf.rescore(folder, eps=3.0, lower=40, upper=95)


def _rescore_features(folder: Path, features: Path) -> None:
    qf.rescore(folder, features=features)


def _auto(folder: Path) -> None:
    qf.rescore(folder, eps="auto")


def _lowest(folder: Path, n: int) -> None:
    qf.ScoreRun(folder).lowest(n)


def _lowest_with_duckdb(folder: Path, n: int) -> None:
    import duckdb

    query = "select * from read_parquet(?) order by q_score limit ?"
    duckdb.execute(query, [str(folder / "scores.parquet"), n]).fetchall()


def run(rows: int, features: int, unit_size: int, folder: Path) -> dict[str, Any]:
    """Build, measure, and say how large everything was."""
    start = time.perf_counter()
    entries = make_store(folder, rows, features, unit_size)
    built = time.perf_counter() - start
    parts = sum(path.stat().st_size for path in (folder / "parts").iterdir())
    steps: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
        ("list the parts", _list, (folder,)),
        ("finalise: census, D at eps 4, scores", _finalise, (folder,)),
        ("rescore: eps 3, percentiles 40 95", _rescore_other, (folder,)),
        ("rescore: eps auto", _auto, (folder,)),
        ("rescore: given features", _rescore_features, (folder, folder.parent / "features.npz")),
        ("read the 1,000 lowest", _lowest, (folder, 1000)),
        ("the same with DuckDB", _lowest_with_duckdb, (folder, 1000)),
    ]
    results = {}
    for name, function, arguments in steps:
        results[name] = {k: v for k, v in measured(function, *arguments).items() if k != "result"}
        if function is _rescore_other:
            shutil.copy(folder / "features.npz", folder.parent / "features.npz")
        print(
            f"{name:<40}{results[name]['seconds']:8.2f} s {results[name]['peak_bytes'] / 2**20:8.0f} MiB"
        )
    return {
        "schema": "qscore-fast.store.1",
        "environment": describe(torch.device("cpu")),
        "rows": rows,
        "features": features,
        "unit_size": unit_size,
        "entries": entries,
        "bytes": {"parts": parts, "scores": (folder / "scores.parquet").stat().st_size},
        "build_seconds": built,
        "results": results,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure one store; the command's entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__)
    parser.add_argument("--rows", type=int, default=IMAGENET, help="images of the run")
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--unit-size", type=int, default=1024, help="images a part")
    parser.add_argument("--folder", type=Path, help="where to build it (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="qscore-store-") as folder:
        found = run(options.rows, options.features, options.unit_size, Path(folder) / "run")
    print(json.dumps({key: found[key] for key in ("rows", "entries", "bytes")}))
    print(f"written {write(found, options.out, 'store')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
