"""A centre crop of a fraction, then the resizing: as the code of SimCLR and BYOL defines it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hostile_images import photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qscore_fast.errors import SettingsError
from qscore_fast.images import IMAGENET, Preprocess, recipes


def half_to_even(value: Fraction) -> int:
    whole, rest = divmod(value, 1)
    return int(whole) + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1))


def official_simclr(image: Image.Image, side: int) -> np.ndarray:
    """Crop rint(0.875 short) pixels, the odd pixel before it, and resize; floats in [0, 1]."""
    crop = half_to_even(Fraction(7, 8) * min(image.size))
    top, left = (image.height - crop + 1) // 2, (image.width - crop + 1) // 2
    cropped = np.asarray(image)[top : top + crop, left : left + crop]
    resized = Image.fromarray(cropped).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float64) / 255


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (500, 500), (501, 500), (224, 224), (7, 300), (3, 3), (1, 1)]
)
def test_simclr_and_byol(size: tuple[int, int]) -> None:
    image = photo(*size)
    expected = official_simclr(image, 224)
    simclr = recipes.UNIT_RANGE(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(simclr, expected, atol=1e-6)
    assert simclr.min() >= 0
    assert simclr.max() <= 1
    byol = recipes.BYOL(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(
        byol, (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], atol=1e-5
    )


def test_it_is_not_a_resize_and_a_crop() -> None:
    image = photo(500, 375)
    other = replace(recipes.UNIT_RANGE, resize=256, crop=224, crop_fraction=None)
    assert not torch.equal(recipes.UNIT_RANGE(image), other(image))


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 600), st.integers(1, 600), st.integers(1, 300), st.integers(1, 300),
    st.sampled_from([0.01, 0.5, 0.875, 1.0]),
)  # fmt: skip
def test_the_box(height: int, width: int, out_h: int, out_w: int, fraction: float) -> None:
    preprocess = Preprocess(resize=(out_h, out_w), crop=None, crop_fraction=fraction)
    top, left, box_h, box_w = preprocess.fraction_box(height, width)
    scale = Fraction(fraction) * min(Fraction(height, out_h), Fraction(width, out_w))
    assert abs(box_h - max(1, scale * out_h)) <= Fraction(501, 1000)
    assert abs(box_w - max(1, scale * out_w)) <= Fraction(501, 1000)
    assert 0 <= top <= height - box_h
    assert 0 <= left <= width - box_w
    assert top - (height - box_h - top) in (0, 1)
    assert left - (width - box_w - left) in (0, 1)


@pytest.mark.parametrize("fraction", [0, -0.5, 1.5, float("nan"), "0.875", True])
def test_fractions_that_do_not_fit(fraction: object) -> None:
    with pytest.raises(SettingsError, match="crop_fraction must be above 0 and at most 1"):
        replace(recipes.UNIT_RANGE, crop_fraction=fraction)


@pytest.mark.parametrize("fields", [{"resize": 224}, {"resize": None}, {"crop": 224}])
def test_fields_that_contradict_a_fraction(fields: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="crop"):
        replace(recipes.UNIT_RANGE, **fields)


def test_changes_that_a_user_asks_for() -> None:
    assert IMAGENET.changed(std=(0.228, 0.224, 0.225)) == recipes.SWAV
    assert IMAGENET.changed(crop_fraction=0.875, interpolation="bicubic") == recipes.BYOL
    assert recipes.BYOL.changed(resize=256, crop=224) == recipes.IMAGENET_BICUBIC
    assert recipes.BYOL.changed(resize=256) == replace(recipes.IMAGENET_BICUBIC, crop=(224, 224))
    assert recipes.BYOL.changed(crop_fraction=0.5, resize=96).output_size == (96, 96)
    assert recipes.BYOL.changed(mean=(0, 0, 0), std=(1, 1, 1)) == recipes.UNIT_RANGE
    assert IMAGENET.changed() == IMAGENET
    with pytest.raises(SettingsError, match="contradict"):
        IMAGENET.changed(crop=224, crop_fraction=0.875)


@pytest.mark.parametrize(
    ("preprocess", "words"),
    [
        (
            recipes.IMAGENET_BICUBIC,
            "resize 256 bicubic, centre crop 224, mean .485 .456 .406, std .229 .224 .225",
        ),
        (
            recipes.UNIT_RANGE,
            "centre crop of 0.875 of the short side, resize 224 x 224 bicubic, "
            "values in [0, 1], not normalised",
        ),
        (
            Preprocess("L", None, 28, mean=(0.0,), std=(2.0,)),
            "grey, centre crop 28, mean 0, std 2",
        ),
    ],
)
def test_in_words(preprocess: Preprocess, words: str) -> None:
    assert preprocess.describe() == words


def test_recipes_are_as_published() -> None:
    assert recipes.DINOV3_SAT.mean == (0.430, 0.411, 0.296)
    assert recipes.DINOV3_SAT.std == (0.213, 0.156, 0.143)
    small = photo(32, 32)
    assert torch.equal(
        recipes.CIFAR10.pixels(small), torch.from_numpy(np.array(small)).permute(2, 0, 1)
    )
