"""The failure metrics against scikit-learn, pytorch-ood, and sums over all orders of ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pytorch_ood.metrics import functional as ood
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from qscore_fast.evaluation import failure as fp

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn, largest: int = 60, both: bool = True) -> Case:
    """Scores with many ties or few, of both classes or any."""
    n = draw(st.integers(2, largest))
    levels = draw(st.sampled_from([2, 5, 1000]))
    scores = st.lists(st.integers(-levels, levels), min_size=n, max_size=n)
    score = np.array(draw(scores)) / 7
    correct = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    assume(not both or 0 < correct.sum() < n)
    return score, correct


@given(cases())
def test_scikit_learn(case: Case) -> None:
    score, correct = case
    wrong = ~correct
    assert fp.auroc()(score, correct) == pytest.approx(roc_auc_score(correct, score))
    assert fp.auprc_success()(score, correct) == pytest.approx(
        average_precision_score(correct, score)
    )
    assert fp.auprc_error()(score, correct) == pytest.approx(average_precision_score(wrong, -score))
    for metric, positive, s in (
        (fp.auprc_success("trapezoid"), correct, score),
        (fp.auprc_error("trapezoid"), wrong, -score),
    ):
        precision, recall, _ = precision_recall_curve(positive, s)
        assert metric(score, correct) == pytest.approx(auc(recall, precision))
    fpr, tpr, _ = roc_curve(correct, score, drop_intermediate=False)
    for level in (0.5, 0.8, 0.95, 1.0):
        assert fp.fpr_at_tpr(level)(score, correct) == pytest.approx(fpr[np.argmax(tpr >= level)])
        whole = np.flatnonzero(tpr == 1)[0]
        near = np.abs(tpr[1 : whole + 1] - level)
        last = np.flatnonzero(np.isclose(near, near.min(), rtol=0, atol=1e-12))[-1]
        assert fp.fpr_at_tpr(level, "nearest")(score, correct) == pytest.approx(fpr[1:][last])


@given(cases())
def test_pytorch_ood(case: Case) -> None:
    """Its positives are outliers with a label below 0 and a high outlier score: take the correct ones."""
    score, correct = case
    scores, labels = torch.from_numpy(score), torch.where(torch.from_numpy(correct), -1, 1)
    assert fp.auroc()(score, correct) == pytest.approx(float(ood.auroc(scores, labels)))
    assert fp.fpr_at_tpr()(score, correct) == pytest.approx(
        float(ood.fpr_at_tpr(scores, labels, 0.95))
    )
    for metric, positive in (
        (fp.auprc_success("trapezoid"), "ood"),
        (fp.auprc_error("trapezoid"), "id"),
    ):
        expected = float(ood.aupr(scores, labels, positive=positive))
        assert metric(score, correct) == pytest.approx(expected)


def orders(score: np.ndarray) -> list[list[int]]:
    """Every order of the samples by descending score, all orders of ties among them."""
    blocks = [np.flatnonzero(score == s).tolist() for s in sorted(set(score), reverse=True)]
    mixed = itertools.product(*(itertools.permutations(block) for block in blocks))
    return [list(itertools.chain(*order)) for order in mixed]


@settings(max_examples=40, deadline=None)
@given(cases(largest=6, both=False))
def test_aurc_is_the_mean_over_orders_of_ties(case: Case) -> None:
    score, correct = case
    n = len(score)
    sums: dict[str, list[float]] = {"mean": [], "trapezoid": [], "accuracy": []}
    for order in orders(score):
        wrong = [not correct[i] for i in order]
        risk = [sum(wrong[:k]) / k for k in range(1, n + 1)]
        sums["mean"].append(sum(risk) / n)
        sums["trapezoid"].append(sum((a + b) / 2 for a, b in itertools.pairwise(risk)) / n)
        sums["accuracy"].append(1 - risk[math.ceil(n / 2) - 1])
    assert fp.aurc()(score, correct) == pytest.approx(np.mean(sums["mean"]))
    trapezoid = np.mean(sums["trapezoid"])
    assert fp.aurc("trapezoid")(score, correct) == pytest.approx(trapezoid)
    assert fp.aurc("torch_uncertainty")(score, correct) == pytest.approx(trapezoid * n / (n - 1))
    assert fp.selective_accuracy(0.5)(score, correct) == pytest.approx(np.mean(sums["accuracy"]))


def thresholds(score: np.ndarray, correct: np.ndarray) -> tuple[list[float], list[float]]:
    """Coverage and risk of every different score, descending, by comparing."""
    chosen = [score >= s for s in sorted(set(score), reverse=True)]
    return [float(c.mean()) for c in chosen], [float((~correct[c]).mean()) for c in chosen]


@given(cases(both=False))
def test_areas_between_thresholds(case: Case) -> None:
    score, correct = case
    coverage, risk = thresholds(score, correct)
    expected = auc([0, *coverage], [risk[0], *risk])
    assert fp.aurc("fd_shifts")(score, correct) == pytest.approx(expected)
    wrong_of_all = [r * c for r, c in zip(risk, coverage, strict=True)]
    assert fp.augrc()(score, correct) == pytest.approx(auc([0, *coverage], [0, *wrong_of_all]))
    held = [c for c, r in zip(coverage, risk, strict=True) if r <= 0.25]
    if held:
        assert fp.coverage_at_risk(0.25)(score, correct) == pytest.approx(max(held))
    # ConfidNet's loop: s > delta for every different score but the last of the ascending ones.
    deltas = sorted(set(score))[:-1]
    if len(deltas) > 1:
        coverage = [(score > d).mean() for d in deltas]
        risk = [1 - correct[score > d].mean() for d in deltas]
        assert fp.aurc("confidnet")(score, correct) == pytest.approx(auc(coverage, risk))


@given(cases())
def test_augrc_identity(case: Case) -> None:
    score, correct = case
    e = 1 - correct.mean()
    expected = (1 - fp.auroc()(score, correct)) * e * (1 - e) + e * e / 2
    assert fp.augrc()(score, correct) == pytest.approx(expected)


@pytest.mark.parametrize(
    "convention", ["mean", "trapezoid", "torch_uncertainty", "fd_shifts", "confidnet"]
)
@given(case=cases(largest=30, both=False))
def test_empirical_optimum_is_attained(convention: str, case: Case) -> None:
    """The score that puts all correct samples first has no excess; any other of distinct values, some."""
    score, correct = case
    assume(len(score) > 2)
    excess = fp.e_aurc(convention, "empirical")
    best = 1000.0 * correct + np.arange(len(score))
    assert excess(best, correct) == pytest.approx(0, abs=1e-12)
    if convention != "confidnet":  # it does not look at the last sample
        assert excess(score + np.arange(len(score)) * 1e-6, correct) >= -1e-12


def test_closed_form_is_the_limit_of_the_optimum() -> None:
    correct = np.arange(100_000) >= 30_000
    score = correct.astype(float) + np.arange(100_000) * 1e-9
    assert fp.e_aurc()(score, correct) == pytest.approx(0, abs=1e-5)


@given(cases(), st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(case: Case, random: object) -> None:
    score, correct = case
    order = np.arange(len(score))
    random.shuffle(order)  # type: ignore[attr-defined]
    for metric in (*fp.default_metrics(), fp.aurc("fd_shifts")):
        try:
            expected = metric(score, correct)
        except fp.UndefinedMetricError:
            continue
        assert metric(score[order], correct[order]) == expected
