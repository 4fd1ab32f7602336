"""``score_rows`` of every backend: all at once is what each function gives by itself."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from qscore_fast import reference

pytestmark = pytest.mark.usefixtures("backend")
kernels = ModuleType("of the backend under test")  # the fixture puts them here

EPS, KEEP_EPS = 1.0, 0.5
ROWS = {1: 7, 17: 700, 129: 100, 768: 9, 2048: 5, 16500: 4}


def make_rows(r: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(r)
    h = torch.randn(ROWS[r], r, generator=generator).to(device, dtype)
    return h, (torch.rand(r, generator=generator) > 0.3).to(device)


def check(
    h: Tensor, mask: Tensor | None, eps: float, keep_eps: float, two_sided: bool = False
) -> tuple[Tensor, ...]:
    """Compare with the separate functions, and return what ``score_rows`` returned.

    Equal to the last bit, but for the native score, which is summed over the entries instead of the row.
    """
    everything = kernels.score_rows(h, mask, eps, keep_eps, two_sided)
    offsets, feature, value, stats, q, num_active, counts = everything
    active = kernels.highly_active(h, eps, two_sided)
    expected_q, saved = kernels.q_score_fwd(h, mask, eps, two_sided)
    expected = (*kernels.sparse_fwd(h, keep_eps, two_sided), expected_q)
    for mine, theirs in zip((offsets, feature, value, stats, q), expected, strict=True):
        assert mine.dtype == theirs.dtype
        tolerance = 1e-6 if mine is q and kernels.__name__.endswith("cpu") else 0
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=0, equal_nan=True)
    members = active if mask is None else active & mask
    assert num_active.dtype == torch.int32
    assert torch.equal(num_active, members.sum(1, dtype=torch.int32))
    assert torch.equal(num_active.float(), saved[1])
    assert counts.dtype == torch.int64
    assert torch.equal(counts, active.sum(0))
    assert torch.equal(counts, kernels.activation_counts(h, eps, two_sided))
    return everything


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("r", ROWS)
def test_equals_the_separate_functions(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h, mask = make_rows(r, dtype, device)
    check(h, mask, EPS, KEEP_EPS)
    check(h, None, EPS, EPS)
    check(h, mask, EPS, KEEP_EPS, two_sided=True)


@pytest.mark.parametrize("r", [129, 2048])
@pytest.mark.parametrize("two_sided", [False, True])
def test_equals_the_reference(r: int, two_sided: bool, device: torch.device) -> None:
    h, mask = make_rows(r, torch.float32, device)
    exact = h.double()
    offsets, feature, value, stats, q, num_active, counts = kernels.score_rows(
        h, mask, EPS, KEEP_EPS, two_sided
    )
    entries = reference.sparse_activations(exact, KEEP_EPS, two_sided)
    active = reference.highly_active(exact, EPS, two_sided)
    assert torch.equal(offsets, entries.offsets)
    assert torch.equal(feature, entries.feature)
    assert torch.equal(num_active, (active & mask).sum(1))
    assert torch.equal(counts, active.sum(0))
    for actual, expected in (
        (value, entries.value),
        (stats, torch.stack(reference.row_stats(exact))),
        (q, reference.q_score(exact, mask, EPS, two_sided)),
    ):
        torch.testing.assert_close(actual.double(), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("r", [129, 16500])
def test_rows_that_are_not_finite(r: int, device: torch.device) -> None:
    h, mask = make_rows(r, torch.float32, device)
    h = h[:4].clone()
    h[0, 1], h[1, 2], h[2] = float("nan"), float("inf"), 0
    _, feature, _, _, q, num_active, counts = check(h, mask, EPS, KEEP_EPS)
    assert q[:2].isnan().all()
    assert num_active[:3].tolist() == [0, 0, 0]
    check(h, mask, EPS, KEEP_EPS, two_sided=True)
    alone = kernels.score_rows(h[3:], mask, EPS, KEEP_EPS)
    assert torch.equal(feature, alone[1])
    assert torch.equal(counts, alone[6])


def test_strided_rows(device: torch.device) -> None:
    h, mask = make_rows(768, torch.bfloat16, device)
    check(h[:, 5:], mask[5:], EPS, KEEP_EPS)
    check(h[::2], mask, EPS, KEEP_EPS)


def test_no_rows(device: torch.device) -> None:
    h, mask = make_rows(17, torch.float32, device)
    offsets, feature, value, stats, q, num_active, counts = check(h[:0], mask, EPS, KEEP_EPS)
    assert offsets.tolist() == [0]
    assert (len(feature), len(value), stats.shape) == (0, 0, (4, 0))
    assert (len(q), len(num_active)) == (0, 0)
    assert counts.tolist() == [0] * 17
