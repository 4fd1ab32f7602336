"""What ``heatmaps`` takes, and what it says to what it cannot take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import small_module
from small_networks import TokenMean, resnet18, small_encoder
from torch import Tensor, nn

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.images import Preprocess
from qscore_fast.saliency.heat_maps import NO_FEATURE, NO_HEAT, NOT_FINITE, upsample
from qscore_fast.saliency.spatial import spatial_view, token_grid


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return small_encoder(resnet18(), "mine")


def noise(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_paths_and_pictures_are_preprocessed(tmp_path: Path) -> None:
    encoder = Encoder(small_module(), Preprocess("L", 40, 32, mean=(0.3,), std=(0.3,)))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    batch = encoder.preprocess(picture)[None]
    expected = qf.heatmaps(encoder, batch, eps=2.0)
    assert expected.maps.sum() > 0
    for images in (tmp_path / "a.png", str(tmp_path / "a.png"), picture, [picture]):
        found = qf.heatmaps(encoder, images, eps=2.0)
        torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=0)
        assert found.crop_size == (32, 32)
    module = qf.heatmaps(resnet18(), Image.new("RGB", (300, 260), (200, 10, 10)), [1])
    assert module.crop_size == (224, 224)


def test_empty_sets_give_zeros_and_a_note(encoder: Encoder) -> None:
    nothing = torch.zeros(512, dtype=torch.bool)
    for method in ("exact", "gradient"):
        for combine in ("sum", "mean", "max"):
            found = qf.heatmaps(encoder, noise(), nothing, combine, method=method)
            assert not found.maps.any()
            assert found.notes == (NO_FEATURE, NO_FEATURE)
            assert [len(own) for own in found.features] == [0, 0]
            assert not found.q_score.any()


@pytest.mark.parametrize("method", ["exact", "gradient"])
def test_an_image_that_is_not_finite_is_noted(encoder: Encoder, method: str) -> None:
    images = noise(3)
    images[1, 0, 5, 5] = torch.nan
    for features in (None, [4, 5]):
        found = qf.heatmaps(encoder, images, features, eps=1.5, method=method)
        assert found.notes == ("", NOT_FINITE, "")
        assert found.maps[1].isnan().all()
        assert found.maps[[0, 2]].isfinite().all()
        others = qf.heatmaps(encoder, images[[0, 2]], features, eps=1.5, method=method)
        torch.testing.assert_close(found.maps[[0, 2]], others.maps, rtol=1e-5, atol=1e-5)


def test_a_given_feature_that_is_silent_is_noted() -> None:
    module = resnet18()
    module.layer4.register_forward_hook(
        lambda m, a, output: output.index_fill(1, torch.tensor([7]), 0)
    )
    found = qf.heatmaps(small_encoder(module), noise(), [7])
    assert found.notes == (NO_HEAT, NO_HEAT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": [512]}, "feature 512 is out of range: the encoder has features 0 to 511"),
        ({"features": [-1]}, "feature -1 is out of range"),
        ({"features": []}, "give one whole number or more"),
        ({"features": [0.5]}, "give one whole number or more"),
        ({"features": "seven"}, "features is 'seven'"),
        ({"features": torch.ones(100, dtype=torch.bool)}, "belong to different encoders"),
        ({"combine": "median"}, "combine is 'median'; choose one of sum, mean, max"),
        ({"combine": None}, "features must be indices"),
        ({"method": "fast"}, "method is 'fast'"),
        ({"layer": "layer4", "method": "exact"}, "needs method="),
        ({"layer": "layer5"}, r"no layer 'layer5'; did you mean layer\d.* with a map are .*layer4"),
        ({"layer": "avgpool.x"}, "no layer 'avgpool.x'"),
        ({"layer": "fc"}, r"layer 'fc' of mine returns \(2, 512\): that is no map"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"images": torch.zeros(3, 64, 64)}, "give a normalised batch"),
        ({"images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)}, "give a normalised batch"),
        ({"images": []}, "there is no image"),
        ({"images": [5]}, "an image is a int"),
        ({"images": "missing.png"}, "missing.png: "),
    ],
)
def test_wrong_arguments(encoder: Encoder, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(qf.QScoreError, match=message) as caught:
        qf.heatmaps(encoder, **{"images": noise(), **arguments})
    assert "\n" not in str(caught.value)


def test_modules_without_a_map() -> None:
    encoder = small_encoder(TokenMean(), "tokens")
    images = noise(2, 32, 32)
    found = qf.heatmaps(encoder, images, [1])  # its tokens are pixels, in rows
    assert (found.layer, found.maps.shape) == ("out", (2, 32, 32))
    flat = small_encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8)), "flat")
    with pytest.raises(qf.QScoreError, match="flat has no layer whose output is a map"):
        qf.heatmaps(flat, images, [1])
    with pytest.raises(qf.QScoreError, match="none of its layers has one"):
        qf.heatmaps(flat, images, [1], layer="1")
    with pytest.raises(qf.QScoreError, match="its heat maps need gradients"):
        qf.heatmaps(flat, images, [1], method="exact")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_that_the_representation_does_not_depend_on(frozen: bool) -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)

        def forward(self, images: Tensor) -> Tensor:
            self.aside(images)
            return self.used(images).square().mean((2, 3))

    encoder = small_encoder(Aside().requires_grad_(not frozen), "aside")
    assert qf.heatmaps(encoder, noise(2, 32, 32), [1]).layer == "used"
    with pytest.raises(
        qf.QScoreError, match="does not depend on layer 'aside': .* are aside, used"
    ):
        qf.heatmaps(encoder, noise(2, 32, 32), [1], layer="aside")


@pytest.mark.parametrize(
    ("shape", "size", "patch", "expected"),
    [
        ((2, 512, 7, 7), (224, 224), None, (2, 512, 7, 7)),
        ((2, 7, 7, 768), (224, 224), None, (2, 768, 7, 7)),
        ((2, 7, 7, 7), (224, 224), None, (2, 7, 7, 7)),
        ((2, 7, 14, 96), (224, 448), None, (2, 96, 7, 14)),
        ((2, 64, 8, 6), (230, 170), None, (2, 64, 8, 6)),
        ((2, 12, 197, 64), (224, 224), None, None),
        ((2, 197, 384), (224, 224), (16, 16), (2, 384, 14, 14)),
        ((2, 201, 384), (224, 224), (16, 16), (2, 384, 14, 14)),
        ((2, 1374, 384), (518, 518), (14, 14), (2, 384, 37, 37)),
        ((2, 197, 384), (224, 224), None, (2, 384, 14, 14)),
        ((2, 25, 8), (32, 48), (8, 8), (2, 8, 4, 6)),
        ((2, 25, 8), (32, 48), None, (2, 8, 4, 6)),
        ((2, 10, 384), (224, 224), (16, 16), (2, 384, 3, 3)),
        ((2, 512), (224, 224), None, None),
        ((2, 3, 500, 500), (224, 224), None, None),
    ],
)
def test_how_activations_are_read(
    shape: tuple[int, ...],
    size: tuple[int, int],
    patch: tuple[int, int] | None,
    expected: tuple[int, ...] | None,
) -> None:
    activations = torch.arange(int(np.prod(shape))).view(shape).float()
    view = spatial_view(activations, size, patch)
    assert (None if view is None else tuple(view.shape)) == expected
    if (
        view is not None
    ):  # the last position in memory is the last of the map, whatever stands before
        last = (
            activations[-1, :, -1, -1]
            if view.shape == shape
            else activations[(-1,) * (len(shape) - 1)]
        )
        assert torch.equal(view[-1, :, -1, -1], last)


def test_tokens_without_a_patch_size_take_the_images_shape() -> None:
    assert token_grid(50, (224, 224), None) == (7, 7)
    assert token_grid(1 + 7 * 14, (112, 224), None) == (7, 14)
    assert token_grid(3, (500, 20), None) is None or token_grid(3, (500, 20), None)[1] == 1


def test_upsampled_maps_keep_their_place(encoder: Encoder) -> None:
    found = qf.heatmaps(encoder, noise(2, 96, 64), [0, 1], None)
    assert found.upsampled().shape == (2, 2, 96, 64)
    assert found.upsampled(10).shape == (2, 2, 10, 10)
    spot = torch.zeros(1, 3, 4)
    spot[0, 2, 1] = 1
    large = upsample(spot, (30, 40))[0]
    assert divmod(int(large.argmax()), 40)[0] in range(20, 30)
    assert divmod(int(large.argmax()), 40)[1] in range(10, 20)
    assert torch.equal(upsample(torch.full((1, 2, 2), 3.0), (8, 8)), torch.full((1, 8, 8), 3.0))
