"""The measures that need rows, views or a second pass, against SciPy, scikit-learn and plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg, special
from scipy.spatial import distance
from sklearn.metrics import pairwise_distances

from qscore_fast.evaluation import measures as m
from qscore_fast.evaluation.measures.uniformity import uniform_value


def unit(x: np.ndarray) -> np.ndarray:
    return x / linalg.norm(x, axis=1, keepdims=True)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("n", [2, 300, 1024, 2100])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_scipys_pdist(n: int, t: float) -> None:
    x = normal(n, 5) + 0.3
    found = m.Uniformity(5, t).update(x[: n // 3]).update(x[n // 3 :]).compute()
    expected = math.log(np.exp(-t * distance.pdist(unit(x), "sqeuclidean")).mean())
    assert float(found) == pytest.approx(expected, rel=1e-10)
    assert (found.details["exact"], found.details["rows"]) == (True, n)


def test_uniformity_of_rows_that_nearly_collapse() -> None:
    x = 1000 + normal(200, 6)
    expected = math.log(np.exp(-2 * distance.pdist(unit(x), "sqeuclidean")).mean())
    assert float(m.Uniformity(6).update(x).compute()) == pytest.approx(expected, rel=1e-8)


def test_uniform_rows_come_close_to_their_value() -> None:
    for r, t in ((1, 2.0), (2, 2.0), (7, 0.5), (2048, 2.0)):
        expected = -2 * t + math.log(special.hyp0f1(r / 2, t * t))
        assert uniform_value(r, t) == pytest.approx(expected, rel=1e-12)
    found = m.Uniformity(8).update(normal(4000, 8)).compute()
    assert float(found) == pytest.approx(found.details["uniform"], abs=0.01)


def test_uniformity_of_a_sample() -> None:
    x = normal(6000, 8) + 0.5
    exact = float(m.Uniformity(8).update(x).compute())
    sampled = m.Uniformity(8, max_rows=2000).update(x).compute()
    assert sampled.details["exact"] is False
    assert (sampled.details["rows"], sampled.details["of_rows"]) == (2000, 6000)
    assert sampled.value != exact
    assert float(sampled) == pytest.approx(exact, abs=0.05)


def test_the_sample_depends_on_the_order_but_on_no_split() -> None:
    x = normal(500, 3)
    whole = m.RowSample(3, 50, seed=7).update(x)
    split = m.RowSample(3, 50, seed=7)
    for part in np.array_split(x, 23):
        split.update(torch.from_numpy(part))
    np.testing.assert_array_equal(whole.rows, split.rows)
    assert len(whole.rows) == 50
    assert np.isin(whole.rows, x).all()
    assert not np.array_equal(m.RowSample(3, 50, seed=8).update(x).rows, whole.rows)


def test_every_row_is_as_likely_to_be_sampled_merged_or_not() -> None:
    """300 draws of 20 from 60: a row's share is 1/3, its standard error 0.027."""
    x = np.arange(1.0, 61)[:, None]
    hits = np.zeros(61)
    for seed in range(300):
        sample = m.RowSample(1, 20, seed).update(x[:45])
        sample.merge(m.RowSample(1, 20, 1000 + seed).update(x[45:]))
        kept = sample.rows[:, 0].astype(int)
        assert len(set(kept)) == 20
        hits[kept] += 1
    share = hits[1:] / 300
    assert abs(share - 1 / 3).max() < 4.5 * 0.0272
    assert abs(share[45:].mean() - 1 / 3) < 0.03


def test_a_sample_leaves_out_what_has_no_direction() -> None:
    x = normal(30, 4)
    x[3], x[5, 0], x[7, 1] = 0, np.nan, np.inf
    sample = m.RowSample(4).update(x)
    np.testing.assert_array_equal(sample.rows, np.delete(x, [3, 5, 7], axis=0))
    sample.reset()
    assert sample.rows.shape == (0, 4)


def test_samples_of_one_seed_do_not_merge() -> None:
    with pytest.raises(ValueError, match="seed = 0: give every part a seed of its own"):
        m.Uniformity(3).merge(m.Uniformity(3))
    with pytest.raises(ValueError, match="8192 rows of r = 4"):
        m.RowSample(3).merge(m.RowSample(4, seed=1))
    with pytest.raises(ValueError, match="t = 1.0"):
        m.Uniformity(3).merge(m.Uniformity(3, 1.0, seed=1))
    with pytest.raises(ValueError, match="t is 0"):
        m.Uniformity(3, 0)
    with pytest.raises(ValueError, match="max_rows is 1"):
        m.RowSample(3, 1)


def test_coherence_is_the_largest_leverage() -> None:
    x = normal(60, 7) * np.linspace(0.1, 2, 7) + 3
    x[11] *= 8
    moments = m.RepresentationMoments(7).update(x)
    halves = [m.Coherence(moments).update(part) for part in np.split(x[::-1], [13])]
    assert "saw 13 rows and the first 60" in str(halves[0].compute())
    found = halves[0].merge(halves[1]).compute()
    hat = x @ linalg.pinv(x)
    assert float(found) == pytest.approx(60 / 7 * hat.diagonal().max(), rel=1e-9)
    halves[0].reset()
    assert halves[0].compute().value is None
    with pytest.raises(ValueError, match="moments of"):
        halves[0].merge(m.Coherence(m.RepresentationMoments(7).update(x[1:])))


def test_alignment() -> None:
    u, v = normal(40, 6), normal(40, 6, seed=1) + 2 * normal(40, 6)
    for alpha in (2.0, 1.0):
        expected = (linalg.norm(unit(u) - unit(v), axis=1) ** alpha).mean()
        halves = [m.Alignment(6, alpha).update(u[i], v[i]) for i in (slice(9), slice(9, None))]
        assert float(halves[0].merge(halves[1]).compute()) == pytest.approx(expected, rel=1e-12)
    views = np.stack([u, v, u + v], axis=1)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean(
        [linalg.norm(unit(views[:, i]) - unit(views[:, j]), axis=1) ** 2 for i, j in pairs]
    )
    assert float(m.Alignment(6).update_views(views).compute()) == pytest.approx(expected, rel=1e-12)


def test_alignment_leaves_out_pairs_without_a_direction() -> None:
    u, v = normal(6, 4), normal(6, 4, seed=1)
    expected = float(m.Alignment(4).update(u[4:], v[4:]).compute())
    u[0], v[1], u[2, 1], v[3, 0] = 0, 0, np.nan, 1e200
    found = m.Alignment(4).update(u, v)
    assert (found.num_pairs, found.num_invalid) == (2, 4)
    assert float(found.compute()) == pytest.approx(expected, rel=1e-12)
    found.reset()
    assert "no pair" in str(found.compute())
    with pytest.raises(ValueError, match=r"\(6, 4\) and v \(5, 4\)"):
        found.update(u, v[:5])
    with pytest.raises(ValueError, match="alpha = 1.0"):
        found.merge(m.Alignment(4, 1.0))
    with pytest.raises(ValueError, match="alpha is 0"):
        m.Alignment(4, 0)


@pytest.mark.parametrize("mean", [0, 1000])
def test_lidar_is_scipys_generalised_eigenproblem(mean: float) -> None:
    n, q, r, delta = 50, 5, 8, 0.01
    views = normal(n, 1, r) * np.arange(1, 9) + 0.5 * normal(n, q, r, seed=1) + mean
    parts = [m.LiDAR(r, delta).update(part) for part in np.split(views, [7, 30])]
    found = parts[2].merge(parts[0]).merge(parts[1])
    centres = views.mean(1)
    between = np.cov(centres.T)
    deviations = (views - centres[:, None]).reshape(-1, r)
    within = deviations.T @ deviations / (n * (q - 1)) + delta * np.eye(r)
    values = linalg.eigh(between, within, eigvals_only=True)[::-1]
    eigenvalues = found.eigenvalues()
    assert eigenvalues is not None
    np.testing.assert_allclose(eigenvalues, values, rtol=1e-8)
    p = values / values.sum()
    assert float(found.compute()) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-9)


def test_lidar_of_few_samples_and_what_is_undefined() -> None:
    views = normal(4, 3, 10)
    assert float(m.LiDAR(10).update(views).compute()) <= 3
    assert "pass a delta above 0" in str(m.LiDAR(10, 0).update(views).compute())
    assert "two are needed" in str(m.LiDAR(10).update(views[:1]).compute())
    same = np.stack([views[0], views[0]])
    assert "means of all samples are equal" in str(m.LiDAR(10).update(same).compute())
    views[1, 2, 3] = np.nan
    lidar = m.LiDAR(10).update(views)
    assert (lidar.num_samples, lidar.num_invalid) == (3, 1)
    assert float(lidar.compute()) == pytest.approx(
        float(m.LiDAR(10).update(views[[0, 2, 3]]).compute())
    )
    with pytest.raises(ValueError, match="2 views a sample after samples of 3"):
        lidar.update(views[:, :2])
    with pytest.raises(ValueError, match="2 views a sample after samples of 3"):
        lidar.merge(m.LiDAR(10).update(views[:, :2]))
    with pytest.raises(ValueError, match=r"\(4, 10\)"):
        lidar.update(views[:, 0])
    with pytest.raises(ValueError, match="delta = 1.0"):
        lidar.merge(m.LiDAR(10, 1.0))
    with pytest.raises(ValueError, match="delta is -1"):
        m.LiDAR(10, -1)


def test_lidar_counts_no_rounding_noise() -> None:
    """Three samples span two directions, however much the views magnify the rounding of the others."""
    axes = linalg.orth(normal(10, 10))
    centres = np.zeros((3, 1, 10))
    centres[..., :2] = normal(3, 1, 2, seed=1)
    views = (centres + np.logspace(0, -5, 10) * normal(3, 12, 10, seed=2)) @ axes
    eigenvalues = m.LiDAR(10, 0).update(views + 100).eigenvalues()
    assert eigenvalues is not None
    assert np.count_nonzero(eigenvalues) == 2


def test_two_nn_finds_the_dimension_of_a_curved_sheet() -> None:
    """A square, rolled up in 20 dimensions, has two."""
    a, b = np.random.default_rng(0).uniform(0, 1, (2, 2500))
    rolled = np.stack([np.cos(3 * a), np.sin(3 * a), 3 * b], axis=1)
    turned = rolled @ linalg.orth(normal(20, 3)).T
    assert float(m.two_nn(turned)) == pytest.approx(2, rel=0.08)
    assert float(m.two_nn(normal(2500, 5))) == pytest.approx(5, rel=0.12)


def test_two_nn_is_its_definition() -> None:
    x = normal(200, 4)
    x[5] = x[9]
    nearest = np.sort(pairwise_distances(x), axis=1)[:, 1:3]
    nearest[nearest < 1e-9] = 0
    mu = np.sort([b / a for a, b in nearest if a > 0])
    kept = int(0.9 * len(mu))
    x_axis = np.log(mu[:kept])
    y_axis = [-math.log(1 - (i + 1) / len(mu)) for i in range(kept)]
    slope = linalg.lstsq(x_axis[:, None], np.array(y_axis))[0][0]
    found = m.two_nn(x)
    assert float(found) == pytest.approx(slope, rel=1e-6)
    assert found.details["duplicates"] == 2
    assert "have an equal one" in str(m.two_nn(np.repeat(x[:20], 2, axis=0)))
    assert "10 are needed" in str(m.two_nn(x[:9]))


def test_two_nn_knows_a_copy_however_its_distance_is_rounded() -> None:
    """In 512 dimensions a search by products puts copies of a unit row at 1e-8 of it, not at 0."""
    whole = unit(normal(600, 20) @ normal(20, 512, seed=1))
    rows = np.concatenate([whole, whole[:100], whole[:100]])
    _, same, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    alone = counts[same.ravel()] == 1
    assert (len(rows), alone.sum()) == (800, 500)
    # A row twice is one neighbour at two places: then mu is 1.
    nearest = np.sort(distance.cdist(rows[alone], rows), axis=1)[:, 1:3]
    mu = np.sort(nearest[:, 1] / nearest[:, 0])
    kept = int(0.9 * len(mu))
    y_axis = -np.log1p(-np.arange(1, kept + 1) / len(mu))
    slope = linalg.lstsq(np.log(mu[:kept, None]), y_axis)[0][0]
    found = m.two_nn(rows)
    assert float(found) == pytest.approx(slope, rel=1e-6)
    assert slope > 10
    assert found.details["rows"] == 500 and found.details["duplicates"] == 300
    clid = m.clid_measures(m.RowSample(512).update(rows))
    learned = float(clid["cluster_learnability"])
    assert float(clid["clid"]) - learned == pytest.approx(slope / 512, rel=1e-4)


def test_clusters_are_learnable_where_there_are_clusters() -> None:
    """As many far clusters as k-means looks for, against none at all in many dimensions."""
    random = np.random.default_rng(0)
    centres = np.repeat(normal(20, 50), 20, axis=0)
    tight = m.cluster_learnability(unit(centres + 0.01 * random.normal(size=(400, 50))))
    loose = m.cluster_learnability(unit(random.normal(size=(400, 50))))
    assert tight.details["clusters"] == 20
    assert float(tight) > 0.9
    assert float(loose) < 0.5
    assert "16 are needed" in str(m.cluster_learnability(np.eye(8)))
    assert "1 rows are different" in str(m.cluster_learnability(np.ones((30, 1))))


def test_clid_adds_up() -> None:
    sample = m.RowSample(6).update(normal(300, 6) + 1)
    found = m.clid_measures(sample)
    total = float(found["cluster_learnability"]) + float(found["intrinsic_dimension"]) / 6
    assert float(found["clid"]) == pytest.approx(total)
    collapsed = m.clid_measures(m.RowSample(6).update(np.ones((300, 6))))
    assert all(value.value is None and value.reason for value in collapsed.values())
