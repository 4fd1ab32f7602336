"""``python -m benchmarks.probes``: probes, neighbours, failure prediction and measures against their rivals.

From the source tree alone: needs torch, NumPy, scikit-learn, SciPy and pyarrow. What else a row needs and is
not installed leaves that row out, with the reason. On a GPU ours runs there and scikit-learn on the CPU of
the same machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..environment import describe
from ..results import RESULTS, write
from . import failure, features, logistic, measures, neighbours, sgd

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
IMAGENET = (1_281_167, 50_000, 2048)
SECTIONS = ("logistic", "sgd", "knn", "failure", "measures")


def main(arguments: list[str] | None = None) -> int:
    """Measure; the command's entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    add(
        "--features",
        choices=("fashion-mnist", "synthetic"),
        default="fashion-mnist" if FASHION_MNIST.is_dir() else "synthetic",
        help="of the problem with 10 classes: the bundled encoder's, or made ones",
    )
    add("--data", type=Path, default=FASHION_MNIST, help="Fashion-MNIST's four files")
    add("--rounds", type=int, default=3, help="of each contender, until it has taken 30 s")
    add("--quick", action="store_true", help="a tenth of the rows, one round: to see that it runs")
    add("--imagenet", action="store_true", help="search all of ImageNet (on a GPU: always)")
    add("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(arguments)
    found = {
        "schema": "qscore-fast.probes.1",
        "environment": describe(torch.device(options.device)),
        "libraries": {name: _version(name) for name in ("scikit-learn", "faiss-cpu", "numpy")},
        "cpu_threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "quick": options.quick,
        "results": run(options),
    }
    print(f"written {write(found, options.out, 'probes')}")
    return 0


def run(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The rows of every section that was asked for."""
    device, on_gpu = options.device, torch.device(options.device).type == "cuda"
    part = 10 if options.quick else 1
    rounds = 1 if options.quick else options.rounds
    rows = features.TRAIN // part
    if options.features == "fashion-mnist":
        small = _cut(features.fashion_mnist(options.data, device), rows)
    else:
        small = features.synthetic(rows, 512, 10)
    wide_rows, width = (50_000 if on_gpu else 20_000) // part, 256 if options.quick else 2048
    wide = features.synthetic(wide_rows, width, 100)
    cases: list[tuple[str, Callable[..., dict[str, Any]], tuple[Any, ...]]] = []
    for problem in (small, wide):
        cases.append(("logistic", logistic.measure, (problem, device, rounds)))
    for problem, epochs in ((small, 10), (wide, 10 if on_gpu else 2)):
        cases.append(("sgd", sgd.grid, (problem, device, rounds, epochs)))
    for name in ("moco", "dino", "simclr"):
        cases.append(("sgd", sgd.whole, (small, name, device, 100 if on_gpu else 10)))
    for sizes in _searches(on_gpu, options.imagenet, part):
        once = 1 if sizes[0] > 10**6 else rounds
        cases.append(("knn", neighbours.measure, (*sizes, device, once, _has("faiss"))))
    for samples, scores in ((10_000 // part, 4), (50_000 // part, 1)):
        cases.append(("failure", failure.measure, (samples, scores, 1)))
    for problem in (small, wide):
        cases.append(("measures", measures.measure, (problem, device, rounds)))
    found: dict[str, list[dict[str, Any]]] = {}
    for section, function, arguments in cases:
        if section not in options.sections:
            continue
        try:
            row = function(*arguments)
        except ImportError as error:
            row = {"left_out": f"{error.name or error} is not installed"}
        found.setdefault(section, []).append(row)
        print(f"{section}: {_line(row)}", flush=True)
    if "knn" in found and not _has("faiss"):
        row = {"left_out": "FAISS: faiss is not installed"}
        found["knn"].append(row)
        print(f"knn: {_line(row)}", flush=True)
    return found


def _searches(on_gpu: bool, imagenet: bool, part: int) -> list[tuple[int, int, int]]:
    """(references, queries, features) of the searches."""
    sizes = [(60_000, 4096, 512), (100_000, 2048, 2048)]
    if on_gpu:
        sizes = [(60_000, 10_000, 512), (200_000, 50_000, 2048)]
    if on_gpu or imagenet:
        sizes.append(IMAGENET)
    return [(n // part, q // part, r) for n, q, r in sizes]


def _cut(problem: features.Problem, rows: int) -> features.Problem:
    return features.Problem(
        problem.name,
        problem.x[:rows],
        problem.y[:rows],
        problem.test_x,
        problem.test_y,
        problem.num_classes,
    )


def _line(row: dict[str, Any]) -> str:
    """A row on a terminal: its plain values, and medians of what was timed."""
    words = []
    for name, value in row.items():
        if isinstance(value, dict):
            words.append(
                f"{name} [{_line(value)}]" if "median" not in value else f"{value['median']:.4g} s"
            )
        elif isinstance(value, float):
            words.append(f"{name} {value:.6g}")
        elif not isinstance(value, list):
            words.append(f"{name} {value}")
    return ", ".join(words)


def _has(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
