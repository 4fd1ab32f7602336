"""``run_demo``: discover on one part of Fashion-MNIST, score another, draw the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from qscore_fast.demo.fashion_mnist import Split, unpack_images
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import EncoderError, SettingsError, StoreError
from qscore_fast.report import save_contact_sheet, write_report
from qscore_fast.scoring import Progress, ScoreRun, score

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: two runs, a picture and a report."""

    discovery: ScoreRun
    scoring: ScoreRun
    picture: Path
    report: Path


def run_demo(
    out: str | os.PathLike[str] = "qscore-demo",
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] | None = None,
    *,
    encoder: Encoder | str | os.PathLike[str] = "demo",
    limit: int | None = None,
    two_sided: bool | None = None,
    overwrite: bool = False,
) -> DemoResult:
    """Score real images under an SSL encoder, without labels.

    Discovers the discriminative features on 4,000 images with eps="auto", scores 2,000 others with
    them, draws demo.png and writes report.html. What is there already is not done again.

    Args:
        out: the folder for images/, discover/, score/, demo.png and report.html.
        say: hears what is being done, a line at a time.
        progress: see ``score``.
        encoder: see ``load_encoder``; the bundled one by default. The images, 28 x 28 and grey, become
            what its preprocessing makes of them.
        limit: take at most this many images for each of the two steps.
        two_sided: see ``score``.
        overwrite: delete the runs of an earlier demo that are in ``out``.

    Raises:
        QScoreError: or one of its kinds, for anything that the caller can mend.
    """
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise SettingsError(f"limit must be a whole number, 1 or more; got {limit!r}")
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder)
    folder = Path(out)
    images = {
        split: folder / "images" / (split if limit is None else f"{split}-{limit}")
        for split in SPLITS
    }
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
    for split, path in images.items():
        if unpack_images(split, path, limit):
            say(f"unpacked Fashion-MNIST images to {path}")
    say(f"discovering the features on images/{images['discover'].name}, without their labels")
    discovery = score(
        images["discover"],
        encoder,
        folder / "discover",
        eps="auto",
        two_sided=two_sided,
        overwrite=overwrite,
        progress=progress,
    )
    for note in discovery.summary["notes"]:
        say(note)
    say(f"scoring images/{images['score'].name} with these features")
    scoring = score(
        images["score"],
        encoder,
        folder / "score",
        features=discovery.features,
        overwrite=overwrite,
        progress=progress,
    )
    picture = folder / "demo.png"
    parts_done = [run.session.parts_done for run in (discovery, scoring) if run.session]
    if any(parts_done) or not picture.exists():
        summary = scoring.summary
        save_contact_sheet(
            scoring,
            images["score"],
            picture,
            title=f"Q-Score of {summary['num_scored']:,} Fashion-MNIST images, without labels",
            caption=(
                f"Encoder: {_name(encoder)}, {summary['num_features']} "
                f"features, {summary['num_discriminative']} discriminative at eps = "
                f"{summary['eps']:g}{_about_zeros(summary)}. "
                "Class names are for the reader; no step uses them."
            ),
        )
    report = folder / "report.html"
    if any(parts_done) or not report.exists():
        say("writing the report, with heat maps where the encoder has them")
        _write_report(scoring, report, encoder, say)
    if not any(parts_done):
        say(f"everything was in {folder} already: nothing was done again")
    return DemoResult(discovery, scoring, picture, report)


def _write_report(run: ScoreRun, path: Path, encoder: Encoder, say: Callable[[str], None]) -> None:
    # The bundled encoder's last maps of a 28-pixel image have 2 x 2 positions, which show nothing.
    layer = "stages.1" if encoder.name == "demo" else None
    try:
        write_report(run, path, encoder=encoder, layer=layer)
    except EncoderError as error:  # a network without an image in it, say
        say(f"no heat maps: {error}")
        write_report(run, path)


def _name(encoder: Encoder) -> str:
    """The file's name will do where it is a path."""
    name = os.path.basename(encoder.name)
    return f"{name} ({encoder.system})" if encoder.system else name


def _about_zeros(summary: dict[str, Any]) -> str:
    count = round(summary["empty_fraction"] * summary["num_scored"])
    if not count:
        return ""
    images = "image activates" if count == 1 else "images activate"
    return f"; {count} {images} none of them and score 0"
