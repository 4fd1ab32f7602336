"""FailureTable: every metric of every score, with intervals, in plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from qscore_fast.evaluation.failure.resampling import Interval
from qscore_fast.evaluation.failure.rivals import Rival

# By whether a score uses labels; None: it is not known.
MARKS = {True: " (uses labels)", False: "", None: " (given)"}


@dataclass(frozen=True)
class Estimate:
    """One metric of one score.

    Attributes:
        value: None where it is undefined.
        undefined: why, or None.
        interval: None without resamples, or where no resample has a value.
        difference: the main score's value less this one's; None where one of them is undefined.
        difference_interval: of that, paired: both values come from the same resamples.
    """

    value: float | None
    undefined: str | None = None
    interval: Interval | None = None
    difference: float | None = None
    difference_interval: Interval | None = None


@dataclass(frozen=True)
class ScoreRow:
    """One score: what it is, and an estimate for each metric by name."""

    rival: Rival
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class MetricColumn:
    """One metric: its name, heading, direction and convention."""

    name: str
    title: str
    higher_is_better: bool
    convention: str


@dataclass(frozen=True)
class FailureTable:
    """How well scores predict which samples are correct.

    Attributes:
        num_samples, num_wrong: how many samples there are, and how many are wrong.
        main: the score that the others are compared with: the first.
        columns, rows: metrics and scores.
        num_resamples, level, seed: of the bootstrap; no intervals at 0 resamples.
        notes: what a reader has to know.
    """

    num_samples: int
    num_wrong: int
    main: str
    columns: tuple[MetricColumn, ...]
    rows: tuple[ScoreRow, ...]
    num_resamples: int
    level: float
    seed: int
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def accuracy(self) -> float:
        """The share of correct samples: prevalence, and the AUPRC-success of a constant score."""
        return 1 - self.num_wrong / self.num_samples

    def value(self, score: str, metric: str) -> Estimate:
        """One estimate; KeyError for a score or metric that is not in the table."""
        return {row.rival.name: row for row in self.rows}[score].estimates[metric]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; infinite ones do not occur, undefined ones are null with a reason."""
        return {
            "num_samples": self.num_samples,
            "num_wrong": self.num_wrong,
            "accuracy": self.accuracy,
            "main": self.main,
            "num_resamples": self.num_resamples,
            "level": self.level,
            "seed": self.seed,
            "metrics": [asdict(column) for column in self.columns],
            "scores": [
                {
                    **asdict(row.rival),
                    "uses_labels": row.rival.uses_labels,
                    "estimates": {name: asdict(e) for name, e in row.estimates.items()},
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def to_markdown(self, differences: bool = True) -> str:
        """The table in Markdown, its conventions under it.

        Args:
            differences: whether to add the table of the main score less each other one.
        """
        return "\n".join(self.lines(differences)) + "\n"

    def lines(self, differences: bool = True) -> Iterator[str]:
        """:meth:`to_markdown`, line by line."""
        yield (
            f"{self.num_samples:,} samples, {self.num_wrong:,} wrong: accuracy {self.accuracy:.4f}"
            + (
                f"; {100 * self.level:g} % intervals of {self.num_resamples:,} resamples, seed {self.seed}"
                if self.num_resamples
                else ""
            )
        )
        yield ""
        reasons: list[str] = []
        left_out = self._left_out()
        headings = [f"{c.title} {'↑' if c.higher_is_better else '↓'}" for c in self.columns]
        body = [
            [
                row.rival.title + MARKS[row.rival.uses_labels],
                *(self._cell(row, column.name, left_out, reasons) for column in self.columns),
            ]
            for row in self.rows
        ]
        yield from aligned([["score", *headings], *body])
        yield ""
        for number, reason in enumerate(reasons, 1):
            yield f"({number}) {reason}"
        if reasons:
            yield ""
        if differences and len(self.rows) > 1:
            yield f"{self.rows[0].rival.title} less the other, on the same resamples:"
            yield ""
            others = [
                [row.rival.title, *(_difference(row.estimates[c.name]) for c in self.columns)]
                for row in self.rows
                if row.rival.name != self.main
            ]
            yield from aligned([["score", *headings], *others])
            yield ""
        for column in self.columns:
            yield f"* {column.title}: {column.convention}"
        for note in self.notes:
            yield f"* Note: {note}"

    def _left_out(self) -> dict[str, str]:
        """By metric a sentence on the resamples in which it is undefined, one for all scores."""
        found = {}
        for column in self.columns:
            intervals = (row.estimates[column.name].interval for row in self.rows)
            counts = [i.num_undefined for i in intervals if i is not None and i.num_undefined]
            if counts:
                low, high = min(counts), max(counts)
                number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
                found[column.name] = (
                    f"undefined in {number} of {self.num_resamples:,} resamples, which the interval leaves "
                    "out"
                )
        return found

    def _cell(
        self, row: ScoreRow, metric: str, left_out: dict[str, str], reasons: list[str]
    ) -> str:
        estimate = row.estimates[metric]
        reason = estimate.undefined
        interval = estimate.interval
        if estimate.value is not None and interval is not None and interval.num_undefined:
            reason = left_out[metric]
        mark = ""
        if reason is not None:
            if reason not in reasons:
                reasons.append(reason)
            mark = f" ({reasons.index(reason) + 1})"
        if estimate.value is None:
            return f"undefined{mark}"
        return f"{estimate.value:.4f}{_range(interval)}{mark}"


def aligned(table: list[list[str]]) -> Iterator[str]:
    """A Markdown table with columns of even width; the first row is the heading, cells hold text."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in table]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for number, row in enumerate(table):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            yield f"| {' | '.join(rules)} |"


def _difference(estimate: Estimate) -> str:
    if estimate.difference is None:
        return "undefined"
    return f"{estimate.difference:+.4f}{_range(estimate.difference_interval, '+')}"


def _range(interval: Interval | None, sign: str = "") -> str:
    if interval is None:
        return ""
    return f" [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"
