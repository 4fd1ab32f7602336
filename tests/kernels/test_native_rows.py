"""What is special to the native kernels: tails, a guess at the mean, gradients past the caches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qscore_fast.kernels import cpu
from torch import Tensor

from qscore_fast import reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Gradients of this size are written past the caches.
STREAMED_BYTES = 16 << 20


pytestmark = pytest.mark.usefixtures("target")


def rows(n: int, r: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(n, r, generator=torch.Generator().manual_seed(r)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tail(dtype: torch.dtype) -> None:
    """Whole packs and every number of elements beyond them, from the shortest row on."""
    for r in range(1, 150):
        h = rows(19, r, dtype)
        exact = h.double()
        mask = torch.rand(r, generator=torch.Generator().manual_seed(r)) > 0.4
        active = cpu.highly_active(h, 1.0)
        assert torch.equal(active, reference.highly_active(exact, 1.0)), r
        q, saved = cpu.q_score_fwd(h, mask, 1.0)
        torch.testing.assert_close(q.double(), reference.q_score(exact, mask, 1.0), msg=f"r = {r}")
        assert torch.equal(saved[1], (active & mask).sum(1).to(saved)), r
        assert torch.equal(cpu.activation_counts(h, 1.0), active.sum(0)), r
        stats = torch.stack(reference.row_stats(exact))
        torch.testing.assert_close(
            cpu.row_stats_fwd(h).double(), stats, rtol=2e-6, atol=2e-7, equal_nan=True
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("r", [70, 500, 2048, 20000])
@pytest.mark.parametrize("start", [1e3, -3e4, float("inf"), float("nan")])
def test_first_elements_are_no_guide(r: int, dtype: torch.dtype, start: float) -> None:
    """A row whose beginning is far from its mean, or not finite, beside rows that are ordinary."""
    h = rows(9, r, dtype)
    h[4, :64] = start
    exact = torch.stack(reference.row_stats(h.double()))
    torch.testing.assert_close(
        cpu.row_stats_fwd(h).double(), exact, rtol=1e-6, atol=1e-6, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_rows_have_no_spread(dtype: torch.dtype) -> None:
    for r in (2, 3, 17, 64, 100, 2048, 9999):
        h = torch.full((5, r), 0.1, dtype=dtype) * torch.arange(1, 6, dtype=dtype).unsqueeze(1)
        assert cpu.row_stats_fwd(h)[1].tolist() == [0] * 5, r


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("r", [4096, 1001, 37])
def test_streamed_gradient_equals_a_stored_one(r: int, dtype: torch.dtype) -> None:
    """Bytes that go past the caches are the same bytes, at whatever address a row begins."""
    n = STREAMED_BYTES // (r * dtype.itemsize) + 3
    h = rows(n, r, dtype)
    q, saved = cpu.q_score_fwd(h, None, 1.0)
    dq = torch.randn(n, generator=torch.Generator().manual_seed(0))
    streamed = cpu.q_score_bwd(dq, h, None, q, saved)
    step = n // 3
    for i in range(0, n, step):
        part = slice(i, min(i + step, n))
        stored = cpu.q_score_bwd(
            dq[part].clone(), h[part], None, q[part].clone(), saved[:, part].clone()
        )
        assert stored.nbytes < STREAMED_BYTES
        assert torch.equal(streamed[part], stored)


def test_nan_of_any_payload_stays_nan() -> None:
    """Rounding to bfloat16 would carry the payload's ones into the sign: -0."""
    h = rows(4, 100, torch.bfloat16)
    q, saved = cpu.q_score_fwd(h, None, 1.0)
    dq = torch.full((4,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    assert cpu.q_score_bwd(dq, h, None, q, saved).isnan().all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (300, 1024), (2000, 517)])
def test_limits_touch_every_byte(shape: tuple[int, int]) -> None:
    """What the benchmark calls a read combines all bytes; what it calls a copy copies them."""
    h = rows(*shape, torch.float32)
    out = torch.full_like(h, torch.nan)
    cpu.stream_copy(h, out)
    assert torch.equal(out, h)
    before = cpu.stream_read(h)
    for place in ((0, 0), (-1, -1), (shape[0] // 2, shape[1] // 2)):
        changed = h.clone()
        changed[place] += 1
        assert cpu.stream_read(changed) != before
    whole = np.bitwise_xor.reduce(h.numpy().view(np.uint8), axis=None)
    folded = np.bitwise_xor.reduce(np.frombuffer(np.uint64(before).tobytes(), np.uint8))
    assert folded == whole
