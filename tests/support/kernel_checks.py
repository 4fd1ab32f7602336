"""A backend's kernels, value and gradient, against the reference: what the kernel tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor

from qscore_fast import reference

EPS = 0.5


@contextmanager
def shared_mask(active: Tensor) -> Iterator[None]:
    """Make the reference use the set L of a kernel: a gradient jumps where an entry flips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "highly_active", lambda h, eps, two_sided: active)
        yield


def random_like(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(tensor.numel())
    return torch.randn(tensor.shape, generator=generator).to(tensor)


def assert_within_budget(actual: Tensor, low: Tensor, exact: Tensor) -> None:
    """Allow twice the sum of the low-precision reference's own error and of two roundings."""
    assert actual.dtype == low.dtype
    assert actual.shape == exact.shape
    torch.testing.assert_close(actual.isnan(), exact.isnan())
    if not exact.numel():
        return
    error = torch.nan_to_num(actual.double() - exact).abs().max()
    own_error = torch.nan_to_num(low.double() - exact).abs().max()
    largest = torch.nan_to_num(exact).abs().max()
    assert error <= 2 * (own_error + 2 * torch.finfo(actual.dtype).eps * largest)


def check(
    h: Tensor,
    function: Callable[[Tensor], Tensor],
    value: Tensor,
    dvalue: Tensor,
    dh: Tensor,
) -> None:
    """Compare a kernel's value and gradient with the reference in low and in double precision."""
    results = []
    for x in (h.detach().clone(), h.detach().double()):
        x.requires_grad_()
        y = function(x)
        results.append((y.detach(), torch.autograd.grad(y, x, dvalue.to(y))[0]))
    (low, low_gradient), (exact, exact_gradient) = results
    assert_within_budget(value, low, exact)
    assert dh.is_contiguous()
    assert_within_budget(dh, low_gradient, exact_gradient)


def check_row_stats(kernels: ModuleType, h: Tensor) -> None:
    stats = kernels.row_stats_fwd(h)
    dstats = random_like(stats)
    dh = kernels.row_stats_bwd(dstats, h, stats)
    fields = slice(None)
    if h.shape[1] == 1:
        assert stats[1].isnan().all()
        fields = [0, 2, 3]
    check(
        h, lambda x: torch.stack(reference.row_stats(x))[fields], stats[fields], dstats[fields], dh
    )


def boundary_band(h: Tensor, eps: float, two_sided: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """The exact set L, which elements are within 4 ULP of a threshold, and the upper thresholds."""
    mean, std = (field.unsqueeze(1) for field in reference.row_stats(h.double())[:2])
    width = 4 * torch.finfo(torch.float32).eps * (mean.abs() + eps * std)
    threshold = mean + eps * std
    distance = h.double() - threshold
    if two_sided:
        distance = torch.maximum(distance, mean - eps * std - h.double())
    return distance > 0, distance.abs() <= width, threshold


def check_active(kernels: ModuleType, h: Tensor, eps: float = EPS, two_sided: bool = False) -> None:
    exact, in_band, _ = boundary_band(h, eps, two_sided)
    active = kernels.highly_active(h, eps, two_sided)
    assert active.dtype == torch.bool
    assert torch.equal(active[~in_band], exact[~in_band])
    counts = kernels.activation_counts(h, eps, two_sided)
    assert counts.dtype == torch.int64
    assert ((counts - exact.sum(0)).abs() <= in_band.sum(0)).all()


def saved_sides(h: Tensor, saved: Tensor, two_sided: bool) -> tuple[Tensor, Tensor]:
    """Which elements are above and which below the thresholds that a forward saved."""
    assert len(saved) == (5 if two_sided else 3)
    above = h.float() > saved[0].unsqueeze(1)
    below = h.float() < saved[3].unsqueeze(1) if two_sided else torch.zeros_like(above)
    return above, below


def check_q_score(
    kernels: ModuleType, h: Tensor, mask: Tensor | None, eps: float = EPS, two_sided: bool = False
) -> Tensor:
    q, saved = kernels.q_score_fwd(h, mask, eps, two_sided)
    alone = kernels.q_score(h, mask, eps, two_sided)
    torch.testing.assert_close(alone, q, rtol=0, atol=0, equal_nan=True)
    dq = random_like(q)
    dh = kernels.q_score_bwd(dq, h, mask, q, saved)
    above, below = saved_sides(h, saved, two_sided)
    with shared_mask(above | below):
        check(h, lambda x: reference.q_score(x, mask, eps, two_sided), q, dq, dh)
    members = torch.ones_like(above) if mask is None else mask
    num_above, num_below = (members & above).sum(1).float(), (members & below).sum(1).float()
    assert torch.equal(saved[1], num_above + num_below)
    if two_sided:
        assert torch.equal(saved[4], num_above - num_below)
    l2 = reference.row_stats(h.double()).l2.float()
    torch.testing.assert_close(saved[2], l2, equal_nan=True)
    return q


def check_loss(
    kernels: ModuleType,
    h: Tensor,
    mask: Tensor | None,
    reduction: str = "sum",
    two_sided: bool = False,
) -> Tensor:
    loss, q, saved, row_weight, col_weight = kernels.q_score_loss_fwd(
        h, mask, EPS, 0.3, 0.2, reduction == "mean", two_sided
    )
    dloss = torch.tensor(-1.5, device=h.device)
    dh = kernels.q_score_loss_bwd(dloss, h, mask, q, saved, row_weight, col_weight)
    above, below = saved_sides(h, saved, two_sided)
    with shared_mask(above | below):
        check(
            h,
            lambda x: reference.q_score_loss(x, mask, EPS, 0.3, 0.2, reduction, two_sided),
            loss,
            dloss,
            dh,
        )
    return loss


def check_sparse(kernels: ModuleType, h: Tensor, eps: float = EPS, two_sided: bool = False) -> None:
    offsets, feature, value, stats = kernels.sparse_fwd(h, eps, two_sided)
    assert (offsets.dtype, feature.dtype) == (torch.int64, torch.int32)
    row = torch.repeat_interleave(torch.arange(len(h), device=h.device), offsets.diff())
    active = torch.zeros(h.shape, dtype=torch.bool, device=h.device)
    active[row, feature.long()] = True
    assert torch.equal(active, kernels.highly_active(h, eps, two_sided))

    dvalue, dstats = random_like(value), random_like(stats)
    if h.shape[1] == 1:
        dstats[1] = 0
    dh = kernels.sparse_bwd(dvalue, dstats, h, offsets, feature, value, stats)

    def flat(x: Tensor) -> Tensor:
        expected = reference.sparse_activations(x, eps, two_sided)
        assert torch.equal(expected.offsets, offsets)
        assert torch.equal(expected.feature, feature)
        statistics = torch.stack(expected[3:])
        if h.shape[1] == 1:
            statistics = statistics[[0, 0, 2, 3]]
        return torch.cat([expected.value, statistics.flatten()])

    if h.shape[1] == 1:
        assert stats[1].isnan().all()
        stats, dstats = stats[[0, 0, 2, 3]], dstats.clone()
    with shared_mask(active):
        check(
            h,
            flat,
            torch.cat([value, stats.flatten()]),
            torch.cat([dvalue, dstats.flatten()]),
            dh,
        )
