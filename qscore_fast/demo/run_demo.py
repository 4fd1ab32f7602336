"""``run_demo``: discover on one part of Fashion-MNIST, score another, draw the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qscore_fast.demo.fashion_mnist import unpack_images
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import StoreError
from qscore_fast.report import save_contact_sheet
from qscore_fast.scoring import Progress, ScoreRun, score


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: two runs and a picture."""

    discovery: ScoreRun
    scoring: ScoreRun
    picture: Path


def run_demo(
    out: str | os.PathLike[str] = "qscore-demo",
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] | None = None,
) -> DemoResult:
    """Score real images under the bundled SSL encoder, without labels.

    Discovers the discriminative features on 4,000 images with eps="auto", scores 2,000 others with
    them, and draws demo.png. What is there already is not done again.

    Args:
        out: the folder for images/, discover/, score/ and demo.png.
        say: hears what is being done, a line at a time.
        progress: see ``score``.
    """
    folder = Path(out)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
    images = folder / "images"
    for split in ("discover", "score"):
        if unpack_images(split, images / split):
            say(f"unpacked Fashion-MNIST images to {images / split}")
    encoder = load_encoder("demo")
    say("discovering the features on images/discover, without their labels")
    discovery = score(
        images / "discover", encoder, folder / "discover", eps="auto", progress=progress
    )
    for note in discovery.summary["notes"]:
        say(note)
    say("scoring images/score with these features")
    scoring = score(
        images / "score", encoder, folder / "score", features=discovery.features, progress=progress
    )
    picture = folder / "demo.png"
    parts_done = [run.session.parts_done for run in (discovery, scoring) if run.session]
    if any(parts_done) or not picture.exists():
        summary = scoring.summary
        save_contact_sheet(
            scoring,
            images / "score",
            picture,
            title=f"Q-Score of {summary['num_scored']:,} Fashion-MNIST images, without labels",
            caption=(
                f"Encoder: {summary['encoder']} ({summary['system']}), {summary['num_features']} "
                f"features, {summary['num_discriminative']} discriminative at eps = "
                f"{summary['eps']:g}{_about_zeros(summary)}. "
                "Class names are for the reader; no step uses them."
            ),
        )
    if not any(parts_done):
        say(f"everything was in {folder} already: nothing was done again")
    return DemoResult(discovery, scoring, picture)


def _about_zeros(summary: dict[str, Any]) -> str:
    count = round(summary["empty_fraction"] * summary["num_scored"])
    return f"; {count} images activate none of them and score 0" if count else ""
