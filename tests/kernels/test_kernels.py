"""The kernels of every backend against the float64 reference.

Native code runs once for each instruction set of the processor; Triton's kernels are compiled on a GPU and
interpreted elsewhere.
"""

from __future__ import annotations

import itertools
import mmap
from types import ModuleType

import pytest
import torch
from kernel_checks import (
    EPS,
    boundary_band,
    check_active,
    check_loss,
    check_q_score,
    check_row_stats,
    check_sparse,
)
from poison import poison_allocations
from torch import Tensor

from qscore_fast import reference

pytestmark = pytest.mark.usefixtures("backend")
kernels = ModuleType("of the backend under test")  # the fixture puts them here

FEATURES = (1, 2, 3, 17, 127, 128, 129, 512, 1023, 2047, 2048, 4096, 16384, 40000)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

every_shape = pytest.mark.parametrize(
    ("r", "dtype"),
    [
        pytest.param(r, dtype, id=f"{r}-{str(dtype).removeprefix('torch.')}")
        for r in FEATURES
        for dtype in DTYPES
        if r < 40000 or dtype == torch.bfloat16
    ],
)
sides = pytest.mark.parametrize("two_sided", [False, True], ids=["one_sided", "two_sided"])


@pytest.fixture(autouse=True)
def poison(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_allocations(monkeypatch, lambda: kernels.__name__)


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


@every_shape
def test_row_stats(r: int, dtype: torch.dtype, device: torch.device) -> None:
    check_row_stats(kernels, make_rows(r, dtype, device))


@every_shape
def test_q_score(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h = make_rows(r, dtype, device)
    q = check_q_score(kernels, h, make_mask(r, device))
    assert (q != 0).any() or r == 1


@every_shape
def test_q_score_loss(r: int, dtype: torch.dtype, device: torch.device) -> None:
    reduction = "mean" if r % 2 else "sum"
    check_loss(kernels, make_rows(r, dtype, device), make_mask(r, device), reduction)


@every_shape
def test_sparse(r: int, dtype: torch.dtype, device: torch.device) -> None:
    check_sparse(kernels, make_rows(r, dtype, device))


@every_shape
def test_active(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h = make_rows(r, dtype, device)
    check_active(kernels, h)


@pytest.mark.parametrize(
    ("r", "dtype"),
    [*itertools.product([1, 2, 17, 129, 2048], DTYPES), (16500, torch.bfloat16)],
)
def test_two_sided(r: int, dtype: torch.dtype, device: torch.device) -> None:
    h, mask = make_rows(r, dtype, device) + 0.25, make_mask(r, device)
    check_active(kernels, h, EPS, two_sided=True)
    q = check_q_score(kernels, h, mask, EPS, two_sided=True)
    assert (q != 0).any() or r == 1
    check_loss(kernels, h, mask, "mean" if r % 2 else "sum", two_sided=True)
    check_sparse(kernels, h, EPS, two_sided=True)


@pytest.mark.parametrize(
    ("r", "dtype", "two_sided"),
    [
        (1, torch.float32, False),
        (17, torch.float16, False),
        (129, torch.float32, True),
        (2047, torch.bfloat16, True),
        (16500, torch.bfloat16, False),
    ],
)
def test_sums_for_a_loss_over_several_processes(
    r: int, dtype: torch.dtype, two_sided: bool, device: torch.device
) -> None:
    """The scores are to the bit those of the loss; the sums those of float64, NaN where a row is NaN."""
    h, mask = make_rows(r, dtype, device), make_mask(r, device)
    broken = torch.cat([h, torch.full_like(h[:1], torch.nan)])
    for x in (h, h[:0], broken) if r < 16384 else (h,):
        q, saved, sums = kernels.q_score_loss_partial(x, mask, EPS, two_sided)
        _, *of_loss = kernels.q_score_loss_fwd(x, mask, EPS, 0.3, 0.2, False, two_sided)
        torch.testing.assert_close([q, saved], of_loss[:2], rtol=0, atol=0, equal_nan=True)
        assert sums.dtype == torch.float64
        expected = [reference.column_norms(x.double()), q.double().sum()[None]]
        close = {"rtol": 1e-5, "atol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(sums[:-1], torch.cat(expected), **close)
        assert sums[-1] == len(x)


def test_without_low_outliers_two_sides_are_one(device: torch.device) -> None:
    """Features that end in a ReLU have none: all results are the same, but for rounding in a gradient."""
    h = make_rows(300, torch.float32, device, 40).relu() ** 2
    mask = make_mask(300, device)
    assert not reference.highly_active(-h, 2.0).any()
    both = []
    for two_sided in (False, True):
        q, saved = kernels.q_score_fwd(h, mask, 2.0, two_sided)
        loss, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 0.3, 0.2, False, two_sided)
        gradients = (
            kernels.q_score_bwd(q, h, mask, q, saved),
            kernels.q_score_loss_bwd(torch.ones_like(loss), h, mask, *kept),
        )
        exact = (
            q,
            saved[:3],
            loss,
            kernels.highly_active(h, 2.0, two_sided),
            kernels.activation_counts(h, 2.0, two_sided),
            *kernels.sparse_fwd(h, 2.0, two_sided),
            *kernels.score_rows(h, mask, 3.0, 2.0, two_sided),
        )
        both.append((exact, gradients))
    (exact, gradients), (exact_both, gradients_both) = both
    assert all(map(torch.equal, exact, exact_both))
    for one, two in zip(gradients, gradients_both, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rows", [0, 1, 3, 1000])
@sides
def test_row_counts(rows: int, two_sided: bool, device: torch.device) -> None:
    h = make_rows(40, torch.float32, device, rows)
    mask = make_mask(40, device)
    stats = kernels.row_stats_fwd(h)
    assert stats.shape == (4, rows)
    assert kernels.row_stats_bwd(stats, h, stats).shape == h.shape
    assert kernels.highly_active(h, EPS, two_sided).shape == h.shape
    assert torch.equal(
        kernels.activation_counts(h, EPS, two_sided),
        reference.activation_counts(h.double(), EPS, two_sided),
    )
    check_q_score(kernels, h, mask, two_sided=two_sided)
    check_loss(kernels, h, mask, two_sided=two_sided)
    check_sparse(kernels, h, two_sided=two_sided)


def test_no_rows_have_no_loss(device: torch.device) -> None:
    h = make_rows(40, torch.bfloat16, device, 0)
    loss, q, saved, row_weight, col_weight = kernels.q_score_loss_fwd(h, None, 4.0, 1.0, 1.0, True)
    assert loss.item() == 0
    assert (q.shape, saved.shape, row_weight.shape) == ((0,), (3, 0), (0,))
    assert torch.equal(col_weight, torch.zeros(40, device=device))
    offsets, *_ = kernels.sparse_fwd(h, 4.0)
    assert offsets.tolist() == [0]


@pytest.mark.parametrize("mask", [None, False, True], ids=["none", "empty", "full"])
@sides
def test_masks(mask: bool | None, two_sided: bool, device: torch.device) -> None:
    h = make_rows(300, torch.float32, device)
    chosen = None if mask is None else torch.full((300,), mask, device=device)
    q = check_q_score(kernels, h, chosen, two_sided=two_sided)
    check_loss(kernels, h, chosen, two_sided=two_sided)
    if mask is False:
        assert torch.equal(q, torch.zeros_like(q))
        _, saved = kernels.q_score_fwd(h, chosen, EPS, two_sided)
        dh = kernels.q_score_bwd(torch.ones_like(q), h, chosen, q, saved)
        assert not dh.any()
    else:
        assert (q > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_rows(dtype: torch.dtype, device: torch.device) -> None:
    wide = make_rows(700, dtype, device, 5)
    mask = make_mask(333, device)
    for h in (wide[:, :333], wide[:, 3:336], wide[::2, :333], wide[:1, :333].expand(5, 333)):
        check_row_stats(kernels, h)
        check_active(kernels, h)
        check_q_score(kernels, h, mask)
        check_loss(kernels, h, mask)
        check_sparse(kernels, h)
    check_q_score(kernels, wide[::2, 3:336], mask, two_sided=True)
    check_sparse(kernels, wide[::2, 3:336], two_sided=True)


@pytest.mark.parametrize(("r", "two_sided"), [(129, False), (129, True), (16500, False)])
def test_special_rows(r: int, two_sided: bool, device: torch.device) -> None:
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

    q, saved = kernels.q_score_fwd(h, mask, 2.0, two_sided)
    assert q[strange].isnan().all()
    assert q[:2].tolist() == [0, 0]
    dh = kernels.q_score_bwd(torch.ones_like(q), h, mask, q, saved)
    assert dh[strange].isnan().all()
    assert not dh[:2].any()

    active = kernels.highly_active(h, 2.0, two_sided)
    assert not active[:5].any()
    expected = reference.highly_active(h[ordinary].double(), 2.0, two_sided)
    assert torch.equal(active[ordinary], expected)
    assert torch.equal(kernels.activation_counts(h, 2.0, two_sided), active.sum(0))

    stats = kernels.row_stats_fwd(h)
    assert stats[:, :2].T.tolist() == [[0, 0, 0, 0], [3, 0, 3 * r, pytest.approx(3 * r**0.5)]]
    assert stats[[0, 1, 3], 2].isnan().all()
    assert stats[3, 3:5].isinf().all()
    dstats = torch.ones_like(stats)
    offsets, feature, value, _ = kernels.sparse_fwd(h, 2.0, two_sided)
    assert torch.equal(offsets.diff(), active.sum(1))
    for gradient in (
        kernels.row_stats_bwd(dstats, h, stats),
        kernels.sparse_bwd(torch.ones_like(value), dstats, h, offsets, feature, value, stats),
    ):
        torch.testing.assert_close(gradient[0], torch.full_like(h[0], 1 / r))
        torch.testing.assert_close(gradient[1], torch.full_like(h[1], 1 / r + 1 + r**-0.5))

    loss, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 0.3, 0.2, False, two_sided)
    assert loss.isnan()
    # An overflowing row leaves finite columns: its NaN score alone must reach the loss.
    alone, *_ = kernels.q_score_loss_fwd(h[4:5], mask, 2.0, 0.3, 0.2, False, two_sided)
    assert alone.isnan()
    dh = kernels.q_score_loss_bwd(torch.ones_like(loss), h, mask, *kept)
    assert dh[strange].isnan().all()
    assert not dh[0].any()

    check_q_score(kernels, h[ordinary], mask, two_sided=two_sided)
    check_loss(kernels, h[ordinary], mask, two_sided=two_sided)


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
    of_scores = h.float() > saved[0].unsqueeze(1)
    for active in (kernels.highly_active(h, EPS), of_scores):
        assert torch.equal(active[~in_band], exact[~in_band])
        assert (active != exact).sum() <= max(2, 0.01 * h.numel())
    # The mask of another kernel may add up in another order, and has a threshold of its own.
    for row, feature in (of_scores != exact).nonzero().tolist():
        element = h[row, feature].double()
        ends = sorted([saved[0, row].double().item(), threshold[row].item()])
        assert ends[0] <= element <= ends[1]


def test_threshold_is_strict(device: torch.device) -> None:
    h = torch.tensor([[1.0, 2, 3]], device=device)  # mean 2, std 1
    for eps, expected in [(0.0, 1), (1 - 2**-22, 1), (1.0, 0), (1 + 2**-22, 0)]:
        assert kernels.highly_active(h, eps).tolist() == [[False, False, bool(expected)]]
        assert kernels.activation_counts(h, eps).tolist() == [0, 0, expected]
        assert len(kernels.sparse_fwd(h, eps)[1]) == expected
        mirrored = kernels.sparse_fwd(h, eps, True)
        assert kernels.highly_active(h, eps, True).tolist() == [
            [bool(expected), False, bool(expected)]
        ]
        assert kernels.activation_counts(h, eps, True).tolist() == [expected, 0, expected]
        assert mirrored[1].tolist() == [0, 2][: 2 * expected]
        torch.testing.assert_close(
            mirrored[2], torch.tensor([-1, 1][: 2 * expected], device=device) / 14**0.5
        )


@pytest.mark.parametrize(("r", "two_sided"), [(40, False), (40, True), (16500, False)])
def test_bitwise_equal_over_runs(r: int, two_sided: bool, device: torch.device) -> None:
    h = make_rows(r, torch.bfloat16, device, 70 if r == 40 else 2)
    mask = make_mask(r, device)

    def run() -> list[Tensor]:
        stats = kernels.row_stats_fwd(h)
        q, saved = kernels.q_score_fwd(h, mask, 2.0, two_sided)
        offsets, feature, value, sparse_stats = kernels.sparse_fwd(h, 2.0, two_sided)
        loss, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 0.3, 0.2, False, two_sided)
        return [
            stats,
            kernels.row_stats_bwd(stats, h, stats),
            q,
            saved,
            kernels.q_score_bwd(q, h, mask, q, saved),
            kernels.highly_active(h, 2.0, two_sided),
            kernels.activation_counts(h, 2.0, two_sided),
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
