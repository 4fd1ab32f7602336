"""The streamed measures against their definitions on SciPy's SVD of the whole matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from qscore_fast.evaluation import measures as m


def entropy(p: np.ndarray) -> float:
    p = p[p > 1e-300]
    return math.exp(-(p * np.log(p)).sum())


def by_svd(x: np.ndarray) -> dict[str, float]:
    """The definitions, on U and s; needs rows that are not zero and not all equal, r and N above 1."""
    n, r = x.shape
    u, s, _ = linalg.svd(x, full_matrices=False)
    c = linalg.svdvals(x - x.mean(0))
    rank = int((s > 1e-9 * s[0]).sum())
    s, c = np.where(s > 1e-9 * s[0], s, 0), np.where(c > 1e-9 * c[0], c, 0)
    w = x / linalg.norm(x, axis=1, keepdims=True)
    q = (w @ w.T) ** 2
    expected = n + n * (n - 1) / r
    return {
        "rankme": entropy(s / s.sum()),
        "effective_rank": entropy(c**2 / (c**2).sum()),
        "nesum": (c**2).sum() / c[0] ** 2,
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "anisotropy": c[0] ** 2 / (c**2).sum(),
        "participation_ratio": (c**2).sum() ** 2 / (c**4).sum(),
        "pseudo_condition": s[-1] / s[0],
        "coherence": n / rank * (u[:, :rank] ** 2).sum(1).max(),
        "self_clustering": (q.sum() - expected) / (n * n - expected),
        "normalised_std": w.std(0, ddof=1).mean(),
        "sparsity_l0": np.count_nonzero(x) / x.size,
        "sparsity_l1": (np.abs(w).sum(1) ** 2).mean() / r,
    }


def assert_equal(x: np.ndarray, parts: list[np.ndarray], tolerance: float = 1e-6) -> None:
    report = m.measure_run(parts)
    assert report.num_samples == len(x)
    assert report.passes == 2
    for name, expected in by_svd(x).items():
        assert float(report[name]) == pytest.approx(expected, rel=tolerance, abs=tolerance), name


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 25), min_size=1, max_size=5).filter(lambda s: sum(s) > 1),
    r=st.integers(2, 30),
    seed=st.integers(0, 999),
    mean=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_random_shapes_and_splits(sizes: list[int], r: int, seed: int, mean: float) -> None:
    x = np.random.default_rng(seed).normal(size=(sum(sizes), r)) + mean
    assert_equal(x, np.split(x, np.cumsum(sizes)[:-1]))


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(6, 60),
    r=st.integers(4, 40),
    rank=st.integers(2, 4),
    seed=st.integers(0, 999),
    dead=st.integers(0, 3),
)
def test_deficient_rank_and_dead_features(n: int, r: int, rank: int, seed: int, dead: int) -> None:
    """Rounding noise is no rank: RankMe of rank 3 in 40 dimensions is not above 3."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, rank)) @ random.normal(size=(rank, r))
    x = np.concatenate([x, np.zeros((n, dead))], axis=1)
    assert_equal(x, np.array_split(x, 3))
    assert float(m.measure_run(x)["rankme"]) <= rank


def test_many_blocks_of_few_features_of_deficient_rank() -> None:
    """The rounding of 500 merges must not pass for a third direction, nor give a row its leverage."""
    random = np.random.default_rng(5)
    x = random.normal(size=(5000, 2)) @ random.normal(size=(2, 3))
    assert_equal(x, np.array_split(x, 500))


def test_relu_features_in_float16() -> None:
    random = np.random.default_rng(1)
    mixed = random.normal(size=(700, 40)) @ random.normal(size=(40, 256)) - 3
    x = np.maximum(mixed, 0).astype(np.float16)
    x[:, ::10] = 0
    assert_equal(x.astype(np.float64), np.array_split(x, 9))


def test_few_samples_of_many_features() -> None:
    x = np.random.default_rng(2).normal(size=(40, 600))
    assert_equal(x, np.array_split(x, 4))
    report = m.measure_run(x)
    assert float(report["coherence"]) == pytest.approx(1)
    assert float(report["rankme"]) <= 40
    assert any("fewer samples (40) than features (600)" in note for note in report.notes)


def test_the_centred_forms() -> None:
    x = np.random.default_rng(3).normal(size=(50, 8)) * np.arange(1, 9) + 100
    moments = m.RepresentationMoments(8).update(x)
    c = linalg.svdvals(x - x.mean(0))
    assert float(m.pseudo_condition(moments, centred=True)) == pytest.approx(c[-1] / c[0])
    assert float(m.stable_rank(moments, centred=True)) == pytest.approx((c**2).sum() / c[0] ** 2)
    few = m.RepresentationMoments(8).update(x[:5])
    assert float(m.pseudo_condition(few, centred=True)) == 0


def test_the_line_is_numpys_weighted_fit() -> None:
    """numpy.polyfit multiplies residuals by w, so w^2 weighs the squares."""
    random = np.random.default_rng(4)
    x = random.normal(size=(400, 60)) * random.uniform(0.1, 1, 60)
    moments = m.RepresentationMoments(60).update(x)
    values = linalg.eigvalsh(np.cov(x.T))[::-1]
    found = m.alpha_req(moments)  # 10..99 was asked for, 60 are there
    assert found.details["fit"] == [10, 59]
    j = np.arange(11, 61)
    slope = np.polyfit(np.log(j), np.log(values[10:]), 1, w=j**-0.5)[0]
    assert float(found) == pytest.approx(-slope, rel=1e-9)
    j = np.arange(1, 21)
    slope = np.polyfit(np.log(j), np.log(values[:20]), 1, w=j**-0.5)[0]
    assert float(m.alpha_req(moments, (0, 19))) == pytest.approx(-slope, rel=1e-9)


ACCUMULATORS: list[tuple[type[m.MomentMeasure], Any, dict[str, Any]]] = [
    (m.RankMe, m.rank_me, {"eps": 1e-3}),
    (m.EffectiveRank, m.effective_rank, {}),
    (m.AlphaReQ, m.alpha_req, {"fit": (0, 11)}),
    (m.NESum, m.nesum, {}),
    (m.StableRank, m.stable_rank, {"centred": True}),
    (m.Anisotropy, m.anisotropy, {}),
    (m.ParticipationRatio, m.participation_ratio, {}),
    (m.CorrectedParticipationRatio, m.participation_ratio_corrected, {}),
    (m.PseudoCondition, m.pseudo_condition, {"centred": True}),
    (m.SelfClustering, m.self_clustering, {}),
    (m.NormalisedStd, m.normalised_std, {}),
    (m.SparsityL0, m.sparsity_l0, {}),
    (m.SparsityL1, m.sparsity_l1, {}),
]


@pytest.mark.parametrize(
    ("kind", "function", "keywords"), ACCUMULATORS, ids=lambda x: getattr(x, "__name__", "")
)
def test_accumulators(kind: type[m.MomentMeasure], function: Any, keywords: dict[str, Any]) -> None:
    h = torch.randn(90, 12, generator=torch.Generator().manual_seed(0)) ** 3
    a, b = kind(12, **keywords), kind(12, **keywords)
    a.update(h[:30]).update(h[30:40])
    a.merge(b.update(h[40:]))
    whole = function(m.RepresentationMoments(12).update(h), **keywords)
    assert float(a.compute()) == pytest.approx(float(whole), rel=1e-9)
    a.reset()
    assert str(a.compute()) == "undefined, because there are no samples"
    with pytest.raises(ValueError, match="has no setting 'wrong'"):
        kind(12, wrong=1)


def test_accumulators_of_other_kinds_or_settings_do_not_merge() -> None:
    with pytest.raises(ValueError, match="cannot merge NESum with {} into RankMe"):
        m.RankMe(3).merge(m.NESum(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'eps': 0.1"):
        m.RankMe(3).merge(m.RankMe(3, eps=0.1))


def test_wrong_settings() -> None:
    moments = m.RepresentationMoments(3).update(np.eye(3))
    for eps in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"eps is {eps}: give a finite number"):
            m.rank_me(moments, eps=eps)
    with pytest.raises(ValueError, match=r"fit is \(5, 5\)"):
        m.alpha_req(moments, (5, 5))
