"""The reference against the paper's definition: published vectors, NumPy, hand-made gradients, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from vectors import VECTORS, one_hot, peaks, three_four

from qscore_fast import reference


@pytest.mark.parametrize(("h", "mask", "eps", "active", "q"), VECTORS)
def test_published_vectors(
    h: Tensor, mask: Tensor | None, eps: float, active: list[int], q: float
) -> None:
    assert reference.highly_active(h, eps)[0].nonzero().flatten().tolist() == active
    assert reference.q_score(h, mask, eps).item() == pytest.approx(q, abs=1e-10)


@pytest.mark.parametrize(
    ("h", "mean", "std"),
    [
        (one_hot(32), 0.03125, 0.1739926363),
        (three_four() / 5, 0.021875, 0.1230710542),
        (peaks() / reference.row_stats(peaks()).l2, 0.0619644289, 0.1085606262),
    ],
)
def test_published_statistics(h: Tensor, mean: float, std: float) -> None:
    """The published sigma has no Bessel correction: ours is larger by sqrt(r / (r - 1))."""
    stats = reference.row_stats(h)
    r = h.shape[1]
    assert stats.mean.item() == pytest.approx(mean, abs=1e-10)
    assert stats.std.item() == pytest.approx(std * math.sqrt(r / (r - 1)), abs=1e-10)
    assert stats.l2.item() == pytest.approx(1)


def numpy_q_score(row: np.ndarray, members: np.ndarray, eps: float) -> float:
    """Equation 1 as the paper writes it: on the normalised row."""
    unit = row / np.linalg.norm(row)
    chosen = (unit > unit.mean() + eps * unit.std(ddof=1)) & members
    return float((unit[chosen] - unit.mean()).mean()) if chosen.any() else 0.0


def test_matches_the_paper_on_normalised_rows() -> None:
    rng = np.random.default_rng(0)
    h = rng.gamma(0.3, size=(50, 200))
    members = rng.random(200) < 0.5
    for eps in (1.0, 2.0, 4.0):
        expected = [numpy_q_score(row, members, eps) for row in h]
        q = reference.q_score(torch.from_numpy(h), torch.from_numpy(members), eps)
        np.testing.assert_allclose(q.numpy(), expected, rtol=1e-12)


def test_loss_by_hand() -> None:
    """Two rows, four features, eps = 1: every number is a short sum."""
    h = torch.tensor([[3.0, 0, 0, 4], [0, 0, 1, 0]], dtype=torch.float64)
    # Row 1: mu 1.75, sigma 2.06: L = {3}. Row 2: mu .25, sigma .5: L = {2}.
    q = [(4 - 1.75) / 5, 0.75]
    columns = [0.6, 0, 1.0, 0.8]
    beta = sum(columns) / 4
    expected_second = sum(c for c in columns if c > beta)
    loss = reference.q_score_loss(h, None, 1.0, 0.5, 0.25)
    assert loss.item() == pytest.approx(-0.5 * min(q) / 2 + 0.25 * expected_second)
    averaged = reference.q_score_loss(h, None, 1.0, 0.5, 0.25, "mean")
    assert averaged.item() == pytest.approx(-0.5 * min(q) / 2 + 0.25 * expected_second / 2)


def test_gradient_is_the_closed_form() -> None:
    """dQ/dh_k = (1[k in L & D] / m - 1 / r) / n - Q h_k / n^2, and the column term of design and paper."""
    torch.manual_seed(0)
    h = torch.randn(6, 40, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(40) < 0.7
    q = reference.q_score(h, mask, 0.5)
    (dh,) = torch.autograd.grad(q.sum(), h)
    x = h.detach()
    n = x.norm(dim=1, keepdim=True)
    chosen = reference.highly_active(x, 0.5) & mask
    m = chosen.sum(1, keepdim=True)
    expected = (chosen / m - 1 / 40) / n - q.detach()[:, None] * x / n**2
    torch.testing.assert_close(dh, expected)

    w = torch.rand(40, dtype=torch.float64)
    (dh,) = torch.autograd.grad((w * reference.column_norms(h)).sum(), h)
    torch.testing.assert_close(dh, w * x.sign() / n - (x.abs() @ w)[:, None] * x / n**3)


def numpy_two_sided(row: np.ndarray, members: np.ndarray, eps: float) -> tuple[set[int], float]:
    """L and Q with both sides, on the normalised row."""
    unit = row / np.linalg.norm(row)
    far = np.abs(unit - unit.mean()) > eps * unit.std(ddof=1)
    distances = np.abs(unit - unit.mean())[far & members]
    return set(np.flatnonzero(far)), float(distances.mean()) if len(distances) else 0.0


def test_two_sided_is_its_definition() -> None:
    rng = np.random.default_rng(1)
    h = rng.standard_t(3, size=(50, 200)) + 0.3
    members = rng.random(200) < 0.5
    x = torch.from_numpy(h)
    for eps in (1.0, 2.0, 4.0):
        expected = [numpy_two_sided(row, members, eps) for row in h]
        active = reference.highly_active(x, eps, two_sided=True)
        assert [set(row.nonzero().flatten().tolist()) for row in active] == [e[0] for e in expected]
        assert torch.equal(reference.activation_counts(x, eps, two_sided=True), active.sum(0))
        q = reference.q_score(x, torch.from_numpy(members), eps, two_sided=True)
        np.testing.assert_allclose(q.numpy(), [e[1] for e in expected], rtol=1e-12)
        sparse = reference.sparse_activations(x, eps, two_sided=True)
        row = torch.repeat_interleave(torch.arange(50), sparse.offsets.diff())
        signed = (x - x.mean(1, keepdim=True)) / x.norm(dim=1, keepdim=True)
        torch.testing.assert_close(sparse.value, signed[row, sparse.feature.long()])
        assert (sparse.value < 0).any()


def test_two_sided_gradient_is_the_closed_form() -> None:
    """dQ/dh_k = (s_k 1[k in S] / m - sum_S s / (m r)) / n - Q h_k / n^2, and finite differences."""
    torch.manual_seed(0)
    h = torch.randn(6, 40, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(40) < 0.7
    q = reference.q_score(h, mask, 0.8, two_sided=True)
    (dh,) = torch.autograd.grad(q.sum(), h)
    x = h.detach()
    n = x.norm(dim=1, keepdim=True)
    chosen = reference.highly_active(x, 0.8, two_sided=True) & mask
    s = (x - x.mean(1, keepdim=True)).sign() * chosen
    assert (s < 0).any(1).all()
    m = chosen.sum(1, keepdim=True)
    expected = (s / m - s.sum(1, keepdim=True) / (40 * m)) / n - q.detach()[:, None] * x / n**2
    torch.testing.assert_close(dh, expected)
    for function in (
        lambda y: reference.q_score(y, mask, 0.8, two_sided=True),
        lambda y: reference.q_score_loss(y, mask, 0.8, 0.7, 0.3, two_sided=True),
        lambda y: reference.sparse_activations(y, 0.8, two_sided=True).value,
    ):
        assert torch.autograd.gradcheck(function, (h,), eps=1e-7, atol=1e-6)


def test_special_rows() -> None:
    h = torch.ones(5, 40, requires_grad=True)
    rows = h * torch.tensor([0, 2, float("nan"), float("inf"), 1e20])[:, None]
    q = reference.q_score(rows)
    assert q[:2].tolist() == [0, 0]
    assert q[2:].isnan().all()
    assert not reference.highly_active(rows).any()
    assert torch.equal(reference.q_score(rows, two_sided=True).isnan(), q.isnan())
    assert not reference.highly_active(rows, 0.0, two_sided=True).any()
    assert reference.q_score(torch.tensor([[5.0]])).tolist() == [0]
    assert reference.row_stats(torch.tensor([[5.0]])).std.isnan().all()
    assert reference.q_score_loss(torch.zeros(0, 4)).item() == 0
    assert reference.q_score_loss(rows).isnan()


rows_of_floats = arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(2, 60)), elements=st.integers(-1000, 1000)
)


@settings(deadline=None, max_examples=60)
@given(rows_of_floats, st.sampled_from([0.5, 1.0, 2.0, 4.0]), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scale_changes_nothing(rows: np.ndarray, eps: float, scale: float) -> None:
    """Powers of two scale without rounding, so L and Q stay the same to the bit."""
    h = torch.from_numpy(rows)
    assert torch.equal(reference.highly_active(h, eps), reference.highly_active(h * scale, eps))
    torch.testing.assert_close(
        reference.q_score(h, None, eps), reference.q_score(h * scale, None, eps), rtol=1e-14, atol=0
    )


@settings(deadline=None, max_examples=60)
@given(rows_of_floats, st.sampled_from([1.0, 2.0, 3.0, 4.0]))
def test_cantelli_bounds_the_active_entries(rows: np.ndarray, eps: float) -> None:
    """At most r / (1 + eps^2) entries lie above mu + eps sigma: the reason why sparse entries are few."""
    active = reference.highly_active(torch.from_numpy(rows), eps).sum(1)
    assert (active <= rows.shape[1] / (1 + eps**2)).all()


@settings(deadline=None, max_examples=60)
@given(rows_of_floats, st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_chebyshev_bounds_the_two_sided_entries(rows: np.ndarray, eps: float) -> None:
    """Fewer than r / eps^2 entries lie further than eps sigma from mu."""
    active = reference.highly_active(torch.from_numpy(rows), eps, two_sided=True).sum(1)
    assert (active < rows.shape[1] / eps**2).all()


@settings(deadline=None, max_examples=60)
@given(rows_of_floats, st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_both_sides_are_each_side(rows: np.ndarray, eps: float) -> None:
    """L is that of h and that of its mirror image 2 mu - h, which has the same L and the same distances."""
    h = torch.from_numpy(rows)
    h = h - h.mean(1, keepdim=True).round()  # a whole mean mirrors without rounding
    h = torch.cat([h, -h], 1)  # whose mean is 0
    both = reference.highly_active(h, eps, two_sided=True)
    assert torch.equal(both, reference.highly_active(h, eps) | reference.highly_active(-h, eps))

    mu = torch.arange(1, len(h) + 1).unsqueeze(1)
    shifted, mirrored = mu + h, mu - h
    assert torch.equal(reference.highly_active(mirrored, eps, two_sided=True), both)
    distances = [
        reference.q_score(x, None, eps, two_sided=True) * reference.row_stats(x).l2
        for x in (shifted, mirrored)
    ]
    torch.testing.assert_close(*distances, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(rows_of_floats, st.randoms(use_true_random=False))
def test_order_of_features_does_not_matter(rows: np.ndarray, random: object) -> None:
    order = list(range(rows.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    h = torch.from_numpy(rows)
    torch.testing.assert_close(
        reference.q_score(h, None, 1.0), reference.q_score(h[:, order], None, 1.0)
    )


def test_sparse_entries_give_the_score_back() -> None:
    torch.manual_seed(1)
    h = torch.randn(30, 100, dtype=torch.float64).relu() ** 2
    mask = torch.rand(100) < 0.5
    sparse = reference.sparse_activations(h, 1.5)
    for i in range(30):
        entries = slice(int(sparse.offsets[i]), int(sparse.offsets[i + 1]))
        feature, value = sparse.feature[entries].long(), sparse.value[entries]
        # A larger eps is a selection among the entries.
        kept = mask[feature] & (value * sparse.l2[i] / sparse.std[i] > 2.0)
        expected = value[kept].mean() if kept.any() else torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(reference.q_score(h[i], mask, 2.0), expected)
