"""What torch.save wrote is read as torch.load reads it; what it never writes is refused."""

from __future__ import annotations

import argparse
import collections
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickle_code import FORMATS, args, call, name, storage, tensor, value, write_pickle
from torch import Tensor, nn

from qscore_fast.encoders.containers import Stub, read_container
from qscore_fast.errors import EncoderError


def _checkpoint() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(5, 3, 4, 4)).sum().backward()
    optimizer.step()
    base = torch.arange(24.0)
    return {
        "epoch": 7,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": nn.Parameter(torch.randn(3)),
        "views": [base[2:8].view(2, 3), base.view(4, 6).t(), base[::3]],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2.5),
        "types": [torch.arange(5).to(t) for t in _TYPES],
        "ordered": collections.OrderedDict(a=1, b=(2, [3])),
        "set": {1, 2},
        "size": torch.Size([1, 2]),
    }


_TYPES = (
    *(torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.int32),
    *(torch.int16, torch.int8, torch.uint8, torch.bool),
)


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return got.dtype == wanted.dtype and torch.equal(got, wanted)
    if isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(_same(got[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list | tuple):
        return len(got) == len(wanted) and all(map(_same, got, wanted))
    return got == wanted


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_as_torch_load(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "ein Prüfpunkt.pth.tar"
    checkpoint = _checkpoint()
    if zipped:  # torch.load cannot read these back from the old format
        checkpoint["types"].append(torch.arange(5).to(torch.uint16))
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    container = read_container(path)
    assert container.format == ("torch-zip" if zipped else "torch-legacy")
    assert container.stubs == ()
    assert _same(container.content, torch.load(path, weights_only=protocol < 4))
    assert _plain(container.content)
    views = container.content["views"]
    assert views[0].untyped_storage().data_ptr() == views[2].untyped_storage().data_ptr()


def _plain(value: Any) -> bool:
    if type(value) is dict:
        return all(map(_plain, value.values()))
    if type(value) in (list, tuple, set):
        return all(map(_plain, value))
    return type(value) in (int, float, str, bool, Tensor, type(None))


def test_a_comparison_that_would_notice() -> None:
    changed = _checkpoint()
    changed["optimizer"]["state"][0]["momentum_buffer"][0, 0, 0, 0] += 1e-6
    assert _same(_checkpoint(), _checkpoint()) and not _same(_checkpoint(), changed)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_scripts_leave_beside_the_weights(zipped: bool, tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(arch="vit_small", out=Path("x") / "y", lr=0.5),
        "student": {"w": torch.ones(2)},
        "array": np.arange(6, dtype=">i2").reshape(2, 3),
        "column_major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "loss": np.float32(0.5),
        "texts": np.array(["a", "b"]),
        "counts": collections.Counter("aab"),
        "groups": collections.defaultdict(list, {"a": [1]}),
        "device": torch.device("cuda:1"),
        "dtype": torch.float16,
    }
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    container = read_container(tmp_path / "file")
    got = container.content
    assert isinstance(got["args"], Stub) and got["args"].name == "argparse.Namespace"
    assert got["args"].state["arch"] == "vit_small" and got["args"].state["lr"] == 0.5
    assert got["args"].state["out"].args == ("x", "y")
    assert torch.equal(got["array"], torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int16))
    assert torch.equal(got["column_major"], torch.arange(6.0).double().view(2, 3))
    assert got["loss"] == 0.5 and got["texts"].name == "numpy.ndarray"
    assert got["counts"] == {"a": 2, "b": 1} and got["groups"] == {"a": [1]}
    assert got["device"].args == ("cuda", 1) and got["dtype"].name == "torch.float16"
    assert set(container.stubs) == {
        *("argparse.Namespace", "numpy.ndarray", "torch.device", "torch.float16"),
        got["args"].state["out"].name,
    }


def test_a_storage_view_of_old_torch(tmp_path: Path) -> None:
    """Before torch 0.4 a storage could be a part of another: (key, offset, number of entries)."""
    view = args(value("v"), value(3), value(4))
    held = args(
        value("storage"), name("torch", "FloatStorage"), value("0"), value("cpu"), value(10), view
    )
    path = write_pickle(tmp_path / "file", "torch-legacy", tensor(1, (2,), (2,), held + b"Q"))
    numbers = struct.pack("<q10f", 10, *range(10))
    keys = pickle.dumps([], protocol=2)
    path.write_bytes(path.read_bytes().removesuffix(keys) + pickle.dumps(["0"], 2) + numbers)
    assert read_container(path).content.tolist() == [4.0, 6.0]


def test_tensors_are_views_and_writing_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    torch.save({"w": torch.zeros(1000)}, path)
    before = path.read_bytes()
    read_container(path).content["w"].fill_(1)
    assert path.read_bytes() == before


def test_the_hand_made_tensor_is_read(tmp_path: Path) -> None:
    content = read_container(
        write_pickle(tmp_path / "file", "torch-zip", tensor(1, (3,), (1,)))
    ).content
    assert torch.equal(content, torch.tensor([2.0, 3.0, 4.0]))


BAD_TENSORS = {
    "an expanded one": tensor(0, (10**9,), (0,)),
    "one beyond its storage": tensor(2, (3,), (1,)),
    "a stride beyond its storage": tensor(0, (2,), (4,)),
    "a negative size": tensor(0, (-1,), (1,)),
    "a negative stride": tensor(3, (4,), (-1,)),
    "a negative offset": tensor(-1, (1,), (1,)),
    "an overflowing size": tensor(0, (2**61, 8), (1, 1)),
    "too many dimensions": tensor(0, (1,) * 65, (1,) * 65),
    "two ranks": tensor(0, (2, 2), (1,)),
    "a size of bools": tensor(0, (True,), (1,)),
    "a missing storage": tensor(0, (1,), (1,), storage("1")),
    "a path for a storage": tensor(0, (1,), (1,), storage("../data.pkl")),
    "a storage larger than its file": tensor(0, (1,), (1,), storage("0", 2**40)),
    "a quantised storage": tensor(0, (1,), (1,), storage("0", 4, "QInt32Storage")),
    "no storage": tensor(0, (1,), (1,), value(b"abcd")),
    "a sparse one": call(name("torch._utils", "_rebuild_sparse_tensor"), value(0), value(())),
    "a quantised one": call(name("torch._utils", "_rebuild_qtensor"), storage()),
    "a nested one": call(name("torch._utils", "_rebuild_nested_tensor"), storage()),
    "a meta one": call(name("torch._utils", "_rebuild_meta_tensor_no_storage"), value(0)),
    "a subclass": call(name("torch._utils", "_rebuild_wrapper_subclass"), value(0)),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors(case: str, tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "file", "torch-zip", BAD_TENSORS[case])
    with pytest.raises(EncoderError, match="cannot read"):
        read_container(path)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: torch.ones(2, 2).to_sparse(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
        (lambda: torch.empty(2, device="meta"), "meta"),
        (lambda: nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_objects_of_torch(made: Any, message: str, tmp_path: Path) -> None:
    torch.save({"w": made()}, tmp_path / "file")
    with pytest.raises(EncoderError, match=message):
        read_container(tmp_path / "file")


def _archive(path: Path, entries: list[tuple[str, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


BAD_ARCHIVES = {
    "two entries": ([("a/data.pkl", b"N."), ("a/data.pkl", b"N.")], {}, "two entries"),
    "two checkpoints": ([("a/data.pkl", b"N."), ("b/data.pkl", b"N.")], {}, "in one folder"),
    "no checkpoint": ([("a/readme", b"x")], {}, "no data.pkl"),
    "a checkpoint inside": ([("a/model.pth", b"x")], {}, "with 'a/model.pth' inside"),
    "an escaping path": ([("../data.pkl/data.pkl", b"N.")], {}, "in one folder"),
    "compressed": (
        [("a/data.pkl", b"N." + bytes(10**6))],
        {"compression": zipfile.ZIP_DEFLATED},
        "compressed",
    ),
    "big-endian": ([("a/data.pkl", b"N."), ("a/byteorder", b"big")], {}, "big-endian"),
    "a package": (
        [("a/data.pkl", b"N."), ("a/.data/extern_modules", b"os")],
        {},
        "torch.package",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archives(case: str, tmp_path: Path) -> None:
    entries, options, message = BAD_ARCHIVES[case]
    with pytest.raises(EncoderError, match=message):
        read_container(_archive(tmp_path / "file", entries, **options))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "damaged"),
        (b"q\0", "damaged"),
        (b"h\0", "damaged"),
        (b"a", "damaged"),
        (b"}" + value("a") + b"K\1R", "calls an object|damaged"),
        (b"}(" + value([1]) + b"K\1u", "key of type list"),
        (b"\x8a\xff" + bytes(255), "integer"),
        (b"\xff", "opcode"),
        (b"\x97", "opcode"),
        (b"\x80\x06N", "protocol 6"),
    ],
)
def test_damaged_pickles(code: bytes, message: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=message):
        read_container(write_pickle(tmp_path / "file", kind, code))
