"""Peak memory, threads and open files of every public call: run as a process, prints one JSON object."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import qscore_fast as qf
from benchmarks.memory import PeakMemory

MATRIX_BYTES = 256 << 20
FEATURES = 2048
Call = Callable[[Tensor], Any]


def gradient(function: Call) -> Call:
    def call(h: Tensor) -> Tensor:
        leaf = h.detach().requires_grad_()
        out = function(leaf)
        return torch.autograd.grad(out, leaf, torch.ones_like(out))[0]

    return call


def public_calls(mask: Tensor) -> dict[str, Call]:
    return {
        "row_stats": qf.row_stats,
        "q_score": qf.q_score,
        "q_score of D": lambda h: qf.q_score(h, mask),
        "q_score of a strided view": lambda h: qf.q_score(h[:, : FEATURES // 2 + 1]),
        "q_score of three dimensions": lambda h: qf.q_score(h.view(2, -1, FEATURES)),
        "q_score_loss": qf.q_score_loss,
        "activation_counts": qf.activation_counts,
        "FeatureCensus": lambda h: qf.FeatureCensus(FEATURES).update(h).counts,
        "highly_active": qf.highly_active,
        "sparse_activations": qf.sparse_activations,
        "score_rows": lambda h: qf.score_rows(h, mask),
        "score_rows of a strided view": lambda h: qf.score_rows(h[:, : FEATURES // 2], mask[::2]),
        "gradient of row_stats": gradient(lambda h: qf.row_stats(h).std),
        "gradient of q_score": gradient(lambda h: qf.q_score(h, mask)),
        "gradient of q_score_loss": gradient(lambda h: qf.q_score_loss(h, mask)),
        "gradient of QScoreLoss": gradient(qf.QScoreLoss(mask)),
        "gradient of a strided view": lambda h: gradient(qf.q_score)(h[:, : FEATURES // 2]),
        "a copy of h": lambda h: (h + 1).sum(),
    }


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in tensors(part)]


def handles() -> list[int]:
    return [len(os.listdir(f"/proc/self/{kind}")) for kind in ("task", "fd")]


def main(dtype: torch.dtype) -> None:
    rows = MATRIX_BYTES // FEATURES // dtype.itemsize
    generator = torch.Generator().manual_seed(0)
    h = torch.empty(rows, FEATURES, dtype=dtype)
    block = torch.empty(1024, FEATURES).normal_(generator=generator).relu_().pow_(3)
    h.view(-1, *block.shape).copy_(block)
    mask = torch.arange(FEATURES) % 3 == 0
    peak = PeakMemory(h.device)
    found: dict[str, Any] = {"rows": rows, "features": FEATURES, "threads": torch.get_num_threads()}
    found["calls"] = {}
    calls = public_calls(mask)
    for name, call in calls.items():
        call(h[:64])  # what is made once: threads, registered functions
        with peak:
            result = call(h)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(result))
        found["calls"][name] = {"growth": peak.bytes, "result": size}
        del result
    before = handles()
    for _ in range(50):
        for call in calls.values():
            call(h[:64])
    found["handles"] = {"before": before, "after": handles()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
