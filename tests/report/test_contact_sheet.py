"""The contact sheet shows the extremes of the run, and does not mind odd names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hostile_images import photo
from matplotlib.axes import Axes
from PIL import Image

from qscore_fast.report import save_contact_sheet
from qscore_fast.scoring import score


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the small images, in the order in which they are drawn."""
    seen: list[str] = []
    real = Axes.set_title

    def record(axes: Axes, text: str, **options: object) -> object:
        seen.append(text)
        return real(axes, text, **options)

    monkeypatch.setattr(Axes, "set_title", record)
    return seen


def test_lowest_and_highest_of_a_labelled_run(
    tmp_path: Path, images: Path, checkpoint: Path, titles: list[str]
) -> None:
    run = score(images, checkpoint, tmp_path / "out", eps=2, device="cpu")
    save_contact_sheet(run, images, tmp_path / "sheet.png", "A title", "and a caption")
    table = run.scores()
    rows = sorted(
        zip(table["q_score"].to_pylist(), table["label"].to_pylist(), strict=True),
        key=lambda row: row[0],
    )
    shown = [float(title.split()[-1]) for title in titles]
    assert shown[:24] == pytest.approx([q for q, _ in rows[:24]], abs=6e-4)
    assert shown[24:] == pytest.approx([q for q, _ in rows[::-1][:24]], abs=6e-4)
    assert titles[0].startswith(rows[0][1])
    assert titles[24].startswith(rows[-1][1])

    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[:, 0] == 255).all()  # nothing is cut off at the sides
    assert (pixels[:, -1] == 255).all()
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("count", [1, 3])
def test_few_images_with_odd_names(
    tmp_path: Path, checkpoint: Path, titles: list[str], count: int
) -> None:
    (tmp_path / "images").mkdir()
    names = [r"$\frac{1}$.png", "line\nbreak and quite a long name.png", "猫.png"]
    for number, name in enumerate(names[:count]):
        photo(seed=number).save(tmp_path / "images" / name)
    run = score(tmp_path / "images", checkpoint, tmp_path / "out", eps=2, device="cpu")
    save_contact_sheet(run, tmp_path / "images", tmp_path / "sheet.png", "Few")
    assert len(titles) == 2
    assert all("\n" not in title for title in titles)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000
