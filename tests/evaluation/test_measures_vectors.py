"""The measures on vectors that were worked out elsewhere, to ten digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qscore_fast.evaluation import measures as m
from qscore_fast.evaluation.measures.spectral import entropy_rank

SQUARE = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
Y = np.array([[2, 1, 0.5], [-2, 1, -0.5], [2, -1, -0.5], [-2, -1, 0.5]])


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def test_square() -> None:
    report = m.measure_run(np.array(SQUARE))
    expected = {
        "rankme": 2,
        "stable_rank": 2,
        "nesum": 2,
        "coherence": 1,
        "pseudo_condition": 1,
        "self_clustering": -1 / 3,
        "uniformity": -4.3963489672,
    }
    for name, value in expected.items():
        assert float(report[name]) == close(value), name


def test_collapsed() -> None:
    moments = m.RepresentationMoments(4).update(torch.ones(2, 4))
    assert float(m.self_clustering(moments)) == close(1)
    assert float(m.pseudo_condition(moments)) == 0
    assert float(m.normalised_std(moments)) == 0


def test_three_directions() -> None:
    report = m.measure_run(Y)
    expected = {
        "rankme": 2.6004900060,
        "effective_rank": 1.9503675045,
        "participation_ratio": 1.6153846154,
        "participation_ratio_corrected": 28,  # 1 / (13/21 - 1/4 - 1/3)
        "stable_rank": 1.3125,
        "nesum": 1.3125,
        "pseudo_condition": 0.25,
        "anisotropy": 0.7619047619,
        "coherence": 1,
        "self_clustering": 0.2380952381,
        "uniformity": -2.9898247245,
    }
    for name, value in expected.items():
        assert float(report[name]) == close(value), name
    moments = m.RepresentationMoments(3).update(Y)
    assert float(m.rank_me(moments, eps=1e-7)) == close(2.6004902032)
    np.testing.assert_allclose(moments.spectrum(centred=False).singular_values, [4, 2, 1])


def test_three_directions_off_the_origin() -> None:
    moments = m.RepresentationMoments(3).update(Y + 10)
    found = moments.spectrum(centred=False).singular_values
    np.testing.assert_allclose(found, [34.74241085, 3.39856340, 1.55391598], rtol=1e-8)
    assert float(m.rank_me(moments)) == close(1.5744767452)
    assert float(m.stable_rank(moments)) == close(1.0115695790)
    at_origin = m.RepresentationMoments(3).update(Y)
    for measure in (m.effective_rank, m.nesum, m.participation_ratio, m.anisotropy):
        assert float(measure(moments)) == close(float(measure(at_origin)))
    assert float(m.stable_rank(moments, centred=True)) == close(1.3125)


@pytest.mark.parametrize("fit", [(10, 99), (0, 127), (3, 40)])
def test_power_law(fit: tuple[int, int]) -> None:
    j = np.arange(1, 129)
    assert float(m.power_law_exponent(j**-1.5, fit)) == close(1.5)


def test_exponential_decay_shows_the_weights() -> None:
    eigenvalues = np.exp(-0.05 * np.arange(1, 129))
    found = m.power_law_exponent(eigenvalues)
    assert float(found) == close(1.8421488427)
    assert found.details["fit"] == [10, 99]


def test_alpha_req_of_rows_with_a_known_covariance() -> None:
    """Rows +-sqrt(lambda_j) e_j, far from the origin, have the covariance diag(lambda) but for a factor."""
    axes = np.diag(np.arange(1, 129) ** -0.75)
    moments = m.RepresentationMoments(128).update(np.concatenate([axes, -axes]) + 7)
    assert float(m.alpha_req(moments)) == pytest.approx(1.5, rel=1e-8)


def lidar(means: list[list[float]], offsets: list[list[float]], delta: float) -> m.LiDAR:
    views = np.array(means)[:, None] + np.array(offsets)[None]
    return m.LiDAR(2, delta).update(views)


MEANS = [[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]


@pytest.mark.parametrize("delta", [0, 1e-4, 0.1, 10])
def test_lidar_with_isotropic_views(delta: float) -> None:
    found = lidar(MEANS, [[1, 0], [-1, 0], [0, 1], [0, -1]], delta)
    assert float(found.compute()) == close(1.6493848885)
    if not delta:
        eigenvalues = found.eigenvalues()
        assert eigenvalues is not None
        np.testing.assert_allclose(eigenvalues, [4, 1], rtol=1e-12)


@pytest.mark.parametrize(("delta", "expected"), [(0, 2), (0.1, 1.9973556845)])
def test_lidar_with_views_like_the_means(delta: float, expected: float) -> None:
    assert float(lidar(MEANS, [[2, 0], [-2, 0], [0, 1], [0, -1]], delta).compute()) == close(
        expected
    )


def test_figures_that_reptrix_prints() -> None:
    """Its alpha, and what it calls RankMe: the variance form with eps = 1e-7, in float32."""
    h = torch.randn(1000, 1024, generator=torch.Generator().manual_seed(0))
    moments = m.RepresentationMoments(1024).update(h)
    assert float(m.alpha_req(moments)) == pytest.approx(0.148936, abs=2e-6)
    shares = moments.spectrum(centred=True).shares
    assert entropy_rank(shares, eps=1e-7) == pytest.approx(613.4726, abs=5e-4)
