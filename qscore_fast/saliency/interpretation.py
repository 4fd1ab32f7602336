"""Interpretation: what ``interpret`` found, in words and as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qscore_fast.evaluation.failure.failure_table import aligned
from qscore_fast.saliency.bootstrap_means import MeanEstimate
from qscore_fast.saliency.interpretation_figure import save_interpretation
from qscore_fast.saliency.interpretation_rows import KINDS
from qscore_fast.saliency.interpretation_summary import InterpretationSummary
from qscore_fast.saliency.overlap import MEASURES, OverlapSettings
from qscore_fast.scoring.atomic import write_text

TITLES = {
    "heat_iou": "mIoU",
    "soft_iou": "soft IoU",
    "pointing": "pointing",
    "energy": "energy",
    "auroc": "AUROC",
}


@dataclass(frozen=True, eq=False)
class Interpretation:
    """Where the heat of each image's discriminative features lies.

    Attributes:
        path: the folder of its files.
        encoders: names of the one or two encoders; "base" first, where there are two.
        summary: the means.
        settings: of the measures.
        combine: how the features of an image became one map.
        compat: whether the masks were aligned as by the published loader.
        counts: images_listed (with a mask in the data set), images_measured, images_missing (not in the
            source), images_failed (in errors.parquet), others (samples of the source without a mask),
            repeated, unreadable.
        notes: what was passed over in the data set -> how many.
        num_resamples, level, seed: of the bootstrap.
    """

    path: Path
    encoders: tuple[str, ...]
    summary: InterpretationSummary
    settings: OverlapSettings
    combine: str
    compat: bool
    counts: dict[str, int]
    notes: dict[str, int]
    num_resamples: int
    level: float
    seed: int

    @property
    def files(self) -> list[Path]:
        """What is in the folder."""
        names = [
            *(f"interpretation.{kind}" for kind in ("parquet", "json", "md", "svg")),
            "errors.parquet",
            "examples.png",
        ]
        return [self.path / name for name in names if (self.path / name).exists()]

    def to_json(self) -> dict[str, Any]:
        """Every number, as plain JSON values."""
        return {
            "encoders": list(self.encoders),
            "counts": self.counts,
            "notes": self.notes,
            "combine": self.combine,
            "salient_compat": self.compat,
            "measures": self.settings.to_json(),
            "num_resamples": self.num_resamples,
            "level": self.level,
            "seed": self.seed,
            **self.summary.to_json(self.encoders),
        }

    def lines(self) -> Iterator[str]:
        """For a person: what was measured, the table, what is undefined."""
        c = self.counts
        images = (
            f"images      {c['images_measured']:,} of {c['images_listed']:,} with masks measured"
        )
        if c["images_missing"]:
            images += f"; {c['images_missing']:,} are not in the source"
        if c["images_failed"]:
            images += f"; {c['images_failed']:,} are bad, with the reasons in errors.parquet"
        yield images
        passed = [(c["repeated"], "repeated"), (c["unreadable"], "unreadable without a name")]
        yield f"            {c['others']:,} others in the source" + "".join(
            f", {count:,} {words}" for count, words in passed if count
        )
        for words, count in self.notes.items():
            if count:
                yield f"note        {count:,} {words}"
        if self.compat:
            yield "alignment   that of the published loader: masks 8/7 too large for their images"
        yield f"intervals   {100 * self.level:g} %, {self.num_resamples:,} resamples of the images"
        yield ""
        yield from aligned(self._table())
        differences = self._difference_table()
        if len(differences) > 1:
            yield ""
            yield from aligned(differences)
        yield ""
        yield from self._undefined_lines()

    def write(self) -> None:
        """Write interpretation.svg, .md and .json into the folder.

        Raises:
            StoreError: it cannot be written.
        """
        save_interpretation(
            self.summary, self.encoders, self.path / "interpretation.svg", self.level
        )
        text = "\n".join([*self.lines(), "", "By class, all images:", "", *self._class_lines()])
        write_text(self.path / "interpretation.md", text + "\n")
        # Last: where it is, everything is.
        write_text(
            self.path / "interpretation.json",
            json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n",
        )

    def _table(self) -> list[list[str]]:
        table = [["encoder", "images", "masks", "n", *(TITLES[m] for m in MEASURES)]]
        for e, name in enumerate(self.encoders):
            for group in self.summary.groups:
                for kind in KINDS:
                    if (e, group, kind, MEASURES[0]) not in self.summary.means:
                        continue
                    row = [self.summary.means[e, group, kind, m] for m in MEASURES]
                    table.append([name, group, kind, f"{row[0].n:,}", *map(_cell, row)])
        return table

    def _difference_table(self) -> list[list[str]]:
        table = [["difference", "encoder", "masks", *(TITLES[m] for m in MEASURES)]]
        for words, found in self.summary.differences.items():
            for e, group, kind in dict.fromkeys(key[:3] for key in found):
                cells = [_cell(found[e, group, kind, m], "+") for m in MEASURES]
                table.append([words, self.encoders[e], kind or "both", *cells])
        return table

    def _class_lines(self) -> Iterator[str]:
        table = [["class", "encoder", "masks", "n", *(TITLES[m] for m in MEASURES)]]
        for wnid, found in self.summary.classes.items():
            for e, name in enumerate(self.encoders):
                for kind in KINDS:
                    row = [found[e, "all", kind, m] for m in MEASURES]
                    table.append([wnid, name, kind, f"{row[0].n:,}", *map(_cell, row)])
        yield from aligned(table)

    def _undefined_lines(self) -> Iterator[str]:
        for (e, kind), reasons in self.summary.undefined.items():
            if reasons:
                counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
                yield f"left out    {self.encoders[e]}, {kind}: {counts}"
        for name, unknown in zip(self.encoders, self.summary.unknown_outcomes, strict=True):
            if unknown:
                yield f"left out    {name}: {unknown:,} images whose outcome is not known, among correct and "
                yield "            misclassified"


def _cell(estimate: MeanEstimate, sign: str = "") -> str:
    if estimate.mean is None:
        return "undefined"
    text = f"{estimate.mean:{sign}.4f}"
    if estimate.interval is not None:
        text += f" [{estimate.interval.low:{sign}.4f}, {estimate.interval.high:{sign}.4f}]"
    return text
