"""evaluate: scores of samples against correctness, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.failure_table import (
    Estimate,
    FailureTable,
    MetricColumn,
    ScoreRow,
)
from qscore_fast.evaluation.failure.metrics import Metric, default_metrics
from qscore_fast.evaluation.failure.ranking import Ranking, as_correct, as_score
from qscore_fast.evaluation.failure.resampling import (
    bootstrap_rankings,
    check_resampling,
    percentile_interval,
)
from qscore_fast.evaluation.failure.rivals import RIVAL_OF, Rival
from qscore_fast.evaluation.failure.undefined import UndefinedMetricError

CONTROLS = ("constant", "shuffled")
FEW = 20


def evaluate(
    scores: Mapping[str, npt.ArrayLike],
    correct: npt.ArrayLike,
    *,
    metrics: Sequence[Metric] | None = None,
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    notes: Sequence[str] = (),
    described: Mapping[str, Rival] | None = None,
) -> FailureTable:
    """How well each score predicts which samples are correct.

    A constant score and the first score, shuffled, are always among the rows: what no information and what
    chance give. All intervals come from the same resamples, so differences are paired.

    Args:
        scores: (n,) by name, higher means more trusted; the first is the one that the others are compared
            with. Names of :data:`RIVALS` get its titles and sources.
        correct: (n,) bool, or 0 and 1: whether the probe, or whatever is judged, was right.
        metrics: of :mod:`metrics`; by default ``default_metrics()``.
        num_resamples: of the bootstrap; 0 for no intervals.
        level: the share that an interval holds.
        seed: of the resamples and the shuffled score.
        notes: to print under the table.
        described: what scores of other names are; by default given by the caller, which says nothing about
            whether labels were used.

    Raises:
        SettingsError: no score, a name that is reserved, shapes that differ, a NaN score, correct that is
            neither 0 nor 1, or a setting out of range. One class only is no error: the metrics that
            need both are undefined in the table, with the reason.
    """
    outcome = as_correct(correct)
    if num_resamples:
        check_resampling(num_resamples, seed)
    percentile_interval(np.zeros(1), level)  # a wrong level should show before the work
    metrics = default_metrics() if metrics is None else tuple(metrics)
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise SettingsError(f"metrics = {', '.join(names)}: give each once")
    rankings = {
        name: Ranking.of(score, outcome, name)
        for name, score in _with_controls(scores, len(outcome), seed).items()
    }
    resampled = (
        bootstrap_rankings(rankings, metrics, num_resamples, seed) if num_resamples else None
    )
    main = next(iter(rankings))
    values = {name: [_value(metric, r) for metric in metrics] for name, r in rankings.items()}
    rows = []
    for name in rankings:
        estimates = {}
        for column, metric in enumerate(metrics):
            value, why = values[name][column]
            base = values[main][column][0]
            interval = difference_interval = None
            if resampled is not None and value is not None:
                own = resampled[name][:, column]
                interval = percentile_interval(own, level)
                if base is not None and name != main:
                    difference_interval = percentile_interval(
                        resampled[main][:, column] - own, level
                    )
            difference = None if value is None or base is None else base - value
            estimates[metric.name] = Estimate(value, why, interval, difference, difference_interval)
        rows.append(ScoreRow(_described(name, described or {}), estimates))
    num_wrong = int((~outcome).sum())
    return FailureTable(
        num_samples=len(outcome),
        num_wrong=num_wrong,
        main=main,
        columns=tuple(
            MetricColumn(m.name, m.title, m.higher_is_better, m.convention) for m in metrics
        ),
        rows=tuple(rows),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
        notes=(*_class_notes(len(outcome), num_wrong), *notes),
    )


def _with_controls(
    scores: Mapping[str, npt.ArrayLike], num_samples: int, seed: int
) -> dict[str, npt.ArrayLike]:
    if not scores:
        raise SettingsError("scores is empty: give one score at least, by name")
    for name in CONTROLS:
        if name in scores:
            raise SettingsError(f"the score name {name!r} is taken: the table always has its own")
    name, first = next(iter(scores.items()))
    shuffled = np.random.default_rng(seed).permutation(as_score(first, num_samples, name))
    return {**scores, "constant": np.zeros(num_samples), "shuffled": shuffled}


def _value(metric: Metric, ranking: Ranking) -> tuple[float | None, str | None]:
    try:
        return metric.of(ranking), None
    except UndefinedMetricError as error:
        return None, str(error)


def _described(name: str, described: Mapping[str, Rival]) -> Rival:
    given = Rival(name, name, "+", "given", "as given", "given")
    return RIVAL_OF.get(name) or described.get(name) or given


def _class_notes(num_samples: int, num_wrong: int) -> list[str]:
    fewer, what = min((num_wrong, "wrong"), (num_samples - num_wrong, "correct"))
    if fewer == 0:
        return [f"no sample is {what}: nothing can be said of telling the two kinds apart"]
    if fewer < FEW:
        return [
            f"only {fewer} of {num_samples:,} samples are {what}: values and intervals that rest on so few "
            "are rough"
        ]
    return []
