"""Checkpoints that users saved themselves: other entries, other prefixes, other containers, other types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published import ROWS, Published
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

from qscore_fast.encoders import inspect_checkpoint, load_encoder
from qscore_fast.errors import EncoderError

State = dict[str, Tensor]


def written(row_id: str, folder: Path) -> tuple[Published, State]:
    """A published file and its state dict."""
    (row,) = (row for row in ROWS if row.id == row_id)
    published = row.write(folder)
    content = torch.load(published.path, map_location="cpu", weights_only=True)
    return published, content.get("state_dict", content)


def renamed(state: State, change: Callable[[str], str]) -> State:
    return {change(name): tensor for name, tensor in state.items()}


def bare() -> State:
    torch.manual_seed(0)
    return {k: v for k, v in resnet18().state_dict().items() if not k.startswith("fc.")}


WAYS: dict[str, Callable[[State], object]] = {
    "flat": lambda state: state,
    "no module": lambda state: renamed(state, lambda name: name.removeprefix("module.")),
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3},
    "another entry": lambda state: {"network": state, "optimizer": {"state": {0: torch.ones(2)}}},
    "nested": lambda state: {"checkpoint": {"state_dict": state}},
    "compiled": lambda state: {"state_dict": renamed(state, lambda name: f"_orig_mod.{name}")},
    "compiled within DDP": lambda state: renamed(
        state, lambda name: name.replace("module.", "module._orig_mod.")
    ),
    "Lightning": lambda state: {"state_dict": renamed(state, lambda name: f"model.{name}")},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "row_id", ["moco-v2-official", "simsiam-official", "moco-v3-vit-s-official"]
)
def test_a_checkpoint_that_was_saved_again_is_still_the_same(
    row_id: str, way: str, tmp_path: Path
) -> None:
    published, state = written(row_id, tmp_path)
    path = tmp_path / "again.pth"
    torch.save(WAYS[way](state), path)
    original = load_encoder(published.path, device="cpu")
    again = load_encoder(path, device="cpu")
    assert (again.system, again.fingerprint) == (original.system, original.fingerprint)
    assert again.training_state is not None
    assert original.training_state is not None
    assert again.training_state.parts == original.training_state.parts


def test_safetensors_of_a_state_dict(tmp_path: Path) -> None:
    published, state = written("moco-v2-official", tmp_path)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "moco.safetensors")
    again = load_encoder(tmp_path / "moco.safetensors", device="cpu")
    assert again.system == "moco_v2"
    assert again.fingerprint == load_encoder(published.path, device="cpu").fingerprint


def test_safetensors_of_tensors_that_only_their_order_tells_apart(tmp_path: Path) -> None:
    (row,) = (row for row in ROWS if row.id == "simclr-v2-sk0-converted")
    content = torch.load(row.write(tmp_path).path, map_location="cpu", weights_only=True)
    torch.save(content["resnet"], tmp_path / "resnet.pth")
    assert load_encoder(tmp_path / "resnet.pth", device="cpu").system == "simclr"
    save_file({k: v.contiguous() for k, v in content["resnet"].items()}, tmp_path / "r.safetensors")
    with pytest.raises(EncoderError, match=r"safetensors does not keep: load the \.pth"):
        load_encoder(tmp_path / "r.safetensors", device="cpu")


@pytest.mark.parametrize(
    "prefix",
    ["backbone.", "encoder.", "module.", "module.encoder_q.", "model._orig_mod.", "trunk."],
)
def test_a_backbone_under_any_prefix(prefix: str, tmp_path: Path) -> None:
    state = bare()
    for name, content in (("plain.pth", state), ("it.pth", renamed(state, lambda n: prefix + n))):
        torch.save(content, tmp_path / name)
    plain, found = (load_encoder(tmp_path / name, device="cpu") for name in ("plain.pth", "it.pth"))
    assert found.system is None
    assert found.fingerprint == plain.fingerprint
    said = any("all names begin with" in note for note in found.notes)
    assert said == (prefix not in ("backbone.", "module."))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    published, state = written("moco-v2-official", tmp_path)
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"state_dict": cast}, tmp_path / "cast.pth")
    encoder = load_encoder(tmp_path / "cast.pth", device="cpu")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    h = encoder(images)
    assert h.dtype == torch.float32
    expected = published.features(images)
    assert float((h - expected).norm() / expected.norm()) < (
        1e-5 if dtype == torch.float64 else 0.05
    )
    assert encoder.training_state is not None
    z = encoder.training_state.head("projector").eval()(h.clone())
    assert z.dtype == torch.float32


def test_a_second_state_dict_is_not_lost_in_silence(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": bare(), "state_dict_ema": bare(), "arch": "resnet18"}, tmp_path / "x.pth"
    )
    ignored = inspect_checkpoint(tmp_path / "x.pth").ignored
    assert ignored["tensors beside those that were taken"] == ["state_dict_ema"]
    torch.save({"net": bare(), "net_ema": bare()}, tmp_path / "y.pth")
    with pytest.raises(
        EncoderError, match=r"net, net_ema.*torch\.save\(checkpoint\['net'\], FILE\)"
    ):
        load_encoder(tmp_path / "y.pth", device="cpu")


def test_a_linear_evaluation_asks_which_system_it_was(tmp_path: Path) -> None:
    state = renamed(resnet18().state_dict(), lambda name: f"module.{name}")
    torch.save({"state_dict": state, "arch": "resnet18"}, tmp_path / "lincls.pth.tar")
    with pytest.raises(EncoderError, match=r"nothing in the file tells which.*--system"):
        load_encoder(tmp_path / "lincls.pth.tar", device="cpu")
    for system in ("moco", "moco_v2", "supervised"):
        encoder = load_encoder(tmp_path / "lincls.pth.tar", system, device="cpu")
        assert encoder.system == (None if system == "moco" else system)
        assert encoder.architecture == "ResNet-18"
    assert "SAME" in load_encoder(tmp_path / "lincls.pth.tar", "byol", device="cpu").architecture
