"""TensorFlow checkpoints: one that TensorFlow wrote, and damaged ones of our own writer."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorflow_bundle import crc32c, write_bundle, write_checkpoint_state, write_table

from qscore_fast.encoders.containers import read_container
from qscore_fast.encoders.containers.tensorflow_checkpoint import _ordered
from qscore_fast.errors import EncoderError

DATA = Path(__file__).parent / "data"
EXPECTED = runpy.run_path(str(DATA / "expected.py"))


def test_a_checkpoint_of_tensorflows() -> None:
    container = read_container(DATA / "model.ckpt-7")
    assert container.format == "tensorflow" and container.path == DATA / "model.ckpt-7"
    assert container.content.keys() == EXPECTED["VARIABLES"].keys()
    for name, (dtype, shape) in EXPECTED["VARIABLES"].items():
        tensor = container.content[name]
        assert (str(tensor.dtype), tuple(tensor.shape)) == (f"torch.{dtype}", shape)
        assert np.array_equal(tensor.double().numpy(), EXPECTED["value"](name)), name


@pytest.mark.parametrize(
    "name", ["", "model.ckpt-7.index", "model.ckpt-7.data-00001-of-00003", "checkpoint/.."]
)
def test_the_ways_to_name_it(name: str) -> None:
    path = (DATA / name).resolve()
    assert read_container(path).path == DATA / "model.ckpt-7"


def _tensors(seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    names = [f"base_model/conv2d_{i}/kernel" for i in range(70)]
    return {
        name: generator.standard_normal((i % 3, 4)).astype("f4") for i, name in enumerate(names)
    }


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("block_entries", "restart_interval"), [(1, 1), (16, 4), (1000, 7)])
def test_round_trip(shards: int, block_entries: int, restart_interval: int, tmp_path: Path) -> None:
    tensors = {**_tensors(), "step": np.int64(-3), "h": np.float16([1, 2]), "b": np.array([True])}
    prefix = tmp_path / "model.ckpt-1"
    write_bundle(
        prefix,
        tensors,
        shards,
        block_entries=block_entries,
        restart_interval=restart_interval,
    )
    content = read_container(prefix).content
    assert list(content) == sorted(tensors)
    for name, array in tensors.items():
        assert content[name].numpy().dtype == array.dtype
        assert np.array_equal(content[name].numpy(), array)


def test_a_saved_model_and_a_hub_module(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    write_bundle(tmp_path / "variables" / "variables", {"a": np.ones(2, "f4")})
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        assert torch.equal(read_container(path).content["a"], torch.ones(2))


def test_a_folder_with_several(tmp_path: Path) -> None:
    for step in (1, 2):
        write_bundle(tmp_path / f"model.ckpt-{step}", {"a": np.full(2, step, "f4")})
    with pytest.raises(EncoderError, match=r"2 TensorFlow checkpoints.*model.ckpt-1"):
        read_container(tmp_path)
    write_checkpoint_state(tmp_path / "model.ckpt-2")
    assert read_container(tmp_path).path == tmp_path / "model.ckpt-2"
    assert read_container(tmp_path / "model.ckpt-1").content["a"][0] == 1


def test_a_missing_shard(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", _tensors(), shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    with pytest.raises(EncoderError, match="m.data-00001-of-00002 is missing"):
        read_container(tmp_path / "m")


def test_a_truncated_shard(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", _tensors())
    shard = tmp_path / "m.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(EncoderError, match="truncated|more than the file"):
        read_container(tmp_path / "m")


@pytest.mark.parametrize(
    ("options", "message"), [({"endianness": 1}, "big-endian"), ({"compression": 1}, "compressed")]
)
def test_what_is_not_read(options: dict[str, int], message: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", _tensors(), **options)
    with pytest.raises(EncoderError, match=message):
        read_container(tmp_path / "m")


def test_a_flipped_bit_in_the_index_is_noticed(tmp_path: Path) -> None:
    write_bundle(tmp_path / "m", _tensors())
    index = bytearray((tmp_path / "m.index").read_bytes())
    for position in range(0, len(index) - 48, 97):
        changed = bytearray(index)
        changed[position] ^= 4
        (tmp_path / "m.index").write_bytes(changed)
        with pytest.raises(EncoderError):
            read_container(tmp_path / "m")


def test_an_old_checkpoint_in_one_file(tmp_path: Path) -> None:
    write_table(tmp_path / "model.ckpt", [(b"", b"x"), (b"a", b"y")])
    with pytest.raises(EncoderError, match="old version V1"):
        read_container(tmp_path / "model.ckpt")


def _varints(*numbers: int) -> bytes:
    out = bytearray()
    for number in numbers:
        while number >= 0x80:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


@pytest.mark.parametrize(
    "entry",
    [
        _varints(8, 1, 40, 4),  # four bytes for a scalar, beyond the data
        _varints(8, 1, 24, 9, 40, 4),  # in a data file that does not exist
        _varints(8, 1, 32, 2**63, 40, 4),  # at an offset without end
        _varints(8, 99, 40, 4),  # of an unknown type
        _varints(8, 1, 18, 12, 18, 10, 8) + b"\xff" * 9 + b"\1",  # of the size -1
        _varints(8, 1, 40, 2**40),  # of a terabyte
        _varints(8, 1, 18, 200),  # a field beyond its message
        b"\xff" * 11,  # a number without an end
        b"\x0b",  # a group
        _varints(8, 1, 18, 4, 18, 2, 8, 4, 58, 2, 10, 0),  # a slice that is not there
    ],
)
def test_damaged_entries(entry: bytes, tmp_path: Path) -> None:
    write_table(tmp_path / "m.index", [(b"", _varints(8, 1)), (b"a", entry)])
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(EncoderError, match="cannot read"):
        read_container(tmp_path / "m")


def test_the_writers_checksum() -> None:
    """The check value of CRC-32C, and the vectors of RFC 3720, section B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize(
    ("number", "code"),
    [(-1, "7f"), (0, "80"), (63, "bf"), (64, "c040"), (8191, "dfff"), (8192, "e02000")],
)
def test_the_code_of_a_slices_numbers(number: int, code: str) -> None:
    assert _ordered(number).hex() == code


def test_a_missing_slice(tmp_path: Path) -> None:
    for file in DATA.glob("model.ckpt-7*"):
        shutil.copy(file, tmp_path)
    shard = tmp_path / "model.ckpt-7.data-00002-of-00003"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot read"):
        read_container(tmp_path)
