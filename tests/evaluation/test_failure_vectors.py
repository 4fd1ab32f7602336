"""Published and hand-computed vectors of the failure metrics."""

from __future__ import annotations

import numpy as np
import pytest

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation import failure as fp
from qscore_fast.evaluation.failure import Metric, UndefinedMetricError

FIVE = ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0])
TIED = ([0.95, 0.9, 0.9, 0.8, 0.7, 0.7, 0.6, 0.5, 0.4, 0.3], [1, 1, 0, 1, 1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (fp.auroc(), 5 / 6),
        (fp.auprc_success(), 11 / 12),
        (fp.auprc_error(), 5 / 6),
        (fp.auprc_success("trapezoid"), 0.9027778),
        (fp.auprc_error("trapezoid"), 0.7916667),
        (fp.fpr_at_tpr(), 0.5),
        (fp.fpr_at_tpr(convention="fd_shifts"), 0.5),
        (fp.fpr_at_tpr(convention="nearest"), 0.5),
        (fp.aurc(), 0.1966667),
        (fp.aurc("trapezoid"), 0.1566667),
        (fp.aurc("torch_uncertainty"), 0.1958333),
        (fp.aurc("fd_shifts"), 0.1566667),
        # Risks 0, 0, 1/3, 1/4 at coverages 0.2 .. 0.8.
        (fp.aurc("confidnet"), 0.2 * (0 + 1 / 6 + (1 / 3 + 1 / 4) / 2)),
        (fp.e_aurc(), 0.1966667 - 0.0935046),
        (fp.e_aurc(optimum="empirical"), 0.1966667 - 0.13),
        (fp.augrc(), 0.12),
        (fp.selective_accuracy(0.6), 2 / 3),
        (fp.selective_accuracy(0.8), 0.75),
        (fp.coverage_at_risk(0.25), 0.8),
    ],
    ids=lambda value: value.name if isinstance(value, Metric) else "",
)
def test_five_samples(metric: Metric, expected: float) -> None:
    assert metric(*FIVE) == pytest.approx(expected, abs=1e-7)


def test_torch_uncertainty_vectors() -> None:
    confidence = np.maximum([0.1, 0.2, 0.3, 0.4, 0.2], 1 - np.array([0.1, 0.2, 0.3, 0.4, 0.2]))
    wrong = np.array([0, 0, 1, 1, 0])
    assert fp.aurc("torch_uncertainty")(confidence, 1 - wrong) == pytest.approx(0.1125)
    wrong = np.array([0, 0, 1, 1, 1])
    assert 1 - fp.selective_accuracy(0.5)(confidence, 1 - wrong) == pytest.approx(1 / 3)
    assert fp.coverage_at_risk(0.5)(confidence, 1 - wrong) == pytest.approx(4 / 5)
    score, positive = [0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1], [1, 0, 1, 0, 0, 1, 0]
    assert fp.fpr_at_tpr()(score, positive) == pytest.approx(0.75)


def test_ties_are_one_block() -> None:
    expected = {
        "auroc": 2 / 3, "auprc_success": 0.7440476, "auprc_error": 0.6527778, "fpr95": 0.75,
        "augrc": 0.16,
    }  # fmt: skip
    for metric in fp.default_metrics():
        if metric.name in expected:
            assert metric(*TIED) == pytest.approx(expected.pop(metric.name), abs=1e-7)
    assert expected == {}


@pytest.mark.parametrize("case", [FIVE, TIED])
def test_augrc_follows_from_auroc(case: tuple[list[float], list[int]]) -> None:
    e = 1 - np.mean(case[1])
    expected = (1 - fp.auroc()(*case)) * e * (1 - e) + e * e / 2
    assert fp.augrc()(*case) == pytest.approx(expected)


def test_fpr_conventions_differ_where_they_should() -> None:
    """2,000 correct samples: TPR 0.9495 at the 1,899th, 0.95 at the 1,900th; a wrong one after each."""
    correct = np.concatenate([np.ones(1898), [1, 0, 1, 0, 0], np.ones(100)])
    score = -np.arange(len(correct), dtype=float)
    value = {
        name: fp.fpr_at_tpr(convention=name)(score, correct)
        for name in ("at_least", "fd_shifts", "nearest")
    }
    # Four thresholds have TPR 0.95; the lowest of them lets all three wrong samples in.
    assert value == {
        "at_least": pytest.approx(1 / 3), "fd_shifts": 0, "nearest": pytest.approx(1)
    }  # fmt: skip


def test_constant_score() -> None:
    correct = [1, 1, 0, 1]
    constant = np.zeros(4)
    for metric, expected in (
        (fp.auroc(), 0.5), (fp.auprc_success(), 0.75), (fp.auprc_error(), 0.25),
        (fp.fpr_at_tpr(), 1.0), (fp.aurc(), 0.25), (fp.aurc("trapezoid"), 0.1875),
        (fp.aurc("fd_shifts"), 0.25), (fp.selective_accuracy(0.3), 0.75), (fp.augrc(), 0.125),
        (fp.coverage_at_risk(0.25), 1.0),
    ):  # fmt: skip
        assert metric(constant, correct) == pytest.approx(expected), metric.name


@pytest.mark.parametrize(
    ("metric", "correct", "reason"),
    [
        (fp.auroc(), [1, 1], "correct and wrong samples, and all 2 samples are correct"),
        (fp.auroc(), [0, 0], "all 2 samples are wrong"),
        (fp.auprc_success(), [0, 0], "a correct sample"),
        (fp.auprc_error(), [1, 1], "a wrong sample"),
        (fp.fpr_at_tpr(), [1, 1], "correct and wrong"),
        (fp.fpr_at_tpr(), [0, 0], "correct and wrong"),
        (fp.aurc("torch_uncertainty"), [1], "two samples"),
        (fp.aurc("confidnet"), [1, 0], "three different scores"),
        (fp.coverage_at_risk(0.1), [0, 1], "a threshold above which at most 10 %"),
    ],
)
def test_undefined(metric: Metric, correct: list[int], reason: str) -> None:
    score = np.arange(len(correct), 0, -1)
    with pytest.raises(UndefinedMetricError, match=f"{metric.name} is undefined: .*{reason}"):
        metric(score, correct)


def test_one_class_leaves_the_rest_defined() -> None:
    score = [3.0, 2.0, 1.0]
    assert fp.aurc()(score, [1, 1, 1]) == 0 == fp.e_aurc()(score, [1, 1, 1])
    assert fp.aurc()(score, [0, 0, 0]) == 1
    assert fp.e_aurc()(score, [0, 0, 0]) == 0
    assert fp.augrc()(score, [0, 0, 0]) == 0.5


def test_curve() -> None:
    curve = fp.risk_coverage_curve([1, np.inf, 1, -np.inf], [1, 1, 0, 0])
    assert curve.threshold.tolist() == [np.inf, 1, -np.inf]
    assert curve.coverage.tolist() == [0.25, 0.75, 1]
    assert curve.risk.tolist() == [0, 1 / 3, 0.5]
    assert curve.generalised_risk.tolist() == [0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("score", "correct", "message"),
    [
        ([1, np.nan, 3], [1, 0, 1], "NaN for 1 of 3 samples, the first at index 1"),
        ([1, 2], [1, 0, 1], r"shape \(2,\), correct has \(3,\)"),
        ([1, 2], [1, 2], r"correct\[1\] is 2"),
        ([1, 2], [1, np.nan], r"correct\[1\] is nan"),
        ([], [], "one sample at least"),
        (["a", "b"], [1, 0], "does not hold numbers"),
    ],
)
def test_bad_input(score: list[float], correct: list[float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fp.auroc()(score, correct)


def test_bad_settings() -> None:
    for call, message in (
        (lambda: fp.aurc("geifman"), "convention = 'geifman': give one of mean"),
        (lambda: fp.auprc_success("box"), "area = 'box'"),
        (lambda: fp.e_aurc("mean", "best"), "optimum = 'best'"),
        (lambda: fp.fpr_at_tpr(95), "tpr = 95"),
        (lambda: fp.selective_accuracy(0), "coverage = 0"),
        (lambda: fp.coverage_at_risk(1), "risk = 1"),
    ):
        with pytest.raises(SettingsError, match=message):
            call()
