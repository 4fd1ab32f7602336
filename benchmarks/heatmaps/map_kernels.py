"""``score_maps`` against plain PyTorch, and against scoring the same maps without a heat map."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import qscore_fast as qf
from qscore_fast import reference

from ..data import make_features
from ..implementations import WrongResult
from ..limits import floor, limit_calls
from ..timing import interleaved


@dataclass(frozen=True)
class MapCase:
    """One batch of feature maps."""

    samples: int
    channels: int
    side: int
    dtype: str
    channels_last: bool


def cases(device: torch.device, quick: bool) -> list[MapCase]:
    """A ResNet-50's last maps at 224 pixels, a ResNet-18's, and larger ones."""
    samples = 64 if device.type == "cpu" else 1024
    dtypes = ("float32", "bfloat16")
    shapes = [(samples, 2048, 7)] if quick else [(samples, 2048, 7), (4 * samples, 512, 7)]
    if not quick:
        shapes.append((samples // 4, 2048, 14))
    return [
        MapCase(*shape, dtype, channels_last)
        for shape in shapes
        for dtype in dtypes
        for channels_last in (False, True)
    ]


def make_maps(case: MapCase, device: torch.device) -> Tensor:
    """(N, C, side, side), 0 or above: pooled features of a ResNet spread over the positions."""
    h = make_features(case.samples, case.channels, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    spread = torch.empty(case.samples, 1, case.side, case.side).exponential_(generator=generator)
    order = torch.channels_last if case.channels_last else torch.contiguous_format
    maps = (h[:, :, None, None] * spread).to(device, getattr(torch, case.dtype))
    return maps.contiguous(memory_format=order)


def plain(maps: Tensor) -> tuple[Tensor, ...]:
    """The same in plain PyTorch: pool, score, gather the active channels, add them up."""
    h = maps.float().mean((2, 3))
    q = reference.q_score(h)
    members = reference.highly_active(h)
    return h, q, torch.einsum("nc,nchw->nhw", members.to(maps.dtype), maps)


def measure(case: MapCase, device: torch.device) -> dict[str, Any]:
    """Seconds a call of each, and how much of the limit: one read of the maps."""
    maps = make_maps(case, device)
    flat = maps.permute(0, 2, 3, 1) if case.channels_last else maps
    matrix = flat.reshape(case.samples, -1)
    found = qf.score_maps(maps)
    expected = reference.score_maps(maps[:8].double())
    for name, mine, exact in zip(found._fields, found, expected, strict=True):
        if not torch.allclose(mine[:8].double(), exact.double(), rtol=1e-4, atol=1e-5):
            raise WrongResult(f"score_maps: {name} differs from the float64 reference")
    calls = {
        "ours": lambda: qf.score_maps(maps),
        "without heat map": lambda: qf.q_score(maps.mean((2, 3))),
        "plain": lambda: plain(maps),
        **limit_calls(matrix, False),
    }
    times = interleaved(calls, device, rounds=9, seconds=1.0)
    seconds = {name: time.median for name, time in times.items()}
    limit = floor(1, 0, seconds, device)
    return {
        **asdict(case),
        "active": float(found.num_active.float().mean()),
        "seconds": seconds,
        "quartiles": {name: time.quartiles for name, time in times.items()},
        "limit_seconds": limit,
        "times_limit": seconds["ours"] / limit,
        "gigabytes_per_second": maps.numel() * maps.element_size() / seconds["ours"] / 1e9,
    }
