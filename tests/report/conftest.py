"""One browser, and one run with everything that a report can show, for all tests of reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from full_report import FullReport, save_curve, save_probe
from hostile_names import save_hostile_images
from sample_data import save_checkpoint, save_images

from qscore_fast.encoders import load_encoder
from qscore_fast.report import ReportSettings, write_report
from qscore_fast.scoring import score

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The only browser."""
    from chromium import chromium

    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> FullReport:
    """Labels, embeddings, hostile names, a bad image, a probe, a curve, a second run, heat maps."""
    folder = tmp_path_factory.mktemp("full")
    images = save_hostile_images(save_images(folder / "images", 150))
    (images / "bag" / "broken <b>.png").write_bytes(b"no image")
    run = score(images, checkpoint, folder / "tuned", eps=3, embeddings="npy", device="cpu")
    other = score(
        images, save_checkpoint(folder / "base.pth", seed=1), folder / "base", eps=3, device="cpu"
    )
    probe = save_probe(run, folder / "probe")
    save_curve(folder / "curve")
    settings = ReportSettings(
        probe=probe, compare=other.path, compression=folder / "curve", thumbnails=160,
        num_resamples=50,
    )  # fmt: skip
    encoder = load_encoder(checkpoint, device="cpu")
    written = write_report(run, folder / "report.html", settings, encoder)
    return FullReport(images, checkpoint, run, other, probe, written)
