"""Probes and neighbours on a GPU: what they find on the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import nearest, searched
from qscore_fast.evaluation.knn import search as search_module
from qscore_fast.evaluation.logistic import SoftmaxProblem, fit_logistic
from qscore_fast.evaluation.sgd import PROTOCOLS, SGDProtocol, fit_sgd

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PROTOCOL = SGDProtocol((0.01, 0.5), epochs=4, batch_size=64, weight_decay=1e-4, trust=None)


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = data.data / 16 + np.random.default_rng(0).normal(0, 0.01, data.data.shape)
    return x.astype(np.float16), data.target.astype(np.int64)


@pytest.mark.parametrize("trust", [None, 0.01])
def test_sgd_is_that_of_the_cpu(digits, trust):
    x, y = digits
    protocol = replace(PROTOCOL, trust=trust, nesterov=trust is None)
    rows = FeatureRows((x[:900], x[900:]))
    here = fit_sgd(rows, y, 10, protocol)
    there = fit_sgd(rows, y, 10, protocol, device="cuda")
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a.weight, b.weight.cpu(), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(a.losses, b.losses, rtol=1e-4)


def test_rows_from_pinned_memory_are_the_rows_that_stay(digits, monkeypatch):
    monkeypatch.setattr("qscore_fast.evaluation.sgd.batches.BLOCK_BYTES", 1 << 14)
    x, y = digits
    protocol = replace(PROTOCOLS["dinov2"], epochs=3, batch_size=64)
    kept, read, again = (
        fit_sgd(FeatureRows.of(x), y, 10, protocol, device="cuda", resident=size)
        for size in (None, 0, None)
    )
    for a, b, c in zip(kept, read, again, strict=True):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.weight, c.weight)


@pytest.mark.parametrize("small", [False, True])
def test_neighbours_are_those_of_the_cpu(digits, monkeypatch, small):
    if small:  # many blocks, and fewer references in one than queries
        monkeypatch.setattr(search_module, "QUERY_BYTES", 4 * 64 * 100)
        monkeypatch.setattr(search_module, "COSINE_BYTES", 4 * 100 * 37)
    rows = FeatureRows.of(digits[0])
    for itself in (False, True):
        here = nearest(rows, rows, 30, itself=itself)
        there = nearest(rows, rows, 30, itself=itself, device="cuda")
        np.testing.assert_allclose(here.similarity, there.similarity, atol=2e-6)
        # Rounding may swap neighbours that are nearer to each other than that.
        assert (here.index == there.index).mean() > 0.99


@pytest.mark.parametrize("index", ["faiss-flat", "faiss-ivf"])
def test_faiss_on_the_gpu_finds_what_it_finds_on_the_cpu(digits, index):
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        pytest.skip("needs FAISS's GPU build")
    rows = FeatureRows.of(digits[0])
    here = searched(rows, rows, 30, index)
    there = searched(rows, rows, 30, index, device="cuda")
    assert there.settings == {**here.settings, "gpu": 0}
    assert there.recall > 0.9
    if index == "faiss-flat":
        assert (here.neighbours.index == there.neighbours.index).mean() > 0.99


def test_logistic_regression_is_that_of_the_cpu(digits):
    x, y = digits
    rows = FeatureRows.of(x)
    here, there = (
        fit_logistic(SoftmaxProblem(rows, y, 10, device=device), [0.1, 10.0], tolerance=1e-9)
        for device in ("cpu", "cuda")
    )
    for a, b in zip(here, there, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
