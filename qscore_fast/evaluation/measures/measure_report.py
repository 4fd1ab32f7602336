"""MeasureReport: all dataset-level measures of one population."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qscore_fast.evaluation.measures.measured import Measured


@dataclass(frozen=True)
class MeasureReport:
    """What :func:`measure_run` found.

    Attributes:
        num_samples: finite representations, zero rows among them.
        num_features: r.
        num_zero: rows of zeros.
        num_invalid: rows with NaN, Inf or huge entries; left out.
        measures: by name, in the order of docs/measures.md.
        passes: how often the embeddings were read.
        notes: what a reader of the numbers should know, one sentence each.
    """

    num_samples: int
    num_features: int
    num_zero: int
    num_invalid: int
    measures: dict[str, Measured]
    passes: int
    notes: list[str]

    def __getitem__(self, name: str) -> Measured:
        return self.measures[name]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the counts, ``measures`` by name (value, undefined, details), ``notes``."""
        return {
            "num_samples": self.num_samples,
            "num_features": self.num_features,
            "num_zero": self.num_zero,
            "num_invalid": self.num_invalid,
            "passes": self.passes,
            "measures": {name: found.to_json() for name, found in self.measures.items()},
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """For a person: a table with what matters of the details."""
        width = max(map(len, self.measures))
        table = [
            f"{name:<{width}}  {found!s:>12}  {_shown(found)}".rstrip()
            for name, found in self.measures.items()
        ]
        heading = f"{self.num_samples:,} representations of {self.num_features:,} features"
        return [heading, "", *table, *(f"note  {note}" for note in self.notes)]


def _shown(found: Measured) -> str:
    if found.value is None:
        return ""
    details = found.details
    shown: list[str] = []
    if "centred" in details:
        shown.append("centred" if details["centred"] else "not centred")
    if "fit" in details:
        shown.append("eigenvalues {} to {}, from 0".format(*details["fit"]))
    if details.get("exact") is False:
        shown.append(f"a sample of {details['rows']:,} of {details['of_rows']:,} rows")
    if "direction" in details:
        shown.append(details["direction"])
    for name, text in (
        ("isotropic", "isotropic: {:.6g}"),
        ("uniform", "uniform: {:.6g}"),
        ("rank", "rank {}"),
        ("views", "{} views"),
        ("delta", "delta {:g}"),
    ):
        if details.get(name) is not None:
            shown.append(text.format(details[name]))
    return ", ".join(shown)
