"""Overlays: where the crop lies, where the heat goes, and in which colour."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import qscore_fast as qf
from qscore_fast.images import IMAGENET, Preprocess
from qscore_fast.saliency import crop_box, save_overlay

GREY = {"mode": "L", "mean": (0.5,), "std": (0.5,)}
RECIPES = [
    Preprocess(**GREY),
    Preprocess(resize=100, crop=(96, 64), **GREY),
    Preprocess(resize=(60, 80), crop=None, **GREY),
    Preprocess(resize=(90, 90), crop=80, **GREY),
    Preprocess(resize=None, crop=150, **GREY),
    Preprocess(resize=(64, 64), crop=None, crop_fraction=0.875, **GREY),
    Preprocess(resize=(32, 64), crop=None, crop_fraction=0.5, **GREY),
]


@pytest.mark.parametrize("preprocess", RECIPES, ids=range(len(RECIPES)))
@pytest.mark.parametrize(("height", "width"), [(200, 301), (333, 222), (240, 240)])
def test_the_crop_is_where_the_encoder_looks(
    preprocess: Preprocess, height: int, width: int
) -> None:
    """A ramp along each side shows, after preprocessing, between which pixels the crop was taken."""
    left, top, right, bottom = crop_box(preprocess, height, width)
    for axis, (low, high), length in ((1, (left, right), width), (0, (top, bottom), height)):
        ramp = np.arange(length, dtype=np.float64) * 200 / length + 20
        pixels = np.repeat(np.expand_dims(ramp, 1 - axis), (height, width)[1 - axis], 1 - axis)
        seen = (
            preprocess.pixels(Image.fromarray(pixels.round().astype(np.uint8)))[0].double().numpy()
        )
        line = seen.mean(1 - axis)
        inner = slice(len(line) // 4, -(len(line) // 4))
        place = (np.arange(len(line)) + 0.5) / len(line) * (high - low) + low - 0.5
        expected = place * 200 / length + 20
        assert np.abs(line - expected)[inner].max() < 1.5, (axis, low, high)


def blank(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), (100, 110, 120))


def test_heat_lies_in_its_cell_and_nothing_outside() -> None:
    heat = torch.zeros(4, 4)
    heat[1, 3] = 5.0
    pixels = qf.overlay(blank(200, 300), heat, Preprocess(resize=200, crop=200))
    assert (pixels.shape, pixels.dtype) == ((200, 300, 3), np.uint8)
    changed = (pixels != [100, 110, 120]).any(2)
    assert (
        pixels[:, :49] == np.round(np.array([100, 110, 120]) * 0.45)
    ).all()  # not seen, so darkened
    assert not changed[110:198, 53:140].any()
    table = matplotlib.colormaps["inferno"](255)[:3]
    hottest = np.round(np.array([100, 110, 120]) * 0.35 + np.array(table) * 255 * 0.65)
    centre = pixels[75, 50 + 175].astype(float)
    np.testing.assert_allclose(centre, hottest, atol=8)
    assert (pixels[1, 50:250] == 255).all() or (pixels[0, 50:250] == 255).all()  # the frame


def test_options_of_an_overlay() -> None:
    heat = torch.ones(2, 2)
    all_seen = Preprocess(resize=(50, 50), crop=None)
    full = qf.overlay(blank(80, 60), heat, all_seen)
    assert len(np.unique(full.reshape(-1, 3), axis=0)) == 1  # no frame where everything was seen
    half = qf.overlay(blank(80, 60), heat, all_seen, scale=2.0)
    assert (half != full).any()
    viridis = qf.overlay(blank(80, 60), heat, all_seen, colour_map="viridis")
    assert (viridis != full).any()
    plain = qf.overlay(blank(80, 120), torch.zeros(2, 2), IMAGENET, mark_crop=False)
    assert (plain == [100, 110, 120]).all()
    grey = qf.overlay(
        Image.new("L", (30, 30), 7), heat * 0, Preprocess("L", 30, 30, mean=(0,), std=(1,))
    )
    assert (grey == 7).all()


@pytest.mark.parametrize(
    "heat", [torch.full((3, 3), torch.nan), torch.zeros(3, 3), -torch.ones(3, 3)]
)
def test_nothing_to_show_leaves_the_image(heat: torch.Tensor) -> None:
    pixels = qf.overlay(blank(40, 40), heat, Preprocess(resize=40, crop=40))
    assert (pixels == [100, 110, 120]).all()


def test_a_crop_beyond_the_image_is_cut() -> None:
    pixels = qf.overlay(blank(40, 60), torch.ones(2, 2), Preprocess(resize=None, crop=100))
    assert pixels.shape == (40, 60, 3)


def test_wrong_arguments_and_files(tmp_path: Path) -> None:
    with pytest.raises(qf.QScoreError, match="colour_map is 'jet'"):
        qf.overlay(blank(9, 9), torch.ones(2, 2), IMAGENET, colour_map="jet")
    with pytest.raises(qf.QScoreError, match="give one map"):
        qf.overlay(blank(9, 9), torch.ones(1, 2, 2), IMAGENET)
    pixels = qf.overlay(blank(9, 9), torch.ones(2, 2), IMAGENET)
    path = save_overlay(tmp_path / "a.png", pixels)
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
