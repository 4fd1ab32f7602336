"""The tables of a comparison: its arms, and the paper's Table 2 over several systems."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qscore_fast.finetuning.comparison.intervals import Interval
from qscore_fast.finetuning.comparison.result import BASE, CONTROL, Comparison

QSCORE = "qscore"
WORDS = {
    BASE: "base (not trained further)",
    CONTROL: "control (lambda = 0)",
    "lasso": "lasso",
    QSCORE: "Q-Score",
}


def arms_table(comparison: Comparison, markdown: bool = True) -> list[str]:
    """A row an arm: linear probe and kNN in per cent, each with its gain over the control, and mean Q."""
    seeds = ", ".join(map(str, comparison.seeds))
    head = [f"{comparison.system}: top-1 in %, mean over the seeds {seeds} ± 95 % interval"]
    rows = [["arm", "linear", "over control", "kNN", "over control", "mean Q"]]
    for arm in (BASE, *comparison.arms):
        if not comparison.values(arm, "linear"):
            continue
        row = [WORDS.get(arm, arm)]
        for measure in ("linear", "knn"):
            row.append(_per_cent(comparison.mean(arm, measure)))
            gain = None if arm == BASE else comparison.gain(arm, measure)
            row.append("" if gain is None else _gain(gain))
        mean_q = comparison.mean(arm, "mean_q")
        row.append("" if math.isnan(mean_q.mean) else _number(mean_q, 1, ".4f"))
        rows.append(row)
    legend = "* the interval of the differences, seed by seed, leaves 0 out"
    return [*head, "", *_lines(rows, markdown), "", legend]


def table_two(comparisons: Sequence[Comparison], markdown: bool = True) -> list[str]:
    """The layout of Table 2 of Kalibhat et al. 2024, a row a system: top-1 of the linear probe in per cent.

    The paper prints one base; here the encoder before further training and the control that was trained
    further without regularisation are columns of their own, and the gain is over the control.
    """
    arms = [a for a in (CONTROL, "lasso", QSCORE) if any(a in c.arms for c in comparisons)]
    rows = [["system", "base", *(WORDS[arm] for arm in arms), "gain", "seeds"]]
    for comparison in comparisons:
        row = [comparison.system]
        for arm in (BASE, *arms):
            known = comparison.values(arm, "linear")
            row.append(_per_cent(comparison.mean(arm, "linear")) if known else "")
        gain = comparison.gain(QSCORE, "linear") if QSCORE in comparison.arms else None
        rows.append([*row, "" if gain is None else _gain(gain), str(len(comparison.seeds))])
    return _lines(rows, markdown)


def _per_cent(interval: Interval) -> str:
    return _number(interval, 100, ".2f")


def _gain(interval: Interval) -> str:
    return _number(interval, 100, "+.2f") + ("*" if interval.excludes_zero else "")


def _number(interval: Interval, scale: float, form: str) -> str:
    text = format(scale * interval.mean, form)
    if interval.half_width is None:
        return text
    return f"{text} ± {scale * interval.half_width:{form.lstrip('+')}}"


def _lines(rows: Sequence[Sequence[str]], markdown: bool) -> list[str]:
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
