"""RepresentationMoments against NumPy on the whole matrix: any split, order, dtype and offset."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qscore_fast.evaluation.measures import RepresentationMoments
from qscore_fast.evaluation.measures.row_blocks import BLOCK_ELEMENTS

BATCHES = st.lists(st.integers(0, 30), min_size=1, max_size=6)


def rows(n: int, r: int, seed: int, mean: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, r)) * random.uniform(0.1, 3, r) + mean


def assert_moments_of(moments: RepresentationMoments, x: np.ndarray, rtol: float = 1e-10) -> None:
    """All of them, made by formulas that may lose digits, but in 80 bits."""
    wide = x.astype(np.longdouble)
    norms = np.sqrt((wide**2).sum(1))
    units = wide[norms > 0] / norms[norms > 0, None]
    assert moments.num_samples == len(x)
    assert moments.num_zero == (norms == 0).sum()
    for scatter, matrix in ((moments.rows, wide), (moments.units, units)):
        centred = matrix - matrix.mean(0) if len(matrix) else matrix
        size = float((centred**2).sum()) + 1e-300
        # In relation to the spread, not to the mean: that is what is lost by subtracting squares.
        np.testing.assert_allclose(
            scatter.centred.numpy(), (centred.T @ centred).astype(float), atol=rtol * size
        )
        np.testing.assert_allclose(
            scatter.uncentred.numpy(),
            (matrix.T @ matrix).astype(float),
            rtol=1e-9,
            atol=rtol * size,
        )
        if len(matrix):
            np.testing.assert_allclose(
                scatter.mean.numpy(), matrix.mean(0).astype(float), rtol=1e-12, atol=1e-13
            )
    assert moments.l0_sum == (x != 0).sum()
    ratios = (np.abs(units).sum(1) ** 2).sum()
    np.testing.assert_allclose(moments.l1_ratio_sum, float(ratios), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    sizes=BATCHES,
    r=st.integers(1, 12),
    seed=st.integers(0, 99),
    mean=st.sampled_from([0.0, 1000.0, -1e6]),
    order=st.randoms(use_true_random=False),
)
def test_any_split_and_order_of_merging(
    sizes: list[int], r: int, seed: int, mean: float, order: object
) -> None:
    x = rows(sum(sizes), r, seed, mean)
    parts = [RepresentationMoments(r).update(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    order.shuffle(parts)  # type: ignore[attr-defined]
    while len(parts) > 1:  # any tree of merges
        a, b = parts.pop(), parts.pop(order.randrange(len(parts)))  # type: ignore[attr-defined]
        parts.insert(order.randrange(len(parts) + 1), a.merge(b))  # type: ignore[attr-defined]
    assert_moments_of(parts[0], x, rtol=1e-9)
    batched = RepresentationMoments(r)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        batched.update(torch.from_numpy(part))
    assert_moments_of(batched, x, rtol=1e-9)


def test_the_mean_costs_no_digits() -> None:
    """With float64 sums of squares, a spread of 1e-6 at a mean of 1000 would be all noise."""
    x = 1000 + 1e-6 * np.random.default_rng(0).normal(size=(3000, 5))
    moments = RepresentationMoments(5)
    for part in np.array_split(x, 7):
        moments.merge(RepresentationMoments(5).update(part))
    assert_moments_of(moments, x, rtol=1e-7)
    squares = x.T @ x - len(x) * np.outer(x.mean(0), x.mean(0))
    exact = (x - x.mean(0)).T @ (x - x.mean(0))
    assert np.abs(squares - exact).max() > 10 * np.abs(exact).max()


def test_more_rows_than_a_block_and_more_features_than_a_panel() -> None:
    r = 1030
    x = rows(BLOCK_ELEMENTS // r + 100, r, 3, mean=50).astype(np.float32)
    moments = RepresentationMoments(r).update(x)
    wide = x.astype(np.float64)
    expected = np.cov(wide.T) * (len(x) - 1)
    np.testing.assert_allclose(moments.rows.centred.numpy(), expected, rtol=1e-8, atol=1e-6)
    np.testing.assert_allclose(moments.rows.uncentred.numpy(), wide.T @ wide, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int32])
def test_dtypes_and_leading_dimensions(dtype: torch.dtype) -> None:
    h = torch.from_numpy(rows(60, 7, 4, mean=8)).mul(10).to(dtype)
    moments = RepresentationMoments(7).update(h.reshape(3, 20, 7))
    assert_moments_of(moments, h.double().numpy())


def test_arrays_that_are_read_only_strided_or_of_other_byte_order() -> None:
    x = rows(40, 14, 5).astype(np.float16)[:, ::2]
    for same in (x, x.astype(">f8"), x.astype(np.longdouble)):
        same.flags.writeable = False
        assert_moments_of(RepresentationMoments(7).update(same), x.astype(np.float64))


def test_the_input_stays_as_it_is_and_needs_no_gradient() -> None:
    h = torch.from_numpy(rows(20, 5, 6)).requires_grad_()
    before = h.detach().clone()
    moments = RepresentationMoments(5).update(h)
    assert torch.equal(h.detach(), before)
    assert not moments.rows.centred.requires_grad


def test_rows_that_cannot_be_measured() -> None:
    x = rows(50, 6, 7)
    bad = np.repeat(x[:1], 4, axis=0)
    bad[[0, 1, 2, 3], [0, 2, 4, 5]] = np.nan, np.inf, -np.inf, 1e200
    zero = np.zeros((3, 6))
    mixed = np.concatenate([bad, x, zero])[np.random.default_rng(0).permutation(57)]
    moments = RepresentationMoments(6)
    for part in np.split(mixed, [1, 30]):
        moments.merge(RepresentationMoments(6).update(part))
    assert (moments.num_invalid, moments.num_zero, moments.num_samples) == (4, 3, 53)
    assert moments.num_nonzero == 50
    assert_moments_of(moments, mixed[np.isin(mixed, [*x.ravel(), 0]).all(1)])


def test_reset_pickle_and_no_rows() -> None:
    x = rows(30, 4, 8)
    moments = RepresentationMoments(4).update(x[:10])
    assert_moments_of(pickle.loads(pickle.dumps(moments)).update(x[10:]), x)
    moments.reset()
    assert_moments_of(moments, x[:0])
    assert_moments_of(moments.update(x[:0]).merge(RepresentationMoments(4)), x[:0])
    assert_moments_of(moments.update(x), x)


def test_the_spectrum_follows_the_rows() -> None:
    x = rows(30, 4, 9)
    moments = RepresentationMoments(4).update(x[:10])
    moments.spectrum(centred=True)
    moments.update(x[10:20])
    moments.spectrum(centred=True)
    moments.merge(RepresentationMoments(4).update(x[20:]))
    expected = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(moments.spectrum(centred=True).values, expected, rtol=1e-10)


def test_wrong_use() -> None:
    moments = RepresentationMoments(6)
    with pytest.raises(ValueError, match=r"\(5, 7\).*r = 6"):
        moments.update(torch.zeros(5, 7))
    with pytest.raises(ValueError, match="complex"):
        moments.update(torch.zeros(5, 6, dtype=torch.complex64))
    with pytest.raises(ValueError, match="dtype object"):
        moments.update(np.zeros((5, 6), dtype=object))
    with pytest.raises(ValueError, match="list"):
        moments.update([[1.0] * 6])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="r = 5 with unit_rows = True into those of r = 6"):
        moments.merge(RepresentationMoments(5))
    with pytest.raises(ValueError, match="unit_rows=True"):
        RepresentationMoments(6, unit_rows=False).update(torch.ones(2, 6)).units  # noqa: B018
    for device in ("nowhere", "meta:99x"):
        with pytest.raises(ValueError, match=f"device is '{device}'.*use cpu"):
            RepresentationMoments(6, device=device)
    with pytest.raises(ValueError, match="num_features is 0"):
        RepresentationMoments(0)
