"""The kernels against eager PyTorch, ``torch.compile`` and the limit of the memory, in one run.

The limit of an operation is the time of its unavoidable traffic, measured in the same run: a sum over the
matrix for one read, a copy for one read and one write. A result that differs from the float64 reference has
no time. Writes one JSON file a run under benchmarks/results/<device>/ and prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import qscore_fast as qf
from benchmarks.environment import ROOT, describe, slug
from benchmarks.timing import Call, medians
from qscore_fast import reference

RESULTS = ROOT / "benchmarks" / "results"
CPU_SHAPES = ((16384, 2048), (50000, 512), (256, 2048))
GPU_SHAPES = ((262144, 512), (131072, 2048), (65536, 4096), (256, 2048))
EPS = 4.0


@dataclass(frozen=True)
class Operation:
    """An operation on ``h``: ours, the plain formula, and the traffic that no implementation avoids."""

    name: str
    ours: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    reads: int
    writes: int
    backward: bool


OPERATIONS = (
    Operation("q_score forward", lambda h: qf.q_score(h, None, EPS),
              lambda h: reference.q_score(h, None, EPS), 1, 0, False),
    Operation("q_score forward + backward", lambda h: qf.q_score(h, None, EPS).sum(),
              lambda h: reference.q_score(h, None, EPS).sum(), 2, 1, True),
    Operation("q_score_loss forward + backward", lambda h: qf.q_score_loss(h, None, EPS),
              lambda h: reference.q_score_loss(h, None, EPS), 2, 1, True),
    Operation("activation_counts", lambda h: qf.activation_counts(h, EPS),
              lambda h: reference.activation_counts(h, EPS), 1, 0, False),
    Operation("sparse_activations (eps 2)", lambda h: qf.sparse_activations(h, 2.0).value,
              lambda h: reference.sparse_activations(h, 2.0).value, 1, 0, False),
)  # fmt: skip


def make_features(rows: int, features: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Positive, with many zeros and a heavy tail, like the pooled features of a ResNet."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(rows, features, generator=generator).relu_() ** 3
    return h.to(device, dtype)


def caller(function: Callable[[Tensor], Tensor], h: Tensor, backward: bool) -> Call:
    if not backward:

        def forward() -> Tensor:
            with torch.no_grad():
                return function(h)

        return forward
    leaf = h.detach().requires_grad_()
    return lambda: torch.autograd.grad(function(leaf), leaf)[0]


def agrees(operation: Operation, h: Tensor) -> bool:
    """Whether ours equals the float64 formula on the first rows, but for entries at the threshold."""
    sample = h[:512]
    actual = caller(operation.ours, sample, operation.backward)().double()
    expected = caller(operation.plain, sample.double(), operation.backward)()
    if actual.shape != expected.shape:
        return False
    scale = expected.abs().max()
    tolerance = 4 * torch.finfo(h.dtype).eps + 1e-4
    return bool(((actual - expected).abs() > tolerance * scale).double().mean() < 1e-4)


def measure(operation: Operation, h: Tensor, rounds: int) -> dict[str, object]:
    row: dict[str, object] = {
        "operation": operation.name,
        "rows": h.shape[0],
        "features": h.shape[1],
        "dtype": str(h.dtype).removeprefix("torch."),
    }
    if not agrees(operation, h):
        return {**row, "error": "the result differs from the reference"}
    torch._dynamo.reset()
    compiled = torch.compile(operation.plain)
    target = torch.empty_like(h)
    calls: dict[str, Call] = {
        "ours": caller(operation.ours, h, operation.backward),
        "compiled": caller(compiled, h, operation.backward),
        "eager": caller(operation.plain, h, operation.backward),
        "read": lambda: h.sum(),
        "copy": lambda: target.copy_(h),
    }
    seconds = medians(calls, h.device, rounds)
    limit = (operation.reads - operation.writes) * seconds["read"] + operation.writes * seconds[
        "copy"
    ]
    moved = (operation.reads + operation.writes) * h.numel() * h.element_size()
    return {
        **row,
        "seconds": seconds,
        "gigabytes_per_second": moved / seconds["ours"] / 1e9,
        "times_limit": seconds["ours"] / limit,
        "speedup_over_compile": seconds["compiled"] / seconds["ours"],
        "speedup_over_eager": seconds["eager"] / seconds["ours"],
    }


def print_table(rows: list[dict[str, object]]) -> None:
    print(f"{'operation':34} {'N x r':>14} {'dtype':>9} {'ms':>9} {'GB/s':>7} "
          f"{'x limit':>8} {'vs compile':>11} {'vs eager':>9}")  # fmt: skip
    for row in rows:
        head = f"{row['operation']:34} {row['rows']:>7} x {row['features']:<4} {row['dtype']:>9}"
        if "error" in row:
            print(f"{head}  {row['error']}")
            continue
        print(f"{head} {row['seconds']['ours'] * 1e3:9.3f} {row['gigabytes_per_second']:7.1f} "  # type: ignore[index]
              f"{row['times_limit']:8.2f} {row['speedup_over_compile']:10.1f}x "
              f"{row['speedup_over_eager']:8.1f}x")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    results: list[dict[str, object]] = []
    for name in options.dtypes:
        for shape in GPU_SHAPES if device.type == "cuda" else CPU_SHAPES:
            h = make_features(*shape, getattr(torch, name), device)
            for operation in OPERATIONS:
                results.append(measure(operation, h, options.rounds))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    environment = describe(device)
    path = (
        options.out
        / slug(str(environment["device"]))
        / f"kernels-{str(environment['date'])[:10]}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"environment": environment, "results": results}, indent=1) + "\n")
    print(f"{environment['device']}, {environment['backend']}, torch {environment['torch']}")
    print_table(results)
    print(f"written to {path}")
    return 1 if any("error" in row for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
