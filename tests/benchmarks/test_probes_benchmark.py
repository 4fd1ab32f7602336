"""The benchmark of probes: what it compares is the same, and it runs where little is installed."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from benchmarks.probes import failure, features, logistic, measures, neighbours, sgd
from benchmarks.probes.turns import in_turns
from qscore_fast.evaluation.feature_rows import FeatureRows

BARE = """
import sys

MISSING = "PIL", "torchvision", "faiss", "jsonargparse", "fsspec", "safetensors", "timm"

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from benchmarks.probes.__main__ import main
main(["--quick", "--sections", "knn", "--features", "synthetic", "--device", "cpu", "--out", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def problem():
    return features.synthetic(1500, 64, 5, test_rows=300)


def test_contenders_solve_the_same_problem(problem):
    found = logistic.measure(problem, "cpu", 1)
    assert abs(found["loss_of_ours_above"]) <= 1e-4
    assert abs(found["accuracy_of_ours_above"]) <= 0.005
    assert found["against"].startswith("scikit-learn")
    # The loss that is stated is scikit-learn's objective at its solution.
    model = LogisticRegression(C=found["C"], tol=1e-6, max_iter=1000)
    model.fit(problem.x.astype(np.float64), problem.y)
    losses = model.predict_log_proba(problem.x.astype(np.float64))[range(1500), problem.y]
    expected = 0.5 * (model.coef_**2).sum() - found["C"] * losses.sum()
    assert found["contenders"]["ours"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_grid_at_once_is_the_grid_one_by_one(problem):
    found = sgd.grid(problem, "cpu", 1, 2)
    assert found["largest_difference_of_accuracy"] <= 0.01
    assert set(found["times_faster"]) == {"one by one", "torch modules"}
    whole = sgd.whole(problem, "simclr", "cpu", 200)
    assert whole["accuracy"] > 0.3 and whole["epochs_of_protocol"] == 90


def test_searches_find_the_same():
    found = neighbours.measure(3000, 200, 64, "cpu", 1, True)
    assert found["same_neighbours"] > 0.99
    alone = neighbours.measure(3000, 200, 64, "cpu", 1, False)
    assert alone["largest_difference_of_cosine"] < 1e-5


def test_measures_agree_with_the_svd_and_failure_counts_its_rows(problem):
    assert measures.measure(problem, "cpu", 1)["relative_difference"] < 1e-9
    found = failure.measure(200, 1, 1)
    assert (found["scores"], found["resamples"]) == (3, 10_000)


def test_rows_that_share_memory_are_all_different():
    parts = features.many_rows(150_000, 8)
    rows = FeatureRows(parts)
    assert len(rows) == 150_000
    whole = np.concatenate(parts)
    assert len(np.unique(whole, axis=0)) > 0.98 * len(whole)  # a row in 256 is all zeros
    assert parts[0].base is parts[1].base


def test_a_slow_contender_takes_fewer_turns():
    calls = {"slow": lambda: time.sleep(0.02), "fast": lambda: 7}
    times = in_turns(calls, "cpu", rounds=4, limit=0.03)
    assert len(times["slow"].seconds) == 2 and len(times["fast"].seconds) == 4
    assert times["fast"].result == 7


def test_it_runs_without_the_pipelines_dependencies(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "left_out FAISS: faiss is not installed" in done.stdout
    assert list(tmp_path.rglob("probes-*.json"))
