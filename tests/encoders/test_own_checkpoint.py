"""Checkpoints of this project's own kind: what is written comes back, and nothing else gets in."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_data import checkpoint_content, save_checkpoint, small_module

from qscore_fast.encoders import inspect_checkpoint, load_encoder
from qscore_fast.errors import EncoderError, SettingsError


def save(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = checkpoint_content()
    change(content)
    torch.save(content, tmp_path / "encoder.pth")
    return tmp_path / "encoder.pth"


def test_features_are_those_of_the_module(checkpoint: Path) -> None:
    encoder = load_encoder(checkpoint, device="cpu")
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(encoder(images), small_module()(images))
    assert (encoder.system, encoder.num_features) == ("simclr", 256)
    assert encoder.preprocess.to_json() == checkpoint_content()["preprocess"]


def test_float32_and_float16_files_hold_the_same_encoder(tmp_path: Path, checkpoint: Path) -> None:
    path = save(tmp_path, lambda c: c.update(state_dict=small_module().state_dict()))
    whole, half = load_encoder(path, device="cpu"), load_encoder(checkpoint, device="cpu")
    assert whole.fingerprint == half.fingerprint


def test_another_system_is_refused(checkpoint: Path) -> None:
    assert load_encoder(checkpoint, "simclr", device="cpu").system == "simclr"
    with pytest.raises(EncoderError, match="simclr, not with byol"):
        load_encoder(checkpoint, "byol", device="cpu")


def rename_key(content: dict[str, Any]) -> None:
    state = content["state_dict"]
    state["stem.0.kernel"] = state.pop("stem.0.weight")


def set_weight(value: torch.Tensor) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["state_dict"].update({"stem.0.weight": value})


def set_argument(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        arguments = {**content["architecture"]["arguments"], key: value}
        content["architecture"] = {"name": "small_resnet", "arguments": arguments}

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(format="lightning"), "its layout is not known"),
        (lambda c: c.update(format_version=2), "format_version is 2"),
        (lambda c: c.update(architecture={"name": "alexnet"}), "unknown architecture 'alexnet'"),
        (lambda c: c.update(architecture=[1]), "architecture must be a mapping"),
        (lambda c: c.update(architecture={"name": "small_resnet"}), "arguments of small_resnet"),
        (lambda c: c.update(num_features=2048), "num_features is 2048.* has 256"),
        (lambda c: c.update(system=3), "system must be a name"),
        (lambda c: c.update(preprocess={"mode": "L"}), "needs the fields"),
        (lambda c: c.update(state_dict=[1]), "state_dict must map"),
        (lambda c: c.pop("state_dict"), "state_dict must map"),
        (rename_key, "missing stem.0.weight; not known stem.0.kernel"),
        (set_weight(torch.zeros(8, 1, 5, 5)), r"stem.0.weight is torch.float32 \(8, 1, 5, 5\)"),
        (set_weight(torch.zeros(8, 1, 3, 3).long()), "stem.0.weight is torch.int64"),
        (set_weight(torch.full((8, 1, 3, 3), torch.nan)), "stem.0.weight holds NaN"),
        (set_argument("planes", [8, 10**9]), "planes of small_resnet .* 4096"),
        (set_argument("blocks", [1] * 1000), "at most 8"),
        (set_argument("blocks", [1]), "same stages"),
        (set_argument("stem_stride", -1), "stem_stride"),
        (set_argument("stem_channels", "8"), "stem_channels"),
        (set_argument("weights", 1), "no argument 'weights'"),
    ],
)
def test_malformed_checkpoints(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    path = save(tmp_path, change)
    with pytest.raises(EncoderError, match=reason) as raised:
        load_encoder(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def without_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "no checkpoint")


def of_a_list(path: Path) -> None:
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_text("weights"), "not a checkpoint"),
        (truncated, "the file is damaged"),
        (without_pickle, "not one that torch.save writes"),
        (of_a_list, "it holds a list"),
        (lambda path: (path.unlink(), path.mkdir()), "it is a folder"),
    ],
)
def test_files_that_are_no_checkpoints(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    path = save_checkpoint(tmp_path / "encoder.pth")
    spoil(path)
    with pytest.raises(EncoderError, match=reason):
        load_encoder(path)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_hostile_checkpoint_is_not_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = tmp_path / "hostile.pth"
    torch.save({**checkpoint_content(), "training": Hostile(mark)}, path)
    with pytest.raises(EncoderError, match="refused, nothing was executed"):
        load_encoder(path)
    assert not mark.exists()

    # The attack is real: a plain load does execute it.
    torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert mark.exists()

    mark.unlink()
    path.write_bytes(pickle.dumps(Hostile(mark)))  # not even a torch archive
    with pytest.raises(EncoderError, match="refused, nothing was executed"):
        load_encoder(path)
    assert not mark.exists()


def test_inspecting_contradicts_where_loading_does(checkpoint: Path) -> None:
    assert inspect_checkpoint(checkpoint, "simclr").system == "simclr"
    with pytest.raises(EncoderError, match="simclr, not with byol"):
        inspect_checkpoint(checkpoint, "byol")
    with pytest.raises(SettingsError, match="tower=ema is for published checkpoints"):
        inspect_checkpoint(checkpoint, tower="ema")
