"""Heat maps of a source's images as files: an overlay an image, a sheet, and a list of what is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.discovery.activity import feature_activity
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Source
from qscore_fast.saliency.drawn_image import DrawnImage, draw_images
from qscore_fast.saliency.heat_map_sheet import Panel, SheetRow, plain, save_sheet
from qscore_fast.saliency.heatmaps import Combine
from qscore_fast.saliency.overlay import save_overlay
from qscore_fast.saliency.picked_images import Picked, pick_images
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import made_folder, write_text
from qscore_fast.scoring.store import Store

SHEET_IMAGES = 24
ACROSS = 4  # images beside each other, two pictures each
SCALED = "Each map is scaled to its own largest value; the frame is what the encoder saw."


@dataclass(frozen=True, eq=False)
class DrawnHeatMaps:
    """What was written.

    Attributes:
        drawn: every map.
        errors: sample id -> why there is none.
        files: written, the sheet first.
    """

    drawn: Sequence[DrawnImage]
    errors: dict[str, str]
    files: Sequence[Path]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": [image.to_json() for image in self.drawn],
            "errors": self.errors,
            "files": [str(path) for path in self.files],
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        without = sum(1 for image in self.drawn if image.note)
        found = [f"{len(self.drawn):,} heat maps, {without:,} of them with nothing to show"]
        found += [f"left out    {name}: {why}" for name, why in self.errors.items()]
        return [*found, f"written     {self.files[0]} and {len(self.files) - 1} more"]


def draw_heat_maps(
    source: Source,
    encoder: Encoder,
    out: str | os.PathLike[str],
    features: DiscriminativeFeatures | None = None,
    *,
    indices: Sequence[int] = (),
    limit: int = 16,
    compare: tuple[Encoder, DiscriminativeFeatures | None] | None = None,
    combine: Combine = "sum",
    **options: Any,
) -> DrawnHeatMaps:
    """Draw the first images of a source: each with its own discriminative features, or with given ones.

    Args:
        features: D; None for all features.
        indices: show these features instead.
        limit: images.
        compare: a second encoder and its D, such as the first after fine-tuning: its maps stand beside.
        options: as ``draw_images``.

    Raises:
        SettingsError, EncoderError, SourceError, StoreError: as ``heatmaps``, ``pick_images`` and files do.
    """
    if limit < 1:
        raise SettingsError(f"limit is {limit}; it must be 1 or more")
    picked = pick_images(source, encoder.preprocess, limit=limit)
    encoders = [(encoder, features), *([compare] if compare else [])]
    each = [
        draw_images(one, _in_mode(picked, one), list(indices) or own, combine=combine, **options)
        for one, own in encoders
    ]
    folder = made_folder(out)
    files = []
    for number, drawn in enumerate(zip(*each, strict=True), 1):
        for place, image in enumerate(drawn):
            suffix = ("", "-compared")[place]
            name = f"{number:04d}-{_file_name(image.sample_id)}{suffix}.png"
            files.append(save_overlay(folder / name, image.picture()))
    shown = [_panels(drawn) for drawn in zip(*each, strict=True)]
    across = max(1, 2 * ACROSS // len(shown[0]))
    rows = [
        SheetRow([panel for panels in shown[first : first + across] for panel in panels])
        for first in range(0, min(len(shown), SHEET_IMAGES), across)
    ]
    what = (
        f"Features {', '.join(map(str, indices))}"
        if indices
        else "Each image's own features in L and D"
    )
    names = " and ".join(one.name for one, _ in encoders)
    sheet = save_sheet(
        folder / "sheet.png",
        rows,
        f"Heat maps of {plain(names, 60)}",
        f"{what}, combined by {combine}. {SCALED}",
    )
    return _written(
        folder, sheet, [image for drawn in each for image in drawn], picked.errors, files
    )


def draw_top_images(
    source: Source,
    encoder: Encoder,
    out: str | os.PathLike[str],
    run: str | os.PathLike[str] | ScoreRun,
    *,
    indices: Sequence[int] = (),
    top: int = 8,
    num_features: int = 6,
    **options: Any,
) -> DrawnHeatMaps:
    """Draw features: of each the images of a run in which it stands out most, with its own map.

    Args:
        source: that of the run.
        run: a finished run of this encoder.
        indices: the features; by default those in D that fire for the most images.
        top: images a feature.
        num_features: how many by default.
        options: as ``draw_images``.

    Raises:
        SettingsError: a run of another encoder, a feature out of range, or one that fires for no image.
        StoreError: no complete run there. SourceError: the source lacks these images.
    """
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    features = run.features
    _check_run(run, encoder, top, indices)
    activity = feature_activity(
        Store(run.path), features.num_features, features.eps, num_splits=0, num_top=top
    )
    if not indices:
        often = sorted(features.indices.tolist(), key=lambda j: (-int(activity.counts[j]), j))
        indices = often[:num_features]
    ids = run.scores()["sample_id"]
    of_feature = {
        j: [ids[int(row)].as_py() for row in activity.top_rows[j] if row >= 0] for j in indices
    }
    if silent := [j for j, names in of_feature.items() if not names]:
        raise SettingsError(f"feature {silent[0]} fires for no image of {run.path}: choose another")
    wanted = {name for names in of_feature.values() for name in names}
    picked = pick_images(source, encoder.preprocess, ids=wanted)
    folder = made_folder(out)
    drawn: list[DrawnImage] = []
    files: list[Path] = []
    rows: list[SheetRow] = []
    for j, names in of_feature.items():
        images = {name: picked.images[name] for name in names if name in picked.images}
        if not images:
            continue
        own = draw_images(encoder, images, [j], two_sided=features.two_sided, **options)
        drawn += own
        for place, image in enumerate(own, 1):
            name = f"feature-{j}-{place:02d}-{_file_name(image.sample_id)}.png"
            files.append(save_overlay(folder / name, image.picture()))
        plainly, seen = zip(*(image.panels() for image in own), strict=True)
        share = 100 * activity.counts[j] / max(activity.num_samples, 1)
        place_in_d = "in D" if bool(features.mask[j]) else "not in D"
        rows.append(
            SheetRow(plainly, f"Feature {j}, {place_in_d}: fires for {share:.2f} % of the images")
        )
        rows.append(SheetRow(seen))
    sheet = save_sheet(
        folder / "sheet.png",
        rows,
        f"Top images of features of {plain(encoder.name, 60)}",
        f"The images in which each feature stands out most, and where it fires. {SCALED}",
    )
    return _written(folder, sheet, drawn, picked.errors, files)


def _check_run(run: ScoreRun, encoder: Encoder, top: int, indices: Sequence[int]) -> None:
    features = run.features
    if top < 1:
        raise SettingsError(f"top is {top}; it must be 1 or more")
    if features.fingerprint not in (None, encoder.fingerprint):
        raise SettingsError(
            f"the run in {run.path} is of another encoder than {encoder.name}: give the run's encoder"
        )
    for j in indices:
        if not 0 <= j < features.num_features:
            raise SettingsError(
                f"feature {j} is out of range: the encoder has features 0 to {features.num_features - 1}"
            )


def _panels(drawn: Sequence[DrawnImage]) -> list[Panel]:
    """The image once, and its map by every encoder."""
    first, *others = (image.panels() for image in drawn)
    return [*first, *(panels[1] for panels in others)]


def _in_mode(picked: Picked, encoder: Encoder) -> dict[str, Image.Image]:
    mode = encoder.preprocess.mode
    return {name: image.convert(mode) for name, image in picked.images.items()}


def _written(
    folder: Path,
    sheet: Path,
    drawn: Sequence[DrawnImage],
    errors: dict[str, str],
    files: Sequence[Path],
) -> DrawnHeatMaps:
    listing = folder / "heatmaps.json"
    found = DrawnHeatMaps(drawn, errors, [sheet, listing, *files])
    write_text(listing, json.dumps(found.to_json(), indent=1) + "\n")
    return found


def _file_name(sample_id: str) -> str:
    """The end of a sample id as a file name: letters, digits, dots and dashes."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", os.path.splitext(sample_id)[0])
    return name[-60:].strip("._-") or "image"
