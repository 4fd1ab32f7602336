"""Damaged files of every kind give a Container or one EncoderError, and nothing else."""

from __future__ import annotations

import argparse
import io
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tensorflow_bundle import write_bundle

from qscore_fast.encoders.containers import Container, read_container
from qscore_fast.errors import EncoderError

EXAMPLES = 500


def _content() -> dict[str, object]:
    return {
        "state_dict": {"a.weight": torch.arange(6.0).view(2, 3), "a.n": torch.tensor(3)},
        "args": argparse.Namespace(lr=0.1, names=["x", None], nested={"k": (1, 2.5)}),
        "array": np.arange(4, dtype="f4"),
    }


def _torch(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(_content(), buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _pickle(protocol: int) -> bytes:
    return pickle.dumps({"a": np.arange(5.0), "b": [argparse.Namespace(c={1, 2})]}, protocol)


FILES: dict[str, Callable[[], bytes]] = {
    "torch zip": lambda: _torch(True),
    "torch legacy": lambda: _torch(False),
    "pickle 0": lambda: _pickle(0),
    "pickle 2": lambda: _pickle(2),
    "pickle 5": lambda: _pickle(5),
    "safetensors": lambda: save({"a": torch.ones(3), "b": torch.zeros(2, 2)}),
}


def _damaged(raw: bytes, generator: random.Random) -> bytes:
    data = bytearray(raw)
    kind = generator.randrange(4)
    if kind == 0:
        return bytes(data[: generator.randrange(len(data))])
    for _ in range(generator.choice([1, 1, 1, 3, 10])):
        position = generator.randrange(len(data))
        if kind == 1:
            data[position] ^= 1 << generator.randrange(8)
        elif kind == 2:
            data[position] = generator.choice(b"\0\x01\x7f\x80\xff().N0RbQ\x93\x81]}")
        else:
            start = generator.randrange(len(data))
            data[position:position] = data[start : start + generator.randrange(1, 20)]
    return bytes(data)


def _outcome(path: Path) -> bool:
    """Whether the file was read; anything but a Container or an EncoderError is let through."""
    try:
        assert isinstance(read_container(path), Container)
    except EncoderError:
        return False
    return True


@pytest.mark.parametrize("kind", FILES)
def test_fuzz(kind: str, tmp_path: Path) -> None:
    raw = FILES[kind]()
    path = tmp_path / ("file" if kind != "safetensors" else "file.safetensors")
    path.write_bytes(raw)
    assert _outcome(path)
    generator = random.Random(kind)
    outcomes = set()
    for _ in range(EXAMPLES):
        path.write_bytes(_damaged(raw, generator))
        outcomes.add(_outcome(path))
    assert outcomes == {False, True}


def test_fuzz_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the checksums of the index switched off, so that the damage gets past them."""
    write_bundle(tmp_path / "m", {f"a/{i}": np.arange(i, dtype="f4") for i in range(40)}, shards=2)
    assert _outcome(tmp_path / "m")
    index = tmp_path / "m.index"
    raw = index.read_bytes()
    generator = random.Random(0)
    monkeypatch.setattr("qscore_fast.encoders.containers.sstable.masked_crc32c", _Equal)
    outcomes = set()
    for _ in range(EXAMPLES):
        index.write_bytes(_damaged(raw[:-48], generator) + raw[-48:])
        outcomes.add(_outcome(tmp_path / "m"))
    assert outcomes == {False, True}


class _Equal:
    """A checksum that fits whatever is stored."""

    def __init__(self, _data: bytes) -> None:
        pass

    def __ne__(self, other: object) -> bool:
        return False
