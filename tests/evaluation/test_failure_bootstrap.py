"""The bootstrap: against resampling row by row, and the coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qscore_fast.kernels import cpu
from sklearn.metrics import average_precision_score, roc_auc_score

import qscore_fast as qf
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation import failure as fp
from qscore_fast.evaluation.failure import resampling as module

METRICS = (
    *fp.default_metrics(0.7, 0.3), fp.auprc_success("trapezoid"), fp.auprc_error("trapezoid"),
    fp.fpr_at_tpr(0.9, "nearest"), fp.aurc("trapezoid"), fp.aurc("torch_uncertainty"),
    fp.aurc("fd_shifts"), fp.aurc("confidnet"), fp.e_aurc("fd_shifts", "empirical"),
)  # fmt: skip


def sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    correct = generator.random(n) < 0.7
    return correct + generator.normal(size=n), correct


def drawn(n: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each sample is in each resample, (num_resamples, n)."""
    spans = module.chunks(n, num_resamples)
    return np.concatenate([module.resample_counts(n, s, i, seed) for i, s in enumerate(spans)])


# The native kernel walks blocks of equal scores in tiles of 512.
@pytest.mark.parametrize("n, resamples", [(1, 3), (2, 9), (40, 60), (513, 5), (1500, 5)])
@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_like_resampling_row_by_row(n: int, resamples: int, decimals: int) -> None:
    score, correct = sample(n)
    score = score.round(decimals)
    values = fp.bootstrap({"s": score}, correct, METRICS, resamples, seed=3)["s"]
    for row, counts in zip(values, drawn(n, resamples, 3), strict=True):
        rows = np.repeat(np.arange(n), counts)
        assert len(rows) == n
        s, c = score[rows], correct[rows]
        if 0 < c.sum() < n:
            assert row[0] == pytest.approx(roc_auc_score(c, s))
            assert row[1] == pytest.approx(average_precision_score(c, s))
            assert row[2] == pytest.approx(average_precision_score(~c, -s))
        for value, metric in zip(row, METRICS, strict=True):
            try:
                expected = metric(s, c)
            except fp.UndefinedMetricError:
                assert np.isnan(value), metric.name
            else:
                assert value == pytest.approx(expected, abs=1e-12), metric.name


@pytest.mark.parametrize("target", cpu.targets())
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_native_is_numpy(target: str, data: st.DataObject) -> None:
    """Any scores, ties and outcomes, in every instruction set: what NumPy makes of the same resamples."""
    n = data.draw(st.integers(1, 1200), "n")
    generator = np.random.default_rng(data.draw(st.integers(0, 1000), "seed"))
    scores = {
        "s": generator.integers(0, data.draw(st.sampled_from([1, 3, 30, 10**9]), "values"), n)
    }
    correct = generator.random(n) < data.draw(st.sampled_from([0.0, 0.01, 0.7, 1.0]), "accuracy")
    thresholds = st.sampled_from([0.001, 0.07, 1 / 3, 0.5, 0.95, 1.0])
    metrics = (
        *fp.default_metrics(data.draw(thresholds, "coverage"), data.draw(thresholds, "risk") * 0.9),
        fp.fpr_at_tpr(data.draw(thresholds, "tpr")),
    )  # fmt: skip
    in_use = cpu.current_target()
    try:
        cpu.use_target(target)
        native = fp.bootstrap(scores, correct, metrics, 7)["s"]
    finally:
        cpu.use_target(in_use)
    with qf.use_backend("reference"):
        expected = fp.bootstrap(scores, correct, metrics, 7)["s"]
    np.testing.assert_allclose(native, expected, rtol=1e-11, atol=1e-13)


def test_draws_are_uniform_with_replacement() -> None:
    counts = drawn(50, 4000, 0)
    assert (counts.sum(1) == 50).all()
    # Each entry is binomial(50, 1/50): mean 1, variance 0.98, correlation -1/49 between samples.
    assert counts.mean(0) == pytest.approx(np.ones(50), abs=6 * np.sqrt(0.98 / 4000))
    assert counts.var(0).mean() == pytest.approx(0.98, rel=0.03)
    assert len(np.unique(counts, axis=0)) == 4000


def test_seed_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    score, correct = sample(3000)
    run = [
        fp.bootstrap({"a": score, "b": -score}, correct, METRICS[:3], 200, seed) for seed in (1, 2)
    ]
    monkeypatch.setattr(module, "default_workers", lambda: 1)
    again = fp.bootstrap({"b": -score, "a": score}, correct, METRICS[:3], 200, 1)
    for name in ("a", "b"):
        np.testing.assert_array_equal(again[name], run[0][name])
        assert not np.array_equal(run[0][name], run[1][name])
    # The same resamples for both scores: AUROC of the negated one is the complement, in every resample.
    np.testing.assert_allclose(run[0]["a"][:, 0], 1 - run[0]["b"][:, 0])


def test_interval_covers_the_known_auroc() -> None:
    """Correct ~ N(1, 1), wrong ~ N(0, 1): AUROC is Phi(1 / sqrt 2)."""
    known = 0.7602499389065233
    held = []
    for seed in range(300):
        score, correct = sample(300, seed)
        values = fp.bootstrap({"s": score}, correct, [fp.auroc()], 500, seed)["s"][:, 0]
        interval = fp.percentile_interval(values, 0.9)
        assert interval is not None
        held.append(interval.low <= known <= interval.high)
    # 0.9 of 300 +- 4 standard errors of the count.
    assert 0.83 <= np.mean(held) <= 0.97


def test_paired_difference_is_narrower_than_unpaired() -> None:
    score, correct = sample(800)
    other = score + np.random.default_rng(9).normal(size=800) * 0.1
    values = fp.bootstrap({"a": score, "b": other}, correct, [fp.auroc()], 1000)
    paired = np.std(values["a"] - values["b"])
    assert paired < 0.3 * np.hypot(np.std(values["a"]), np.std(values["b"]))


def test_resamples_without_a_value_are_counted() -> None:
    correct = np.array([1, 1, 1, 1, 0])
    values = fp.bootstrap({"s": np.arange(5)}, correct, [fp.auroc()], 4000)["s"][:, 0]
    interval = fp.percentile_interval(values)
    assert interval is not None
    # All correct with probability (4/5)^5, all wrong with (1/5)^5.
    assert interval.num_undefined / 4000 == pytest.approx(0.8**5 + 0.2**5, abs=0.03)
    assert interval.num_undefined == np.isnan(values).sum()
    assert fp.percentile_interval(np.full(3, np.nan)) is None


def test_bad_settings() -> None:
    for arguments, message in (
        ({"num_resamples": 0}, "num_resamples = 0"),
        ({"seed": -1}, "seed = -1"),
    ):
        with pytest.raises(SettingsError, match=message):
            fp.bootstrap({"s": [1, 2]}, [0, 1], [fp.auroc()], **arguments)
    with pytest.raises(SettingsError, match="level = 95"):
        fp.percentile_interval(np.zeros(3), 95)
