"""The transform is torchvision's, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hostile_images import photo
from PIL import Image
from torchvision import transforms as T
from torchvision.models import ResNet18_Weights, Swin_T_Weights
from torchvision.transforms import InterpolationMode

from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.images import IMAGENET, Preprocess, recipes

SIZES = [(1, 1), (7, 300), (300, 7), (224, 224), (257, 255), (640, 480)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_equal_to_torchvision(size: tuple[int, int], interpolation: str) -> None:
    image = photo(*size)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    by_hand = T.Compose(
        [
            T.Resize(64, InterpolationMode(interpolation)),
            T.CenterCrop(56),
            T.ToTensor(),
            T.Normalize(mean, std),
        ]
    )
    preprocess = Preprocess("RGB", 64, 56, interpolation, mean, std)
    result = preprocess(image)
    assert result.dtype == torch.float32
    assert result.shape == (3, 56, 56)
    assert torch.equal(result, by_hand(image))
    # As a batch, which is how the scoring does it.
    batch = torch.stack([preprocess.pixels(image)] * 2)
    assert torch.equal(preprocess.normalise(batch)[1], result)


def test_equal_for_every_grey_level() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    by_hand = T.Compose([T.ToTensor(), T.Normalize((0.286,), (0.353,))])
    preprocess = Preprocess("L", None, 16, "bilinear", (0.286,), (0.353,))
    assert torch.equal(preprocess(image), by_hand(image))


@pytest.mark.parametrize("weights", [ResNet18_Weights.DEFAULT, Swin_T_Weights.DEFAULT])
def test_equal_to_the_presets_of_pretrained_weights(weights: object) -> None:
    preset = weights.transforms()  # type: ignore[attr-defined]
    preprocess = Preprocess(
        "RGB", preset.resize_size[0], preset.crop_size[0], preset.interpolation.value,
        preset.mean, preset.std,
    )  # fmt: skip
    image = photo(300, 260)
    assert torch.equal(preprocess(image), preset(image))


def test_both_sides_and_padding() -> None:
    image = photo(50, 20)
    squashed = Preprocess("RGB", (30, 40), None)
    assert squashed.output_size == (30, 40)
    by_hand = T.Compose(
        [T.Resize((30, 40)), T.ToTensor(), T.Normalize(IMAGENET.mean, IMAGENET.std)]
    )
    assert torch.equal(squashed(image), by_hand(image))
    padded = Preprocess("RGB", None, (60, 60), mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert torch.equal(padded[:, 20:40, 5:55], T.ToTensor()(image))
    assert padded.sum() == padded[:, 20:40, 5:55].sum()


def test_a_long_thin_image_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ImageError, match=r"1 x 5000 pixels: too long and thin .* 256"):
        IMAGENET(photo(1, 5000))
    assert IMAGENET(photo(10, 5000)).shape == (3, 224, 224)


def test_json_there_and_back() -> None:
    preprocess = Preprocess("L", (30, 40), 28, "bicubic", (0.5,), (0.25,))
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess
    assert "crop_fraction" not in preprocess.to_json()  # as in files older than the field
    assert recipes.BYOL.to_json()["crop_fraction"] == 0.875
    assert Preprocess.from_json(json.loads(json.dumps(recipes.BYOL.to_json()))) == recipes.BYOL
    with pytest.raises(SettingsError, match="needs the fields"):
        Preprocess.from_json({"mode": "L"})
    with pytest.raises(SettingsError, match="needs the fields"):
        Preprocess.from_json({**preprocess.to_json(), "flip": True})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "CMYK"),
        ("resize", 0),
        ("resize", 10**9),
        ("resize", (1, 2, 3)),
        ("crop", "224"),
        ("crop", True),
        ("crop", None),
        ("interpolation", "cubic"),
        ("mean", (0.5,)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("std", (0.2, 0.0, 0.2)),
        ("std", "abc"),
        ("crop_fraction", 0.875),
    ],
)
def test_values_that_do_not_fit_are_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=field):
        Preprocess.from_json({**IMAGENET.to_json(), field: value})
