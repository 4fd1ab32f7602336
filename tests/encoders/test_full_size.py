"""ResNet-50 and ViT-S/16 of the published size on real photographs, from file to features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from published import ROWS
from sklearn.datasets import load_sample_images
from torchvision import transforms as T

from qscore_fast.encoders import load_encoder

MEAN = (0.485, 0.456, 0.406)
SWAV_STD, IMAGENET_STD = (0.228, 0.224, 0.225), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("row_id", "architecture", "width", "interpolation", "std"),
    [
        ("swav-official", "ResNet-50", 2048, T.InterpolationMode.BILINEAR, SWAV_STD),
        ("dino-vit-s16-official", "ViT-S/16", 384, T.InterpolationMode.BICUBIC, IMAGENET_STD),
    ],
)
def test_photographs(
    tmp_path: Path,
    row_id: str,
    architecture: str,
    width: int,
    interpolation: T.InterpolationMode,
    std: tuple[float, ...],
) -> None:
    (row,) = (row for row in ROWS if row.id == row_id)
    published = row.write(tmp_path, full=True)
    encoder = load_encoder(published.path, device="cpu")
    assert encoder.architecture.startswith(architecture)
    assert encoder.num_features == width

    official = T.Compose(
        [T.Resize(256, interpolation), T.CenterCrop(224), T.ToTensor(), T.Normalize(MEAN, std)]
    )
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    images = torch.stack([official(photograph) for photograph in photographs])
    assert torch.equal(torch.stack([encoder.preprocess(p) for p in photographs]), images)

    h, expected = encoder(images), published.features(images)
    scale = float(expected.abs().max())
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5 * scale)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2 * scale
