"""The examples that are drawn: the best and the worst, and heat and masks where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from planted_patches import PATCH, planted_encoder

from qscore_fast.images import FolderSource, PillowDecoder
from qscore_fast.saliency import Compared, SalientImageNet, interpret
from qscore_fast.saliency.mask_examples import choose_examples, mask_panels
from qscore_fast.saliency.measure_images import Explained

BASE = planted_encoder(red=180, blue=180, name="base")
TUNED = planted_encoder(red=60, blue=300, name="tuned")


def changed(panel: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Which pixels differ."""
    return (panel.astype(int) - picture).astype(bool).any(2)


def test_heat_and_masks_are_drawn_where_they_are(planted: Any) -> None:
    source = FolderSource(planted.images)
    samples = {s.sample_id: s for unit in source.units(100) for s in source.read(unit)}
    encoders = [Explained(e.encoder, e.features) for e in (BASE, TUNED)]
    for image in planted.planted[:2]:
        sample = samples[f"{image.wnid}/{image.name}.JPEG"]
        panels = mask_panels(
            sample, SalientImageNet(planted.salient), encoders, "sum", PillowDecoder()
        )
        picture, base, tuned, core, spurious = (panel for panel in panels if panel is not None)
        crop = image.pixels()[16:240, 16:240]
        np.testing.assert_array_equal(picture, crop)
        inside = {True: image.mask(True) > 0, False: image.mask(False) > 0}
        for panel, on in ((base, image.is_correct), (tuned, True), (core, True), (spurious, False)):
            where = changed(panel, picture)
            assert where[inside[on]].all() and not where[inside[not on]].any()
            assert where.sum() < 1.5 * PATCH**2  # the interpolation's rim, JPEG's ringing


def test_the_best_and_the_worst_are_chosen(planted: Any, tmp_path: Path) -> None:
    found = interpret(
        planted.images, BASE.encoder, SalientImageNet(planted.salient), BASE.features, tmp_path,
        compared=Compared(TUNED.encoder, TUNED.features), num_resamples=0, examples=3, unit_size=4,
    )  # fmt: skip
    rows = pq.read_table(tmp_path / "interpretation.parquet")
    correct = {i.name: i.is_correct for i in planted.planted}
    units = FolderSource(planted.images).units(4)
    names = rows["name"].to_pylist()
    # The image without masks is in the second unit.
    sizes = [4, 3, 1]
    chosen = choose_examples(rows, list(zip(units, sizes, strict=True)), 4)
    assert [correct[e.name] for e in chosen] == [True, True, False, False]
    for example in chosen:
        first = sum(sizes[: example.unit.index])
        assert example.name in names[first : first + sizes[example.unit.index]]
    assert "mIoU core / spurious 1.00 / 0.00, then 1.00 / 0.00" in chosen[0].caption
    assert "mIoU core / spurious 0.00 / 1.00, then 1.00 / 0.00" in chosen[-1].caption
    assert len(choose_examples(rows, list(zip(units, sizes, strict=True)), 100)) == 8
    assert tmp_path / "examples.png" in found.files
    with Image.open(tmp_path / "examples.png") as picture:
        assert picture.height > 3 * 200 and picture.width > 5 * 180
    again = interpret(
        planted.images, BASE.encoder, SalientImageNet(planted.salient), BASE.features, tmp_path,
        compared=Compared(TUNED.encoder, TUNED.features), num_resamples=0, examples=0, unit_size=4,
    )  # fmt: skip
    assert tmp_path / "examples.png" not in again.files
