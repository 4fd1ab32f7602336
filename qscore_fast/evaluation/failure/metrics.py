"""The metrics of failure prediction, each with its conventions by name.

    auroc()(score, correct)
    aurc("fd_shifts")(score, correct)

``score`` is (n,), higher means more trusted; ``correct`` is (n,) bool, or 0 and 1. Equal scores count as one
block. A metric without a value raises UndefinedMetricError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure import discrimination, risk_coverage
from qscore_fast.evaluation.failure.block_counts import BlockCounts
from qscore_fast.evaluation.failure.discrimination import Area, FprConvention
from qscore_fast.evaluation.failure.ranking import Ranking
from qscore_fast.evaluation.failure.risk_coverage import AurcConvention, Optimum
from qscore_fast.evaluation.failure.undefined import UndefinedMetricError


@dataclass(frozen=True)
class Metric:
    """A metric with its conventions.

    Attributes:
        name: the key in tables and JSON.
        title: the heading of its column.
        higher_is_better: which way it improves.
        convention: how it is computed, in words.
        needs: what the samples must hold for it to be defined.
        compute: (...,) of :class:`BlockCounts` with any leading dimensions, NaN where undefined.
        native: what the native kernels know it as, and its parameter; None where they do not.
    """

    name: str
    title: str
    higher_is_better: bool
    convention: str
    needs: str
    compute: Callable[[BlockCounts], np.ndarray] = field(repr=False)
    native: tuple[str, float] | None = None

    def __call__(self, score: npt.ArrayLike, correct: npt.ArrayLike) -> float:
        """The value.

        Raises:
            SettingsError: as for :meth:`Ranking.of`.
            UndefinedMetricError: it has none on these samples.
        """
        return self.of(Ranking.of(score, correct))

    def of(self, ranking: Ranking) -> float:
        """The same of samples that are ranked already."""
        value = float(self.compute(ranking.counts))
        if np.isnan(value):
            raise UndefinedMetricError(self.name, self._reason(ranking.counts))
        return value

    def _reason(self, counts: BlockCounts) -> str:
        n, num_wrong = int(counts.num_samples), int(counts.num_wrong)
        held = {0: f"all {n:,} samples are correct", n: f"all {n:,} samples are wrong"}.get(
            num_wrong, f"{num_wrong:,} of {n:,} samples are wrong"
        )
        return f"it needs {self.needs}, and {held}"


def auroc() -> Metric:
    """P(score of a correct sample > score of a wrong one) + half of P(equal)."""
    return Metric(
        "auroc", "AUROC", True, "ties count half", "correct and wrong samples", discrimination.auroc,
        ("auroc", 0.0),
    )  # fmt: skip


def auprc_success(area: Area = "step") -> Metric:
    """Area under the precision-recall curve, positives = correct; a constant score has the accuracy.

    Args:
        area: "step", average precision as in scikit-learn; or "trapezoid", straight lines between the
            points, as in pytorch-ood.
    """
    one_of("area", area, Area)
    return Metric(
        "auprc_success" if area == "step" else "auprc_success_trapezoid", "AUPRC-success", True,
        f"positives = correct samples, {area} area", "a correct sample",
        lambda counts: discrimination.auprc_success(counts, area),
        ("auprc_success", 0.0) if area == "step" else None,
    )  # fmt: skip


def auprc_error(area: Area = "step") -> Metric:
    """The same with positives = wrong and the score negated; a constant score has the error rate."""
    one_of("area", area, Area)
    return Metric(
        "auprc_error" if area == "step" else "auprc_error_trapezoid", "AUPRC-error", True,
        f"positives = wrong samples, {area} area", "a wrong sample",
        lambda counts: discrimination.auprc_error(counts, area),
        ("auprc_error", 0.0) if area == "step" else None,
    )  # fmt: skip


def fpr_at_tpr(tpr: float = 0.95, convention: FprConvention = "at_least") -> Metric:
    """The false positive rate at a true positive rate, positives = correct.

    Args:
        tpr: in (0, 1].
        convention: the threshold is the highest one with TPR >= tpr ("at_least", as in pytorch-ood), with
            TPR >= tpr - 0.0005 ("fd_shifts"), or the one whose TPR is nearest to tpr, the higher recall of
            two that are as near ("nearest", as in earlier torch-uncertainty).
    """
    in_unit_interval("tpr", tpr)
    one_of("convention", convention, FprConvention)
    name = f"fpr{100 * tpr:g}"
    rule = {
        "at_least": f"highest threshold with TPR >= {tpr:g}",
        "fd_shifts": f"highest threshold with TPR >= {tpr - 0.0005:g}",
        "nearest": f"threshold with the TPR nearest to {tpr:g}",
    }[convention]
    return Metric(
        name if convention == "at_least" else f"{name}_{convention}", name.upper(), False,
        f"positives = correct samples, {rule}", "correct and wrong samples",
        lambda counts: discrimination.fpr_at_tpr(counts, tpr, convention),
        ("fpr_at_tpr", tpr) if convention == "at_least" else None,
    )  # fmt: skip


_AURC = {
    "mean": "mean over k of the risk among the k most trusted",
    "trapezoid": "trapezoid over coverage 1/n to 1",
    "torch_uncertainty": "trapezoid over coverage 1/n to 1, divided by 1 - 1/n",
    "fd_shifts": "trapezoid between different scores over coverage 0 to 1, not times 1000",
    "confidnet": "trapezoid between different scores, without the lowest",
}


def aurc(convention: AurcConvention = "mean") -> Metric:
    """Area under the risk-coverage curve; r_k is the risk among the k most trusted of n samples.

    Args:
        convention: "mean", the mean of all r_k (Geifman 2018); "trapezoid", over coverage 1/n to 1;
            "torch_uncertainty", that divided by 1 - 1/n; "fd_shifts", over [0, 1] with points where the score
            changes and the first of them repeated at coverage 0, without its factor 1000; "confidnet", points
            where the score changes, without that of full coverage: it needs three different scores.
    """
    one_of("convention", convention, AurcConvention)
    return Metric(
        "aurc" if convention == "mean" else f"aurc_{convention}", "AURC", False, _AURC[convention],
        {"torch_uncertainty": "two samples", "confidnet": "three different scores"}.get(
            convention, "a sample"
        ),
        lambda counts: risk_coverage.aurc(counts, convention),
        ("aurc", 0.0) if convention == "mean" else None,
    )  # fmt: skip


def e_aurc(convention: AurcConvention = "mean", optimum: Optimum = "closed_form") -> Metric:
    """AURC less that of the best score there can be.

    Args:
        convention: of AURC.
        optimum: "closed_form", e + (1 - e) ln(1 - e) for the error rate e (Geifman 2019), which is right
            for many samples and the mean convention; or "empirical", the AURC of the same outcomes with all
            correct samples first.
    """
    one_of("optimum", optimum, Optimum)
    plain = aurc(convention)
    best = {"closed_form": "e + (1 - e) ln(1 - e)", "empirical": "the best order of these samples"}
    names = [plain.name, *(["empirical"] if optimum == "empirical" else [])]
    return Metric(
        f"e_{'_'.join(names)}", "E-AURC", False, f"AURC ({plain.convention}) less {best[optimum]}",
        plain.needs, lambda counts: risk_coverage.e_aurc(counts, convention, optimum),
        ("e_aurc", 0.0) if convention == "mean" and optimum == "closed_form" else None,
    )  # fmt: skip


def augrc() -> Metric:
    """Area under the generalised risk, (wrong among the k most trusted) / n, over coverage 0 to 1.

    Traub 2024; equal to (1 - AUROC) e (1 - e) + e^2 / 2 for the error rate e.
    """
    return Metric(
        "augrc", "AUGRC", False, "trapezoid over coverage 0 to 1", "a sample", risk_coverage.augrc,
        ("augrc", 0.0),
    )  # fmt: skip


def selective_accuracy(coverage: float = 0.8) -> Metric:
    """Accuracy among the ``ceil(coverage n)`` most trusted samples; expected, where ties are cut.

    Args:
        coverage: in (0, 1].
    """
    in_unit_interval("coverage", coverage)
    return Metric(
        f"accuracy_at_coverage_{coverage:g}", f"accuracy at {100 * coverage:g} %", True,
        f"ceil({coverage:g} n) most trusted samples, expected over the order of ties", "a sample",
        lambda counts: risk_coverage.selective_accuracy(counts, coverage),
        ("selective_accuracy", coverage),
    )  # fmt: skip


def coverage_at_risk(risk: float = 0.05) -> Metric:
    """The largest share of the samples that a threshold accepts with at most this share of wrong ones.

    Args:
        risk: in [0, 1).
    """
    if not 0 <= risk < 1:
        raise SettingsError(f"risk = {risk:g}: give a share of wrong samples, from 0 to below 1")
    return Metric(
        f"coverage_at_risk_{risk:g}", f"coverage at risk {100 * risk:g} %", True,
        "largest coverage of a threshold; equal scores are accepted together",
        f"a threshold above which at most {100 * risk:g} % of the samples are wrong",
        lambda counts: risk_coverage.coverage_at_risk(counts, risk),
        ("coverage_at_risk", risk),
    )  # fmt: skip


def default_metrics(coverage: float = 0.8, risk: float = 0.05) -> tuple[Metric, ...]:
    """The columns of a table, every convention at its default."""
    return (
        auroc(), auprc_success(), auprc_error(), fpr_at_tpr(), aurc(), e_aurc(), augrc(),
        selective_accuracy(coverage), coverage_at_risk(risk),
    )  # fmt: skip


def in_unit_interval(name: str, value: float) -> None:
    """SettingsError if the value is not in (0, 1]."""
    if not 0 < value <= 1:
        raise SettingsError(f"{name} = {value:g}: give a share, above 0 and up to 1")


def one_of(name: str, value: str, names: Any) -> None:
    """SettingsError if the value is not among the names of a Literal."""
    if value not in get_args(names):
        raise SettingsError(f"{name} = {value!r}: give one of {', '.join(get_args(names))}")
