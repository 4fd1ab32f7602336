"""Encoders by name and from modules, against the module called by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from hostile_images import photo
from torch import nn
from torchvision import transforms as T

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import EncoderError, MissingExtraError, QScoreError
from qscore_fast.images import IMAGENET, Preprocess


class Mean(nn.Module):
    """Three features: the channels' means, after dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(images.mean((2, 3)) * self.scale)


def by_hand(name: str, preset: T.Compose, module: nn.Module) -> None:
    encoder = load_encoder(name, pretrained=False, device="cpu")
    image = photo(300, 260)
    with torch.no_grad():
        expected = module.eval()(preset(image)[None])
    torch.testing.assert_close(encoder(encoder.preprocess(image)[None]), expected)
    assert encoder.num_features == expected.shape[1]
    assert encoder.name == name


def test_torchvision_resnet18() -> None:
    torch.manual_seed(0)
    module = torchvision.models.resnet18(weights=None)
    module.fc = nn.Identity()
    preset = T.Compose(
        [T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(IMAGENET.mean, IMAGENET.std)]
    )
    by_hand("torchvision:resnet18", preset, module)


def test_timm_resnet18() -> None:
    torch.manual_seed(0)
    module = timm.create_model("resnet18", pretrained=False, num_classes=0)
    preset = timm.data.create_transform(**timm.data.resolve_model_data_config(module))
    by_hand("timm:resnet18", preset, module)


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("torchvision:squeezenet1_1", "classifier.1"),
        ("torchvision:mobilenet_v3_small", "classifier.3"),
        ("torchvision:shufflenet_v2_x0_5", "fc"),
    ],
)
def test_the_last_layer_of_the_head_is_removed(name: str, removed: str) -> None:
    encoder = load_encoder(name, pretrained=False, device="cpu")
    torch.manual_seed(0)
    module = torchvision.models.get_model(name.partition(":")[2], weights=None).eval()
    kept = {}
    module.get_submodule(removed).register_forward_pre_hook(
        lambda _, inputs: kept.update(input=inputs[0])
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        module(images)
    expected = kept["input"]
    if expected.ndim == 4:  # SqueezeNet's classifier: then a ReLU and the mean over the map
        expected = expected.relu().mean((2, 3))
    torch.testing.assert_close(encoder(images), expected)


def test_random_weights_are_always_the_same_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_encoder("torchvision:shufflenet_v2_x0_5", pretrained=False, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = load_encoder("torchvision:shufflenet_v2_x0_5", pretrained=False, device="cpu")
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("timm:resnet18x", "no model 'resnet18x'; did you mean resnet18"),
        ("timm:resnet18.nonsense", "no weights 'nonsense' for resnet18; it has .*a1_in1k"),
        ("torchvision:resnet81", "no classification model 'resnet81'; did you mean resnet18"),
        ("resnet18", "timm:resnet18"),
        ("no/such/file.pth", "there is no checkpoint"),
        ("timm:", "no checkpoint"),
    ],
)
def test_unknown_names_come_with_candidates(spec: str, reason: str) -> None:
    with pytest.raises(EncoderError, match=reason):
        load_encoder(spec)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Name or service not known\nmore")

    monkeypatch.setattr("timm.create_model", no_network)
    monkeypatch.setattr("torchvision.models.get_model", no_network)
    with pytest.raises(EncoderError, match=r"service not known .*pretrained=False \(--no-pre"):
        load_encoder(f"{library}:resnet18")


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r'pip install "qscore-fast\[timm\]"') as raised:
        load_encoder("timm:resnet18")
    assert isinstance(raised.value, QScoreError)
    assert isinstance(raised.value, ImportError)


def test_a_module_is_called_in_evaluation_mode_and_handed_back_as_it_was() -> None:
    module = Mean()
    module.train()
    module.dropout.eval()
    module.dropout.train()
    encoder = load_encoder(module)
    assert (encoder.num_features, encoder.preprocess) == (3, IMAGENET)
    images = torch.rand(4, 3, 8, 8)
    h = encoder(images)
    assert torch.equal(h, images.mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0]))
    assert not h.requires_grad
    assert module.training
    assert module.dropout.training

    module.dropout.eval()
    encoder(images)
    assert module.training
    assert not module.dropout.training


def test_fingerprint_follows_weights_and_architecture() -> None:
    one, same = load_encoder(Mean()), load_encoder(Mean())
    assert one.fingerprint == same.fingerprint
    assert len(one.fingerprint) == 64
    changed = Mean()
    with torch.no_grad():
        changed.scale[2] = 3.0000002
    assert load_encoder(changed).fingerprint != one.fingerprint
    other = Mean()
    other.dropout.p = 0.5
    assert load_encoder(other).fingerprint != one.fingerprint
    wider = Mean().to(torch.bfloat16)
    small = Preprocess(resize=8, crop=8)
    assert load_encoder(nn.Sequential(wider), preprocess=small).fingerprint != one.fingerprint


class Returns(nn.Module):
    """A module that returns what it is told to."""

    def __init__(self, make: object) -> None:
        super().__init__()
        self.make = make

    def forward(self, images: torch.Tensor) -> object:
        return self.make(images)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda x: (x.mean((2, 3)),), "returns a tuple"),
        (lambda x: x, r"shape \(1, 3, 224, 224\)"),
        (lambda x: x.mean((2, 3)).long(), "torch.int64"),
        (lambda x: x.mean((0, 2, 3)), r"shape \(3,\)"),
        (lambda x: x @ torch.ones(3, 3), "fails on one image"),
    ],
)
def test_modules_that_do_not_return_one_vector_an_image(make: object, reason: str) -> None:
    with pytest.raises(EncoderError, match=reason):
        load_encoder(Returns(make))


def test_maps_of_one_pixel_are_flattened() -> None:
    encoder = load_encoder(Returns(lambda x: x.mean((2, 3), keepdim=True)))
    assert encoder(torch.ones(2, 3, 4, 4)).tolist() == [[1.0, 1.0, 1.0]] * 2


def test_an_unknown_device(checkpoint: Path) -> None:
    with pytest.raises(EncoderError, match="cannot move .* to device nonsense"):
        load_encoder(checkpoint, device="nonsense")


def test_the_bundled_encoder() -> None:
    encoder = load_encoder("demo", device="cpu")
    assert isinstance(encoder, Encoder)
    assert encoder.preprocess.channels == 1
    h = encoder(torch.randn(3, 1, 28, 28))
    assert h.shape == (3, encoder.num_features)
    assert encoder.num_features >= 512
    assert h.min() == 0  # ReLU features


@pytest.mark.parametrize("inside", [torch.float32, torch.bfloat16])
def test_images_of_any_floating_point_type_are_taken(inside: torch.dtype) -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).to(inside)
    encoder = load_encoder(module)
    images = torch.rand(4, 3, 8, 8)
    expected = encoder(images)
    assert expected.dtype == inside
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.testing.assert_close(encoder(images.to(dtype)), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_batch_of_normalised_images(images: torch.Tensor) -> None:
    with pytest.raises(
        EncoderError, match=r"takes normalised images \(B, C.*encoder.preprocess makes"
    ):
        load_encoder(Mean())(images)
