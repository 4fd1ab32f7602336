"""The kernels of every backend against the float64 reference.

Native code runs once for each instruction set of the processor; Triton's kernels are compiled on a GPU and
interpreted elsewhere.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch
from torch import Tensor

from qscore_fast import reference

pytestmark = pytest.mark.usefixtures("backend")
kernels = ModuleType("of the backend under test")  # the fixture puts them here

FEATURES = (1, 2, 3, 17, 127, 128, 129, 512, 1023, 2047, 2048, 4096, 16384, 40000)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EPS = 0.5
POISON = {torch.int32: -(2**30), torch.int64: -(2**60), torch.bool: True}

every_shape = pytest.mark.parametrize(
    ("r", "dtype"),
    [
        pytest.param(r, dtype, id=f"{r}-{str(dtype).removeprefix('torch.')}")
        for r in FEATURES
        for dtype in DTYPES
        if r < 40000 or dtype == torch.bfloat16
    ],
)


@pytest.fixture(autouse=True)
def poison(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every tensor that the kernels allocate hold NaN (or nonsense) until it is written."""

    def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapper(*args: object, **kwargs: object) -> Tensor:
            tensor = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals["__name__"]
            if caller.startswith(kernels.__name__):
                tensor.fill_(POISON.get(tensor.dtype, float("nan")))
            return tensor

        return wrapper

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


@contextmanager
def shared_mask(active: Tensor) -> Iterator[None]:
    """Make the reference use the set L of a kernel: a gradient jumps where an entry flips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "highly_active", lambda h, eps: active)
        yield


def make_rows(r: int, dtype: torch.dtype, device: torch.device, rows: int | None = None) -> Tensor:
    """Normal features; more rows than one tile has where rows are short."""
    if rows is None:
        rows = 131 if r <= 17 else 21 if r <= 129 else 7 if r <= 512 else 3
    generator = torch.Generator().manual_seed(r)
    return torch.randn(rows, r, generator=generator).to(device, dtype)


def make_mask(r: int, device: torch.device) -> Tensor:
    """About 70 % of the features, the first among them."""
    generator = torch.Generator().manual_seed(r + 1)
    mask = torch.rand(r, generator=generator) > 0.3
    mask[0] = True
    return mask.to(device)


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


def check_row_stats(h: Tensor) -> None:
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


def boundary_band(h: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The exact set L, which elements are within 4 ULP of their threshold, and the thresholds."""
    mean, std = reference.row_stats(h.double())[:2]
    threshold = (mean + eps * std).unsqueeze(1)
    width = 4 * torch.finfo(torch.float32).eps * (mean.abs() + eps * std).unsqueeze(1)
    distance = h.double() - threshold
    return distance > 0, distance.abs() <= width, threshold


def check_active(h: Tensor, eps: float = EPS) -> None:
    exact, in_band, _ = boundary_band(h, eps)
    active = kernels.highly_active(h, eps)
    assert active.dtype == torch.bool
    assert torch.equal(active[~in_band], exact[~in_band])
    counts = kernels.activation_counts(h, eps)
    assert counts.dtype == torch.int64
    assert ((counts - exact.sum(0)).abs() <= in_band.sum(0)).all()


def check_q_score(h: Tensor, mask: Tensor | None, eps: float = EPS) -> Tensor:
    q, saved = kernels.q_score_fwd(h, mask, eps)
    torch.testing.assert_close(kernels.q_score(h, mask, eps), q, rtol=0, atol=0, equal_nan=True)
    dq = random_like(q)
    dh = kernels.q_score_bwd(dq, h, mask, q, saved)
    active = h.float() > saved[0].unsqueeze(1)
    with shared_mask(active):
        check(h, lambda x: reference.q_score(x, mask, eps), q, dq, dh)
    members = active if mask is None else active & mask
    assert torch.equal(saved[1], members.sum(1).float())
    l2 = reference.row_stats(h.double()).l2.float()
    torch.testing.assert_close(saved[2], l2, equal_nan=True)
    return q


def check_loss(h: Tensor, mask: Tensor | None, reduction: str = "sum") -> Tensor:
    loss, q, saved, row_weight, col_weight = kernels.q_score_loss_fwd(
        h, mask, EPS, 0.3, 0.2, reduction == "mean"
    )
    dloss = torch.tensor(-1.5, device=h.device)
    dh = kernels.q_score_loss_bwd(dloss, h, mask, q, saved, row_weight, col_weight)
    with shared_mask(h.float() > saved[0].unsqueeze(1)):
        check(
            h,
            lambda x: reference.q_score_loss(x, mask, EPS, 0.3, 0.2, reduction),
            loss,
            dloss,
            dh,
        )
    return loss


def check_sparse(h: Tensor, eps: float = EPS) -> None:
    offsets, feature, value, stats = kernels.sparse_fwd(h, eps)
    assert (offsets.dtype, feature.dtype) == (torch.int64, torch.int32)
    row = torch.repeat_interleave(torch.arange(len(h), device=h.device), offsets.diff())
    active = torch.zeros(h.shape, dtype=torch.bool, device=h.device)
    active[row, feature.long()] = True
    assert torch.equal(active, kernels.highly_active(h, eps))

    dvalue, dstats = random_like(value), random_like(stats)
    if h.shape[1] == 1:
        dstats[1] = 0
    dh = kernels.sparse_bwd(dvalue, dstats, h, offsets, feature, value, stats)

    def flat(x: Tensor) -> Tensor:
        expected = reference.sparse_activations(x, eps)
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


@every_shape
def test_row_stats(r: int, dtype: torch.dtype, device: torch.device) -> None:
    check_row_stats(make_rows(r, dtype, device))


@every_shape
def test_q_score(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h = make_rows(r, dtype, device)
    q = check_q_score(h, make_mask(r, device))
    assert (q != 0).any() or r == 1


@every_shape
def test_q_score_loss(r: int, dtype: torch.dtype, device: torch.device) -> None:
    reduction = "mean" if r % 2 else "sum"
    check_loss(make_rows(r, dtype, device), make_mask(r, device), reduction)


@every_shape
def test_sparse(r: int, dtype: torch.dtype, device: torch.device) -> None:
    check_sparse(make_rows(r, dtype, device))


@every_shape
def test_active(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h = make_rows(r, dtype, device)
    check_active(h)


@pytest.mark.parametrize("rows", [0, 1, 3, 1000])
def test_row_counts(rows: int, device: torch.device) -> None:
    h = make_rows(40, torch.float32, device, rows)
    mask = make_mask(40, device)
    stats = kernels.row_stats_fwd(h)
    assert stats.shape == (4, rows)
    assert kernels.row_stats_bwd(stats, h, stats).shape == h.shape
    assert kernels.highly_active(h, EPS).shape == h.shape
    assert torch.equal(
        kernels.activation_counts(h, EPS), reference.activation_counts(h.double(), EPS)
    )
    check_q_score(h, mask)
    check_loss(h, mask)
    check_sparse(h)


def test_no_rows_have_no_loss(device: torch.device) -> None:
    h = make_rows(40, torch.bfloat16, device, 0)
    loss, q, saved, row_weight, col_weight = kernels.q_score_loss_fwd(h, None, 4.0, 1.0, 1.0, True)
    assert loss.item() == 0
    assert (q.shape, saved.shape, row_weight.shape) == ((0,), (3, 0), (0,))
    assert torch.equal(col_weight, torch.zeros(40, device=device))
    offsets, *_ = kernels.sparse_fwd(h, 4.0)
    assert offsets.tolist() == [0]


@pytest.mark.parametrize("mask", [None, False, True], ids=["none", "empty", "full"])
def test_masks(mask: bool | None, device: torch.device) -> None:
    h = make_rows(300, torch.float32, device)
    chosen = None if mask is None else torch.full((300,), mask, device=device)
    q = check_q_score(h, chosen)
    check_loss(h, chosen)
    if mask is False:
        assert torch.equal(q, torch.zeros_like(q))
        _, saved = kernels.q_score_fwd(h, chosen, EPS)
        dh = kernels.q_score_bwd(torch.ones_like(q), h, chosen, q, saved)
        assert not dh.any()
    else:
        assert (q > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_rows(dtype: torch.dtype, device: torch.device) -> None:
    wide = make_rows(700, dtype, device, 5)
    mask = make_mask(333, device)
    for h in (wide[:, :333], wide[:, 3:336], wide[::2, :333], wide[:1, :333].expand(5, 333)):
        check_row_stats(h)
        check_active(h)
        check_q_score(h, mask)
        check_loss(h, mask)
        check_sparse(h)


@pytest.mark.parametrize("r", [129, 16500])
def test_special_rows(r: int, device: torch.device) -> None:
    """Zero, constant, NaN, Inf and overflowing rows; no row changes another."""
    h = make_rows(r, torch.float32, device, 7)
    h[0] = 0
    h[1] = 3
    h[2, 1] = float("nan")
    h[3, 2] = float("inf")
    h[4] = 2e19 + 1e17 * h[4]  # the squares overflow, the centred squares do not
    mask = torch.ones(r, dtype=torch.bool, device=device)
    strange = torch.tensor([2, 3, 4], device=device)
    ordinary = torch.tensor([0, 1, 5, 6], device=device)

    q, saved = kernels.q_score_fwd(h, mask, 2.0)
    assert q[strange].isnan().all()
    assert q[:2].tolist() == [0, 0]
    dh = kernels.q_score_bwd(torch.ones_like(q), h, mask, q, saved)
    assert dh[strange].isnan().all()
    assert not dh[:2].any()

    active = kernels.highly_active(h, 2.0)
    assert not active[:5].any()
    assert torch.equal(active[ordinary], reference.highly_active(h[ordinary].double(), 2.0))
    assert torch.equal(kernels.activation_counts(h, 2.0), active.sum(0))

    stats = kernels.row_stats_fwd(h)
    assert stats[:, :2].T.tolist() == [[0, 0, 0, 0], [3, 0, 3 * r, pytest.approx(3 * r**0.5)]]
    assert stats[[0, 1, 3], 2].isnan().all()
    assert stats[3, 3:5].isinf().all()
    dstats = torch.ones_like(stats)
    offsets, feature, value, _ = kernels.sparse_fwd(h, 2.0)
    assert torch.equal(offsets.diff(), active.sum(1))
    for gradient in (
        kernels.row_stats_bwd(dstats, h, stats),
        kernels.sparse_bwd(torch.ones_like(value), dstats, h, offsets, feature, value, stats),
    ):
        torch.testing.assert_close(gradient[0], torch.full_like(h[0], 1 / r))
        torch.testing.assert_close(gradient[1], torch.full_like(h[1], 1 / r + 1 + r**-0.5))

    loss, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 0.3, 0.2, False)
    assert loss.isnan()
    # An overflowing row leaves finite columns: its NaN score alone must reach the loss.
    assert kernels.q_score_loss_fwd(h[4:5], mask, 2.0, 0.3, 0.2, False)[0].isnan()
    dh = kernels.q_score_loss_bwd(torch.ones_like(loss), h, mask, *kept)
    assert dh[strange].isnan().all()
    assert not dh[0].any()

    check_q_score(h[ordinary], mask)
    check_loss(h[ordinary], mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("r", [17, 2048, 16500])
def test_mean_far_from_zero(r: int, dtype: torch.dtype, device: torch.device) -> None:
    """Two passes keep the std; L may differ only within a few ULP of the threshold."""
    h = (make_rows(r, torch.float32, device, 8) + 1000).to(dtype)
    mean, std = reference.row_stats(h.double())[:2]
    stats = kernels.row_stats_fwd(h)
    torch.testing.assert_close(stats[1], std.float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(stats[0], mean.float(), rtol=1e-6, atol=0)

    exact, in_band, threshold = boundary_band(h, EPS)
    _, saved = kernels.q_score_fwd(h, None, EPS)
    for active in (kernels.highly_active(h, EPS), h.float() > saved[0].unsqueeze(1)):
        assert torch.equal(active[~in_band], exact[~in_band])
        assert (active != exact).sum() <= max(2, 0.01 * h.numel())
        flipped = (active != exact).nonzero()
        kernel_threshold = saved[0].double()
        for row, feature in flipped.tolist():
            element = h[row, feature].double()
            ends = sorted([kernel_threshold[row].item(), threshold[row].item()])
            assert ends[0] <= element <= ends[1]


def test_threshold_is_strict(device: torch.device) -> None:
    h = torch.tensor([[1.0, 2, 3]], device=device)  # mean 2, std 1
    for eps, expected in [(0.0, 1), (1 - 2**-22, 1), (1.0, 0), (1 + 2**-22, 0)]:
        assert kernels.highly_active(h, eps).tolist() == [[False, False, bool(expected)]]
        assert kernels.activation_counts(h, eps).tolist() == [0, 0, expected]
        assert len(kernels.sparse_fwd(h, eps)[1]) == expected


@pytest.mark.parametrize("r", [40, 16500])
def test_bitwise_equal_over_runs(r: int, device: torch.device) -> None:
    h = make_rows(r, torch.bfloat16, device, 70 if r == 40 else 2)
    mask = make_mask(r, device)

    def run() -> list[Tensor]:
        stats = kernels.row_stats_fwd(h)
        q, saved = kernels.q_score_fwd(h, mask, 2.0)
        offsets, feature, value, sparse_stats = kernels.sparse_fwd(h, 2.0)
        loss, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 0.3, 0.2, False)
        return [
            stats,
            kernels.row_stats_bwd(stats, h, stats),
            q,
            saved,
            kernels.q_score_bwd(q, h, mask, q, saved),
            kernels.highly_active(h, 2.0),
            kernels.activation_counts(h, 2.0),
            offsets,
            feature,
            value,
            sparse_stats,
            kernels.sparse_bwd(value, stats, h, offsets, feature, value, sparse_stats),
            loss,
            *kept,
            kernels.q_score_loss_bwd(loss, h, mask, *kept),
        ]

    first = run()
    for _ in range(2):
        for a, b in zip(first, run(), strict=True):
            assert torch.equal(a, b)


def far_rows(device: torch.device) -> Tensor:
    """Three rows, the last 2^31 + 64 elements into a storage of which only the rows are touched."""
    r, stride = 40, 2**30 + 32
    size = 2 * (2 * stride + r)
    if device.type == "cuda":
        if torch.cuda.mem_get_info()[0] < 2 * size:
            pytest.skip(f"needs {2 * size} bytes of free GPU memory")
        storage = torch.zeros(size, dtype=torch.uint8, device=device)
    else:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        storage = torch.frombuffer(mmap.mmap(-1, size, flags=flags), dtype=torch.uint8)
    return storage.view(torch.bfloat16).as_strided((3, r), (stride, 1))


def test_offsets_beyond_int32(device: torch.device) -> None:
    h = far_rows(device)
    near = make_rows(64, torch.bfloat16, device, 3)[:, :40]  # a stride of like divisibility
    h.copy_(near)
    mask = make_mask(40, device)
    assert torch.equal(kernels.row_stats_fwd(h), kernels.row_stats_fwd(near))
    assert torch.equal(kernels.activation_counts(h, EPS), kernels.activation_counts(near, EPS))
    for far, close in (
        (kernels.q_score_fwd(h, mask, EPS), kernels.q_score_fwd(near, mask, EPS)),
        (kernels.sparse_fwd(h, EPS), kernels.sparse_fwd(near, EPS)),
        (
            kernels.q_score_loss_fwd(h, mask, EPS, 0.3, 0.2, True),
            kernels.q_score_loss_fwd(near, mask, EPS, 0.3, 0.2, True),
        ),
    ):
        for a, b in zip(far, close, strict=True):
            assert torch.equal(a, b)
    q, saved = kernels.q_score_fwd(h, mask, EPS)
    assert torch.equal(
        kernels.q_score_bwd(q, h, mask, q, saved), kernels.q_score_bwd(q, near, mask, q, saved)
    )


def test_triton_refuses_what_it_cannot_read(backend: str, device: torch.device) -> None:
    if backend != "triton":
        return
    h = torch.zeros(2, 3, device=device)
    with pytest.raises(TypeError, match=r"float64.*h\.float\(\)"):
        kernels.q_score_fwd(h.double(), None, EPS)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        kernels.row_stats_fwd(h[:, 0])
    with pytest.raises(ValueError, match=r"strides \(1, 2\)"):
        kernels.highly_active(torch.zeros(3, 2, device=device).T, EPS)
