"""The rivals of Q-Score against scikit-learn, SciPy, pytorch-ood and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_ood.detector import EnergyBased, Mahalanobis, MaxSoftmax
from scipy.spatial.distance import cdist, pdist
from scipy.stats import entropy
from sklearn.decomposition import PCA
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation import failure as fp
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import nearest


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def blocks(h: Tensor, size: int) -> list[Tensor]:
    return list(h.split(size))


@pytest.mark.parametrize(
    ("entries", "r", "v1"),
    [([1.0], 32, 5.5677643628), ([3.0, 4.0], 64, 4.5161193683)],
)
def test_v1_vectors(entries: list[float], r: int, v1: float) -> None:
    """The vectors divide the variance by r; here it is by r - 1."""
    h = torch.zeros(1, r, dtype=torch.float64)
    h[0, : len(entries)] = torch.tensor(entries)
    assert fp.row_scores(h)["v1_score"].item() == pytest.approx(v1 * math.sqrt((r - 1) / r))


def test_row_scores() -> None:
    h = normal(20, 50).relu()
    h[3] *= 100
    found = fp.row_scores(h, eps=1.5)
    for i, row in enumerate(h.numpy()):
        mean, std = row.mean(), row.std(ddof=1)
        l1, l2 = np.abs(row).sum(), np.linalg.norm(row)
        # Gini: the mean absolute difference of all pairs over twice the mean.
        gini = np.abs(row[:, None] - row[None]).mean() / (2 * row.mean())
        expected = {
            "v1_score": (row.max() - mean) / std / (l1 / l2), "l1_norm": l1, "l2_norm": l2,
            "max_z": (row.max() - mean) / std, "max_activation": row.max(),
            "num_highly_active": (row > mean + 1.5 * std).sum(),
            "hoyer": (math.sqrt(50) - l1 / l2) / (math.sqrt(50) - 1), "gini": gini,
        }  # fmt: skip
        assert {name: s[i].item() for name, s in found.items()} == pytest.approx(expected)
    assert set(found) < {rival.name for rival in fp.RIVALS}


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_that_is_not_finite_has_no_score(entry: float, dtype: torch.dtype) -> None:
    h = normal(4, 10).to(dtype)
    h[1, 3] = entry
    found = fp.row_scores(h)
    for name in ("v1_score", "max_z", "hoyer", "gini"):
        assert found[name].isnan().tolist() == [False, True, False, False], name
    whole = fp.row_scores(h[[0, 2, 3]])
    for name, score in found.items():
        torch.testing.assert_close(score[[0, 2, 3]], whole[name])


def test_sparsity_ends() -> None:
    h = torch.zeros(3, 10)
    h[0, 4], h[1] = -7, 2
    found = fp.row_scores(h)
    assert found["hoyer"].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert found["gini"].tolist() == pytest.approx([0.9, 0, 0], abs=1e-6)
    for name, score in found.items():
        assert score[2] == 0, name
    assert found["v1_score"][1] == found["max_z"][1] == 0


@pytest.mark.parametrize("h", [torch.ones(4), torch.ones(4, 1), torch.ones(4, 5, dtype=torch.int)])
def test_no_matrix(h: Tensor) -> None:
    with pytest.raises(SettingsError, match="two features or more"):
        fp.row_scores(h)


@pytest.mark.parametrize("same", [False, True])
def test_neighbour_scores(same: bool) -> None:
    """Of what ``nearest`` finds: scikit-learn's distances, and a duplicate is a neighbour at distance 0."""
    h, others = normal(30, 8), normal(30, 8, seed=1)
    h[17] = 3 * h[2]
    references = h if same else others
    rows = [FeatureRows.of(x.numpy()) for x in (h, references)]
    cosines = torch.from_numpy(nearest(*rows, 3, itself=same).similarity)
    u, v = (x / x.norm(dim=1, keepdim=True) for x in (h, references))
    far = cdist(u, v)
    if same:
        np.fill_diagonal(far, np.inf)
    expected = np.sort(far, 1)[:, :3]
    scores = fp.neighbour_scores(cosines)
    np.testing.assert_allclose(scores["knn_distance"], -expected[:, 2], rtol=1e-5)
    np.testing.assert_allclose(scores["knn_density"], -expected.mean(1), atol=1e-3, rtol=1e-5)
    assert (expected[17, 0] == pytest.approx(0, abs=1e-7)) == same


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_gaussian(offset: float) -> None:
    """A mean of a million costs no digits that float64 still has."""
    reference = normal(400, 12) @ normal(12, 12, seed=2) + offset
    h = normal(9, 12, seed=3) + offset
    gaussian = fp.Gaussian.fit(blocks(reference, 37))
    centred = (h - offset).numpy() - (reference - offset).numpy().mean(0)
    covariance = np.cov((reference - offset).numpy().T)
    delta = 1e-6 * np.trace(covariance) / 12
    expected = [c @ np.linalg.solve(covariance + delta * np.eye(12), c) for c in centred]
    np.testing.assert_allclose(gaussian.mahalanobis(h), expected, rtol=1e-6)
    if offset == 0:
        pca = PCA(n_components=0.9, svd_solver="full").fit(reference.numpy())
        rest = h.numpy() - pca.inverse_transform(pca.transform(h.numpy()))
        np.testing.assert_allclose(gaussian.pca_residual(h), np.linalg.norm(rest, axis=1))


def test_mahalanobis_of_pytorch_ood() -> None:
    """With one class: half the squared distance, for the scatter (not divided by n - 1) + 1e-6 I."""
    reference, h = normal(300, 5).float(), normal(20, 5, seed=4).float()
    detector = Mahalanobis(None)
    detector.fit_features(reference, torch.zeros(300, dtype=torch.int64))
    gaussian = fp.Gaussian.fit([reference])
    found = gaussian.mahalanobis(h, 1e-6 / 299 / gaussian.variances.mean().item())
    np.testing.assert_allclose(found / 2 / 299, detector.predict_features(h), rtol=1e-4)


def test_gaussian_errors() -> None:
    gaussian = fp.Gaussian.fit([normal(5, 8)])
    for call, message in (
        (lambda: fp.Gaussian.fit([normal(1, 8)]), "1 samples"),
        (lambda: gaussian.mahalanobis(normal(2, 8)), "5 samples for 8 features"),
        (lambda: gaussian.pca_residual(normal(2, 7)), "7 features, the reference set 8"),
        (lambda: gaussian.pca_residual(normal(2, 8), 1.5), "explained = 1.5"),
        (lambda: fp.Gaussian.fit([torch.ones(9, 3)]).mahalanobis(torch.ones(1, 3)), "that differ"),
    ):
        with pytest.raises(SettingsError, match=message):
            call()


def test_consistency() -> None:
    views = [normal(6, 9, seed=s) for s in range(4)]
    expected = [1 - pdist(np.stack([v[i] for v in views]), "cosine").mean() for i in range(6)]
    np.testing.assert_allclose(fp.consistency(views), expected)
    np.testing.assert_allclose(fp.consistency([views[0], 5 * views[0]]), 1)
    for wrong in (views[:1], [views[0], views[1][:5]]):
        with pytest.raises(SettingsError, match="two or more of the same shape"):
            fp.consistency(wrong)


def test_probe_scores() -> None:
    logits = 3 * normal(30, 7)
    found = fp.probe_scores(logits, temperature=2.0)
    p = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    ranked = np.sort(p, 1)
    np.testing.assert_allclose(found["msp"], -MaxSoftmax.score(logits))
    np.testing.assert_allclose(found["margin"], ranked[:, -1] - ranked[:, -2])
    np.testing.assert_allclose(found["max_logit"], logits.numpy().max(1))
    np.testing.assert_allclose(found["energy"], -EnergyBased.score(logits, t=2.0))
    np.testing.assert_allclose(found["entropy"], -entropy(p, axis=1))
    extreme = fp.probe_scores(torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]]))
    assert extreme["entropy"].tolist() == pytest.approx([0, -math.log(3)])
    assert set(found) == {rival.name for rival in fp.RIVALS if rival.uses_labels}


def test_probe_score_errors() -> None:
    for logits, temperature, message in (
        (torch.zeros(3, 1), 1.0, "two classes"),
        (torch.zeros(3), 1.0, "two classes"),
        (torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), 1.0, "in 1 rows, the first is row 1"),
        (torch.zeros(3, 2), 0.0, "temperature = 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            fp.probe_scores(logits, temperature)


def test_registry_says_which_way() -> None:
    names = [rival.name for rival in fp.RIVALS]
    assert len(set(names)) == len(names)
    assert {"constant", "shuffled"} < set(names)
    assert {r.name for r in fp.RIVALS if r.direction == "-"} == {
        "knn_distance", "knn_density", "mahalanobis", "pca_residual", "entropy",
    }  # fmt: skip
