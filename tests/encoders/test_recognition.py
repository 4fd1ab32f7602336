"""What is not a published checkpoint, or not the one that the user says, is refused in words."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import ROWS, Published
from torch import Tensor

from qscore_fast.encoders import load_encoder
from qscore_fast.encoders.inspection import inspect_checkpoint
from qscore_fast.errors import EncoderError, SettingsError

State = dict[str, Tensor]


def written(row_id: str, folder: Path) -> Published:
    (row,) = (row for row in ROWS if row.id == row_id)
    return row.write(folder)


def changed(
    folder: Path, change: Callable[[State], object], row_id: str = "moco-v2-official"
) -> Path:
    """A published file after ``change`` of its state dict."""
    content = torch.load(written(row_id, folder).path, map_location="cpu", weights_only=True)
    change(content["state_dict"])
    torch.save(content, folder / "changed.pth.tar")
    return folder / "changed.pth.tar"


def first(name: str) -> str:
    return f"module.encoder_q.{name}"


def with_tensor(name: str, value: Tensor) -> Callable[[State], object]:
    return lambda state: state.update({name: value})


def widened(state: State) -> None:
    state[first("conv1.weight")] = torch.cat([state[first("conv1.weight")]] * 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_tensor(first("layer3.0.conv2.weight"), torch.full((32, 32, 3, 3), torch.nan)), "NaN or"),
        (with_tensor(first("bn1.running_var"), torch.full((8,), torch.inf)), "NaN or infinite"),
        (lambda s: s.pop(first("layer2.0.bn1.weight")), r"missing layer2.0.bn1.weight"),
        (lambda s: s.pop("module.queue"), "moco-v2 .*misses .*queue"),
        (with_tensor(first("layer9.0.weight"), torch.zeros(1)), r"does not expect .*q.layer9.0.weight"),
        (with_tensor("module.encoder_x.conv1.weight", torch.zeros(1)), r"does not expect module.encoder_x"),
        (with_tensor(first("layer4.0.conv2.weight"), torch.zeros(64, 64, 5, 5)), r"layer4.0.conv2.weight"),
        (with_tensor(first("conv1.weight"), torch.zeros(8, 3, 7, 7).long()), "conv1.weight is torch.int64"),
        (widened, "do not fit"),
        (lambda s: s.clear(), "no tensors"),
    ],
)  # fmt: skip
def test_spoilt_files(tmp_path: Path, change: Callable[[State], object], reason: str) -> None:
    with pytest.raises(EncoderError, match=reason) as raised:
        load_encoder(changed(tmp_path, change), device="cpu")
    assert "\n" not in str(raised.value)


def test_the_other_tower_may_be_broken(tmp_path: Path) -> None:
    def change(state: State) -> None:
        state["module.encoder_k.bn1.bias"][0] = torch.nan

    path = changed(tmp_path, change)
    load_encoder(path, device="cpu")
    with pytest.raises(EncoderError, match="bn1.bias holds NaN"):
        load_encoder(path, tower="ema", device="cpu")


def test_a_contradiction_is_an_error_and_names_both(tmp_path: Path) -> None:
    path = written("moco-v2-official", tmp_path).path
    with pytest.raises(EncoderError, match=r"moco_v2 \(facebookresearch/moco\), not of simsiam"):
        load_encoder(path, "simsiam", device="cpu")
    assert load_encoder(path, "moco", device="cpu").system == "moco_v2"
    assert load_encoder(path, "MoCo-v2", device="cpu").system == "moco_v2"
    with pytest.raises(EncoderError, match="no system 'mocov4'; did you mean moco"):
        load_encoder(path, "mocov4", device="cpu")


def plain_resnet(with_classifier: bool) -> OrderedDict[str, Tensor]:
    """A ResNet that torchvision could have saved."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    state = resnet18(weights=None).state_dict()
    if not with_classifier:
        del state["fc.weight"], state["fc.bias"]
    return state


def test_what_the_file_cannot_tell_and_matters_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(plain_resnet(with_classifier=True), path)
    with pytest.raises(EncoderError, match=r"byol or simclr or supervised.*--system"):
        load_encoder(path, device="cpu")
    images = torch.randn(1, 3, 64, 64)
    features = {
        system: load_encoder(path, system, device="cpu")(images)
        for system in ("supervised", "byol", "simclr")
    }
    assert float((features["byol"] - features["supervised"]).abs().max()) > 1e-3
    assert float((features["byol"] - features["simclr"]).abs().max()) > 1e-3
    assert load_encoder(path, "byol", device="cpu").preprocess.crop_fraction == 0.875


def test_what_the_file_cannot_tell_and_hardly_matters_is_said(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pth"
    torch.save(plain_resnet(with_classifier=False), path)
    said = inspect_checkpoint(path)
    assert said.system is None
    assert {"barlow_twins", "vicreg", "moco_v2"} <= set(said.fits)
    assert any("the file does not tell its system" in note for note in said.notes)
    assert inspect_checkpoint(path, "swav").preprocess["std"] == [0.228, 0.224, 0.225]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"tower": "teacher"}, "tower must be 'online' or 'ema', got 'teacher'"),
        ({"pool": "max"}, "pool must be 'cls' or 'patch_mean', got 'max'"),
        ({"pool": "cls"}, "pool=cls is for transformers"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    path = written("simsiam-official", tmp_path).path
    with pytest.raises((EncoderError, SettingsError), match=reason):
        load_encoder(path, device="cpu", **settings)
    with pytest.raises(SettingsError, match="is for published checkpoints|must be"):
        load_encoder("demo", device="cpu", **settings)


def test_pooling_of_a_transformer(tmp_path: Path) -> None:
    published = written("dino-vit-s16-official", tmp_path)
    images = torch.randn(2, 3, 224, 224)
    for pool in ("cls", "patch_mean"):
        h = load_encoder(published.path, pool=pool, device="cpu")(images)  # type: ignore[arg-type]
        expected = published.features(images, pool=pool)
        torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    said = inspect_checkpoint(published.path)
    assert any("two-sided" in note for note in said.notes)


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    said = inspect_checkpoint(written("vicreg-official-full", tmp_path).path)
    assert said.ignored["optimiser state"] == ["optimizer"]
    assert said.stubs == ("__main__.exclude_bias_and_norm",)
    assert any("optimizer" in line for line in said.lines())
    assert said.heads["online.projector"].endswith("with batch norm")


@pytest.mark.parametrize("name", ["demo", "timm:resnet18", "torchvision:resnet18"])
def test_what_is_no_file_cannot_be_inspected(name: str) -> None:
    with pytest.raises(EncoderError, match=f"{name} is no file to inspect"):
        inspect_checkpoint(name)
