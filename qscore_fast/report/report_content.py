"""report_content: every number of a report, and which images it shows."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from qscore_fast.errors import SettingsError
from qscore_fast.report.about_run import about_run
from qscore_fast.report.active_features import PartRowsIndex
from qscore_fast.report.comparison import comparison
from qscore_fast.report.compression_section import read_compression
from qscore_fast.report.distribution import classes_of, distribution
from qscore_fast.report.failure_section import failure_section
from qscore_fast.report.feature_section import feature_section
from qscore_fast.report.score_rows import ScoreRows
from qscore_fast.report.shown_images import HeatMapDrawer, ShownImages
from qscore_fast.report.source_images import SourceImages
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.store import Store

FORMAT = "qscore-fast.report"
FORMAT_VERSION = 1
GALLERY = 24
TOP_FEATURES, FEATURE_IMAGES = 12, 8
CLASS_GALLERIES, CLASS_IMAGES = 40, 8
CHANGED = 8
SKIPPABLE = ("features", "measures")


@dataclass(frozen=True)
class ReportSettings:
    """What goes into a report.

    Attributes:
        labels: a file with sample_id and label, in place of the run's own.
        probe: for failure prediction; see :func:`failure_section`.
        compare: another run over the same images.
        compression: what ``qscore compress --test`` wrote.
        thumbnails: how many images to show, in all galleries together; 0 for numbers alone.
        images: where the images are now, where they have moved.
        source_options: see :func:`open_source`.
        skip: sections to leave out: "features" takes a pass over the parts, "measures" two over the
            embeddings.
        num_resamples: of the bootstrap of failure prediction.
    """

    labels: str | os.PathLike[str] | None = None
    probe: str | os.PathLike[str] | None = None
    compare: str | os.PathLike[str] | None = None
    compression: str | os.PathLike[str] | None = None
    thumbnails: int = 400
    images: str | None = None
    source_options: dict[str, Any] | None = None
    skip: Collection[str] = ()
    num_resamples: int = 1000

    def __post_init__(self) -> None:
        """SettingsError for a value out of range."""
        if isinstance(self.thumbnails, bool) or self.thumbnails < 0:
            raise SettingsError(f"thumbnails must be 0 or more, got {self.thumbnails!r}")
        if self.num_resamples < 0:
            raise SettingsError(f"num_resamples must be 0 or more, got {self.num_resamples}")
        unknown = sorted(set(self.skip) - set(SKIPPABLE))
        if unknown:
            raise SettingsError(
                f"skip holds {', '.join(unknown)}: give some of {', '.join(SKIPPABLE)}"
            )


def report_content(
    run: ScoreRun,
    settings: ReportSettings,
    heat_maps: HeatMapDrawer | None = None,
    *,
    pictures: bool = True,
) -> tuple[dict[str, Any], ShownImages]:
    """All numbers as plain values, and the images with their pictures.

    Args:
        heat_maps: what draws heat maps.
        pictures: whether to read the images.

    Raises:
        StoreError: the run is damaged, or another run that was named is not there.
        SettingsError: a file does not fit the run.
    """
    store = Store(run.path)
    rows = ScoreRows.of(run, settings.labels)
    budget = settings.thumbnails
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "run": about_run(run, store),
        "distribution": distribution(rows),
        "classes": classes_of(rows) if rows.classes else [],
        "features": None,
        "failure": None,
        "compression": None,
        "measures": None,
        "comparison": None,
    }
    shown = ShownImages(rows)
    per_gallery = min(GALLERY, max(1, budget // 8)) if budget else 0
    galleries: dict[str, Any] = {
        name: shown.add(choose(per_gallery))
        for name, choose in (
            ("lowest", rows.lowest),
            ("highest", rows.highest),
            ("typical", rows.typical),
        )
    }
    correct = None
    if settings.probe is not None and len(rows):
        failure = failure_section(run, settings.probe, settings.num_resamples)
        content["failure"] = failure.content
        correct = dict(zip(failure.sample_ids.to_pylist(), failure.correct.tolist(), strict=True))
    if settings.compression is not None:
        content["compression"] = read_compression(settings.compression)
    if settings.compare is not None and len(rows):
        found = comparison(run, rows, settings.compare, min(CHANGED, per_gallery))
        for side in ("up", "down"):
            places = shown.add(item["row"] for item in found[side])
            found[side] = [
                {**item, "image": place} for item, place in zip(found[side], places, strict=True)
            ]
        content["comparison"] = found
    if "features" not in settings.skip and len(rows):
        found = feature_section(
            store, run.features, rows,
            num_features=TOP_FEATURES if budget else 0,
            num_images=min(FEATURE_IMAGES, max(1, budget // 40)) if budget else 0,
        )  # fmt: skip
        for entry in found["top"]:
            entry["images"] = shown.add(entry.pop("rows"))
        content["features"] = found
    galleries["per_class"] = _per_class(rows, content["classes"], shown, budget)
    if "measures" not in settings.skip and content["run"]["embeddings"] != "none" and len(rows):
        from qscore_fast.evaluation.measures import measure_run

        content["measures"] = measure_run(run).to_json()
    if pictures:
        shown.add(rows.spread(budget - len(shown), shown.places))
    index = PartRowsIndex(store)
    images = (
        SourceImages(store, settings.images, options=settings.source_options)
        if budget and pictures
        else None
    )
    own = {
        entry["feature"]: entry["images"] for entry in (content["features"] or {}).get("top", [])
    }
    shown.fill(store, index, run.features, images, heat_maps, own, correct)
    content["galleries"] = galleries
    content["images"] = shown.entries
    content["pictures"] = {
        "shown": len(shown.pictures),
        "missing": sum(shown.missing.values()),
        "reasons": shown.missing,
        "heat_maps": len(shown.maps),
    }
    return content, shown


def _per_class(
    rows: ScoreRows, classes: list[dict[str, Any]], shown: ShownImages, budget: int
) -> list[dict[str, Any]]:
    """The lowest of each class; of the classes of the lowest medians where there are many."""
    chosen = classes[:CLASS_GALLERIES]
    if not chosen or not budget:
        return []
    count = min(CLASS_IMAGES, max(1, budget // (3 * len(chosen))))
    by_name = {rows.classes[code]: own for code, own in rows.rows_by_class().items()}
    return [
        {
            "label": item["label"],
            "images": shown.add(by_name[item["label"]][:count].tolist()),
        }
        for item in chosen
    ]
