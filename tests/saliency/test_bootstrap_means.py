"""Means and their intervals against draws that are written out, and against the normal approximation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.resampling import chunks, resample_counts
from qscore_fast.saliency.bootstrap_means import mean_estimates, mean_resamples
from qscore_fast.saliency.interpretation_rows import part_schema
from qscore_fast.saliency.interpretation_summary import summarise


def test_a_resample_is_the_mean_of_the_rows_that_were_drawn() -> None:
    generator = np.random.default_rng(0)
    columns = generator.normal(size=(30, 3))
    columns[generator.random((30, 3)) < 0.3] = np.nan
    found = mean_resamples(columns, 40, seed=5)
    for index, span in enumerate(chunks(30, 40)):
        for counts, row in zip(resample_counts(30, span, index, 5), span, strict=True):
            drawn = np.repeat(columns, counts, axis=0)
            np.testing.assert_allclose(found[row], np.nanmean(drawn, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found, mean_resamples(columns, 40, seed=5))
    assert not np.array_equal(found, mean_resamples(columns, 40, seed=6))


def test_intervals_are_those_of_the_normal_approximation_for_many_rows() -> None:
    values = np.random.default_rng(1).normal(2.0, size=(400, 1))
    [estimate] = mean_estimates(values, mean_resamples(values, 4000, seed=0), level=0.9)
    error = values.std(ddof=1) / 20
    assert estimate.mean == pytest.approx(values.mean()) and estimate.n == 400
    assert estimate.interval is not None
    assert estimate.interval.low == pytest.approx(values.mean() - 1.645 * error, abs=0.12 * error)
    assert estimate.interval.high == pytest.approx(values.mean() + 1.645 * error, abs=0.12 * error)


def test_without_a_value_there_is_no_mean_and_a_resample_without_one_is_counted() -> None:
    columns = np.array([[np.nan, 3.0], [np.nan, np.nan]])
    resamples = mean_resamples(columns, 400, seed=0)
    nothing, one = mean_estimates(columns, resamples)
    assert (nothing.mean, nothing.n, nothing.interval) == (None, 0, None)
    assert one.interval is not None and (one.interval.low, one.interval.high) == (3, 3)
    # A quarter of the resamples of two rows draws the empty one twice.
    assert 60 < one.interval.num_undefined < 140
    assert mean_resamples(np.empty((0, 2)), 5, seed=0).shape == (5, 2)
    with pytest.raises(SettingsError, match="num_resamples"):
        mean_resamples(columns, 0, seed=0)


def rows(core: list[float | None], wnids: list[str]) -> pa.Table:
    """Rows of one encoder; the spurious measures are half the core ones."""
    columns: dict[str, list[object]] = {}
    for field in part_schema(1):
        if field.name.startswith("core_") and field.type == pa.float32():
            columns[field.name] = list(core)
        elif field.name.startswith("spurious_") and field.type == pa.float32():
            columns[field.name] = [None if value is None else value / 2 for value in core]
        else:
            columns[field.name] = wnids if field.name == "wnid" else [None] * len(core)  # type: ignore[assignment]
    columns["core_undefined"] = ["no heat" if value is None else None for value in core]
    return pa.table(columns, schema=part_schema(1))


def test_groups_and_differences_by_hand() -> None:
    table = rows([0.5, 1.0, 0.25, None, 0.75], ["n1", "n1", "n2", "n2", "n2"])
    correct = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    found = summarise(table, [correct], num_resamples=300)
    key = "core", "energy"
    assert found.means[0, "all", *key].mean == pytest.approx(2.5 / 4)
    assert found.means[0, "all", *key].n == 4
    assert found.means[0, "correct", *key].mean == 0.75
    assert found.means[0, "misclassified", *key].mean == 0.25
    assert found.means[0, "misclassified", *key].n == 1
    gap = found.differences["correct less misclassified"][0, "all", *key]
    assert gap.mean == 0.5 and gap.interval is not None
    assert 0.25 <= gap.interval.low <= gap.interval.high <= 0.75
    paired = found.differences["core less spurious"][0, "all", "", "energy"]
    assert paired.mean == pytest.approx(1.25 / 4) and paired.n == 4
    assert found.classes["n2"][0, "all", *key].mean == 0.5
    assert found.class_sizes == {"n1": 2, "n2": 3}
    assert found.undefined[0, "core"] == {"no heat": 1} and found.unknown_outcomes == (1,)
    # Nobody misclassified: no difference, and no number that is none.
    same = summarise(table, [np.ones(5)], num_resamples=10)
    assert same.differences["correct less misclassified"][0, "all", *key].mean is None
    assert summarise(table, [None], num_resamples=0).groups == ("all",)
