"""Examples of an interpretation: images with their heat beside their masks, like the paper's Fig. 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from qscore_fast.images import Decoder, Preprocess, Sample, Source, Unit
from qscore_fast.saliency.heatmaps import Combine
from qscore_fast.saliency.interpretation_rows import KINDS, measure_column, prefixes
from qscore_fast.saliency.mask_frame import MASK_TRANSFORM
from qscore_fast.saliency.masked_images import load_masked_image
from qscore_fast.saliency.measure_images import Explained, heat_on_masks
from qscore_fast.saliency.overlay import overlay
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.saliency.salient_masks import SIDE
from qscore_fast.scoring.atomic import replacing

MEASURE = "heat_iou"
# The pictures are in the frame of the masks already.
_AS_IT_IS = Preprocess(resize=(SIDE, SIDE), crop=None)


@dataclass(frozen=True)
class Example:
    """A row of the table that is drawn: which image, where it lies in the source, what is under it."""

    unit: Unit
    sample_id: str
    name: str
    caption: str


def choose_examples(
    rows: pa.Table, units: Sequence[tuple[Unit, int]], number: int
) -> list[Example]:
    """Half of them the images whose heat lies most on core and least on spurious features, half the opposite.

    Of the first encoder; an image without a spurious mask counts by its core mask alone. One without a
    core measure is none.

    Args:
        rows: of interpretation.parquet.
        units: of the source, in order, with the rows that each has in it.
        number: at most; images with equal values in the order of the rows.
    """
    core, spurious = (
        rows[measure_column("", kind, MEASURE)].to_numpy().astype(np.float64) for kind in KINDS
    )
    order = np.argsort(-(core - np.nan_to_num(spurious, nan=0.0)), kind="stable")
    order = order[~np.isnan(core[order])]
    if len(order) > number:
        order = np.concatenate([order[: (number + 1) // 2], order[len(order) - number // 2 :]])
    ends = np.cumsum([count for _, count in units])
    found = []
    for place in order.tolist():
        row = rows.slice(place, 1).to_pylist()[0]
        unit = units[int(np.searchsorted(ends, place, side="right"))][0]
        found.append(Example(unit, row["sample_id"], row["name"], _caption(row, rows)))
    return found


def save_examples(
    examples: Sequence[Example],
    source: Source,
    salient: SalientImageNet,
    encoders: Sequence[Explained],
    names: Sequence[str],
    combine: Combine,
    decoder: Decoder,
    path: Path,
) -> None:
    """Draw a row an example: the image, the heat of each encoder, the core and the spurious mask.

    All in the frame of the masks. An image that the source no longer gives is left out; without any there is
    no file.

    Raises:
        StoreError: it cannot be written. EncoderError: see :func:`heat_on_masks`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = [
        (example, mask_panels(image, salient, encoders, combine, decoder))
        for example, image in _samples(examples, source)
    ]
    drawn = [(example, panels) for example, panels in drawn if panels]
    if not drawn:
        return
    titles = ["image", *(f"heat, {name}" for name in names), "core", "spurious"]
    with rc_context({"figure.dpi": 110}):
        width, height = 1.75 * len(titles), 0.5 + 1.95 * len(drawn)
        figure = Figure(figsize=(width, height))
        place = {"left": 0.01, "right": 0.99, "bottom": 0.05 / height, "top": 1 - 0.45 / height}
        grid = figure.subplots(
            len(drawn),
            len(titles),
            squeeze=False,
            gridspec_kw={**place, "wspace": 0.04, "hspace": 0.13},
        )
        for axes in grid.flat:
            axes.axis("off")
        for row, (example, panels) in zip(grid, drawn, strict=True):
            for axes, panel in zip(row, panels, strict=True):
                if panel is None:
                    axes.text(0.5, 0.5, "no mask", ha="center", va="center", fontsize=8)
                else:
                    axes.imshow(panel)
            row[0].set_title(example.caption, fontsize=6.5, loc="left", pad=3)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.annotate(
                title[:34].replace("$", r"\$"), (0.5, 1), (0, 14), xycoords="axes fraction",
                textcoords="offset points", ha="center", fontsize=8, weight="bold",
            )  # fmt: skip
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def _caption(row: dict[str, object], rows: pa.Table) -> str:
    words = []
    for prefix in prefixes(2 if "compare_q_score" in rows.column_names else 1):
        values = [row[measure_column(prefix, kind, MEASURE)] for kind in KINDS]
        words.append(" / ".join("none" if value is None else f"{value:.2f}" for value in values))
    outcome = {True: ", correct", False: ", misclassified", None: ""}[row["correct"]]  # type: ignore[index]
    return f"{row['name']}{outcome}: mIoU core / spurious {', then '.join(words)}"


def _samples(examples: Sequence[Example], source: Source) -> list[tuple[Example, Sample]]:
    """Their samples, read again; in the order of the examples."""
    found: dict[str, Sample] = {}
    by_unit = sorted(examples, key=lambda example: example.unit.index)
    for _, group in groupby(by_unit, key=lambda example: example.unit.index):
        own = list(group)
        wanted = {example.sample_id for example in own}
        for sample in source.read(own[0].unit):
            if sample.sample_id in wanted:
                found[sample.sample_id] = sample
                wanted.remove(sample.sample_id)
                if not wanted:
                    break
    return [(e, found[e.sample_id]) for e in examples if e.sample_id in found]


def mask_panels(
    sample: Sample,
    salient: SalientImageNet,
    encoders: Sequence[Explained],
    combine: Combine,
    decoder: Decoder,
) -> list[np.ndarray | None]:
    """The image, the heat of each encoder over it, its core and its spurious mask over it.

    Returns:
        uint8 (224, 224, 3) each, in the frame of the masks; None for a mask that there is not. Empty if the
        image cannot be read.
    """
    transforms = [MASK_TRANSFORM, *(e.encoder.preprocess for e in encoders)]
    place = salient.place_of(sample)
    if place is None:
        return []
    image = load_masked_image(sample, place, salient, transforms, decoder)
    if image.masks is None:
        return []
    picture = Image.fromarray(image.pixels[0].permute(1, 2, 0).numpy())
    panels: list[np.ndarray | None] = [np.asarray(picture)]
    for number, explained in enumerate(encoders, start=1):
        _, heat, _ = heat_on_masks(explained, [image.pixels[number]], [image.size], combine)
        panels.append(overlay(picture, heat[0], _AS_IT_IS))
    for mask in (image.masks.core, image.masks.spurious):
        panels.append(
            None
            if mask is None
            else overlay(
                picture, mask.astype(np.float32), _AS_IT_IS, colour_map="viridis", scale=255
            )
        )
    return panels
