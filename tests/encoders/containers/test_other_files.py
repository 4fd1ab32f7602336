"""What is no checkpoint at all, and safetensors files."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qscore_fast.encoders.containers import read_container
from qscore_fast.errors import EncoderError


def _tar(names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def _checkpoint(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(50.0)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "a web page": (lambda: b"\n <!DOCTYPE html><html><title>404</title>", "web page"),
    "an error in XML": (lambda: b"<?xml version='1.0'?><Error/>", "web page"),
    "a Git LFS pointer": (
        lambda: b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 9\n",
        "Git LFS pointer, not the file",
    ),
    "gzip": (lambda: gzip.compress(_checkpoint(True)), "gzip: unpack"),
    "a tar with a checkpoint": (lambda: _tar(["model.pth"]), "tar archive with model.pth inside"),
    "a tar of torch 0.1": (
        lambda: _tar(["sys_info", "pickle", "storages", "tensors"]),
        "torch 0.1",
    ),
    "a damaged tar": (lambda: _tar(["model.pth"])[:300], "damaged tar"),
    "text": (lambda: b"Hello, this is no checkpoint.", "known kind"),
    "a list in JSON": (lambda: b"[1, 2]", "known kind"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "zeros": (lambda: bytes(4096), "known kind"),
    "half a zip file": (lambda: _checkpoint(True)[:700], "damaged"),
    "half a pickle stream": (lambda: _checkpoint(False)[:200], "truncated"),
    "most of a pickle stream": (lambda: _checkpoint(False)[:-4], "truncated"),
    "a pickle with no end": (lambda: pickle.dumps([1, 2, 3])[:-1], "truncated"),
    "an empty zip file": (lambda: b"PK\x05\x06" + bytes(18), "empty zip"),
}


@pytest.mark.parametrize("case", FILES)
def test_other_files(case: str, tmp_path: Path) -> None:
    made, message = FILES[case]
    path = tmp_path / "model.pth"
    path.write_bytes(made())
    with pytest.raises(EncoderError, match=message) as caught:
        read_container(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="No such file"):
        read_container(tmp_path / "missing.pth")
    with pytest.raises(EncoderError, match="folder without a TensorFlow checkpoint"):
        read_container(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EncoderError, match="not a regular file"):
        read_container(tmp_path / "pipe")


def test_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.arange(5, dtype=torch.int64),
        "c": torch.randn(2).bfloat16(),
        "empty": torch.empty(0, 2),
    }
    for name in ("model.safetensors", "model.bin"):
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
        container = read_container(tmp_path / name)
        assert container.format == "safetensors" and container.metadata == {"format": "pt"}
        assert container.content.keys() == tensors.keys()
        assert all(torch.equal(container.content[key], tensors[key]) for key in tensors)


def _header(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    raw = json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


@pytest.mark.parametrize(
    "content",
    [
        _header({}, length=2**63),
        _header({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 16]}}),
        _header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]}}),
        _header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}),
        _header({"a": {"dtype": "X1", "shape": [4], "data_offsets": [0, 16]}}),
        _header({k: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for k in "ab"}),
        _header({"a": 1}),
        _header([]),
        b"\x10",
    ],
)
def test_damaged_safetensors(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EncoderError, match="safetensors"):
        read_container(tmp_path / "model.safetensors")
