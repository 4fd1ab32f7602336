"""A wrong result has no time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import measure as measurement
from benchmarks.correctness import agrees
from benchmarks.data import make_features
from benchmarks.measure import measure
from benchmarks.operations import OPERATIONS
from benchmarks.plans import Case
from qscore_fast import reference

CPU = torch.device("cpu")
CASE = Case("q_score forward", 600, 64, "float32")


@pytest.fixture
def h() -> Tensor:
    return make_features(CASE.rows, CASE.features, torch.float32, CPU)


def test_equal_but_for_rounding(h: Tensor) -> None:
    for function in (reference.row_stats, reference.q_score, reference.activation_counts):
        assert agrees(function(h), function(h.double()), 64)


def test_wrong_values(h: Tensor) -> None:
    expected = reference.q_score(h.double())
    assert not agrees(expected.float() * 1.001, expected, 64)
    assert not agrees(expected.float()[:-1], expected, 64)
    assert not agrees(expected.float().index_fill(0, torch.tensor([3]), torch.nan), expected, 64)
    counts = reference.activation_counts(h, 2.0)
    assert not agrees(counts + 1, counts, 64)


def test_sparse_entries(h: Tensor) -> None:
    expected = reference.sparse_activations(h.double(), 2.0)
    actual = reference.sparse_activations(h, 2.0)
    assert agrees(actual, expected, 64)
    assert not agrees(actual._replace(feature=actual.feature.flip(0)), expected, 64)
    assert not agrees(actual._replace(value=actual.value * 2), expected, 64)
    # One entry at the threshold more or fewer is no error, although all later ones are at other places.
    row = int(torch.searchsorted(actual.offsets, 1, right=False))
    offsets = actual.offsets.clone()
    offsets[row:] -= 1
    fewer = actual._replace(offsets=offsets, feature=actual.feature[1:], value=actual.value[1:])
    assert agrees(fewer, expected, 64)


@pytest.mark.parametrize("name", OPERATIONS)
def test_ours_is_right(name: str, h: Tensor) -> None:
    row = measure(replace(CASE, operation=name), h, ("eager", "numpy"), rounds=3)
    assert "error" not in row
    seconds: dict[str, float] = row["seconds"]
    assert seconds["ours"] > 0
    assert ("numpy" in seconds) == (OPERATIONS[name].numpy is not None)
    assert ("copy" in seconds) == bool(OPERATIONS[name].writes)
    passes = OPERATIONS[name].reads + OPERATIONS[name].writes
    assert row["gigabytes_per_second"] == pytest.approx(
        passes * h.numel() * 4 / seconds["ours"] / 1e9
    )
    assert row["times_limit"] == pytest.approx(seconds["ours"] / row["limit_seconds"])


@pytest.mark.parametrize("name", ["q_score forward", "q_score backward"])
def test_wrong_ours_has_no_time(name: str, h: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = OPERATIONS[name]

    def off(h: Tensor) -> Any:
        return operation.plain(h) * 1.01

    monkeypatch.setitem(measurement.OPERATIONS, name, replace(operation, ours=off))
    row = measure(replace(CASE, operation=name), h, (), rounds=3)
    assert "differs from the float64 reference" in row["error"]
    assert "seconds" not in row


def test_wrong_comparator_is_left_out(h: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = OPERATIONS["q_score forward"]
    wrong = replace(operation, numpy=lambda array: array.sum(-1))
    monkeypatch.setitem(measurement.OPERATIONS, "q_score forward", wrong)
    row = measure(CASE, h, ("numpy",), rounds=3)
    assert "numpy" not in row["seconds"]
    assert "NumPy" in row["left_out"]["numpy"]
