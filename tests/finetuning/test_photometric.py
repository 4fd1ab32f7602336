"""Photometric operations against torchvision's, one image at a time and for a batch at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from qscore_fast.finetuning import photometric


def pictures(channels: int = 3, side: int = 40) -> Tensor:
    """Smooth, noisy and flat images, with black, white, greys and ties between channels among them."""
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(2, channels, 5, 5), (side, side + 6))
    noisy = (torch.rand(2, channels, side, side + 6) * 6).round() / 6
    flat = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, channels, side, side + 6)
    return torch.cat([smooth, noisy, flat])


OPERATIONS = {
    "brightness": (F.adjust_brightness, [0.0, 0.2, 1.0, 1.8, 0.9, 1.4, 0.7]),
    "contrast": (F.adjust_contrast, [0.0, 0.2, 1.0, 1.8, 0.9, 1.4, 0.7]),
    "saturation": (F.adjust_saturation, [0.0, 0.2, 1.0, 1.8, 0.9, 1.4, 0.7]),
    "hue": (F.adjust_hue, [-0.5, -0.2, 0.0, 0.1, 0.33, 0.5, 0.05]),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_equals_torchvisions(name: str, channels: int) -> None:
    images = pictures(channels)
    theirs, factors = OPERATIONS[name]
    ours = getattr(photometric, name)
    expected = torch.stack([theirs(i, f) for i, f in zip(images, factors, strict=True)])
    alone = torch.stack([ours(i, f) for i, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(alone, expected, rtol=0, atol=2e-6)
    together = ours(images, torch.tensor(factors).view(-1, 1, 1, 1))
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [12, 28, 40, 96])
def test_blur_equals_torchvisions(side: int) -> None:
    images = pictures(3, side)[:4]
    sigmas = [0.1, 0.5, 1.3, 2.0]
    kernel = 2 * photometric.blur_radius(side) + 1
    expected = [
        F.gaussian_blur(i, [kernel, kernel], [s, s]) for i, s in zip(images, sigmas, strict=True)
    ]
    alone = [photometric.blur(i, s) for i, s in zip(images, sigmas, strict=True)]
    torch.testing.assert_close(torch.stack(alone), torch.stack(expected), rtol=0, atol=2e-6)
    together = photometric.blur(images, torch.tensor(sigmas).view(-1, 1, 1, 1))
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=2e-6)


def test_the_blurs_kernel_is_the_official_one_at_224_pixels() -> None:
    """SimCLR and BYOL: a tenth of the side, made odd: 23 pixels; the least that blurs is 3."""
    sides = {224: 23, 96: 9, 28: 3, 12: 3}
    assert {side: 2 * photometric.blur_radius(side) + 1 for side in sides} == sides


def test_grey_and_solarised_equal_torchvisions() -> None:
    images = pictures()
    torch.testing.assert_close(
        photometric.gray(images), F.rgb_to_grayscale(images, 3), rtol=0, atol=1e-6
    )
    assert torch.equal(photometric.gray(pictures(1)), pictures(1))
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 16, 256)
    ours = photometric.solarize(pixels / 255)
    assert torch.equal((ours * 255).round().byte(), F.solarize(pixels, 128))


def test_tensorflows_contrast_and_byols_brightness() -> None:
    """The mean of each channel stays where nothing is clipped; a shift is the same for all pixels."""
    images = 0.4 + 0.2 * pictures()
    found = photometric.channel_contrast(images, 1.5)
    mean = images.double().mean((2, 3), keepdim=True)
    torch.testing.assert_close(found.double(), mean + 1.5 * (images - mean), rtol=0, atol=1e-6)
    torch.testing.assert_close(photometric.add(images, -0.3), images - 0.3)
    assert photometric.add(images, 0.9).max() == 1
