"""The forward over r and over N: GB/s against those of the limit, on matrices of one size in bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .data import make_features
from .limits import floor, limit_calls
from .operations import OPERATIONS
from .timing import interleaved

# 40 widths: powers of two, those of known encoders, odd ones, and some beyond 65536.
FEATURES = (
    1, 2, 3, 5, 8, 13, 16, 31, 33, 64, 65, 96, 127, 128, 192, 255, 256, 384, 511, 512, 640, 768, 1000,
    1024, 1280, 1537, 2048, 3001, 4096, 6144, 8191, 8192, 12289, 16384, 24577, 32768, 49999, 65536,
    100003, 262144,
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
ROWS_FEATURES = 2048
CPU_BYTES, GPU_BYTES = 128 << 20, 512 << 20


def sweep(device: torch.device, dtype: str, quick: bool = False) -> dict[str, list[dict[str, Any]]]:
    """``features``: over r at a constant number of bytes. ``rows``: over N at r = 2048."""
    kind = getattr(torch, dtype)
    size = (GPU_BYTES if device.type == "cuda" else CPU_BYTES) // (2 if quick else 1)
    count = size // torch.finfo(kind).bits * 8
    flat = make_features(1, count, kind, device)[0]
    step = 4 if quick else 1
    rows = [n for n in ROWS[::step] if n * ROWS_FEATURES <= count]
    return {
        "features": [_point(_matrix(flat, count // r, r), dtype) for r in FEATURES[::step]],
        "rows": [_point(_matrix(flat, n, ROWS_FEATURES), dtype) for n in rows],
    }


def _matrix(flat: Tensor, rows: int, features: int) -> Tensor:
    return flat[: rows * features].view(rows, features)


def _point(h: Tensor, dtype: str) -> dict[str, Any]:
    operation = OPERATIONS["q_score forward"]
    calls = {"ours": operation.call(operation.ours, h), **limit_calls(h, with_copy=False)}
    times = interleaved(calls, h.device, rounds=7, seconds=0.3)
    seconds = {name: time.median for name, time in times.items()}
    size = h.numel() * h.element_size() / 1e9
    return {
        "rows": h.shape[0],
        "features": h.shape[1],
        "dtype": dtype,
        "seconds": seconds["ours"],
        "gigabytes_per_second": size / seconds["ours"],
        "limit_gigabytes_per_second": size / floor(1, 0, seconds, h.device),
    }
