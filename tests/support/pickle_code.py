"""Pickles put together opcode by opcode, and the files that may hold one."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C
FORMATS = ("pickle", "torch-legacy", "torch-zip")


def value(obj: Any) -> bytes:
    """The opcodes of a plain value, without the header and the final STOP."""
    return pickle.dumps(obj, protocol=2)[2:-1]


def name(module: str, qualname: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{qualname}\n".encode()


def stack_name(module: str, qualname: str) -> bytes:
    """STACK_GLOBAL, which takes dotted names."""
    return value(module) + value(qualname) + b"\x93"


def args(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *parts: bytes) -> bytes:
    """REDUCE."""
    return function + args(*parts) + b"R"


def program(code: bytes) -> bytes:
    return b"\x80\x04" + code + b"."


def write_pickle(path: Path, kind: str, code: bytes) -> Path:
    """A file of the kind ``kind`` (one of FORMATS) whose object is what ``code`` makes."""
    if kind == "pickle":
        path.write_bytes(program(code))
    elif kind == "torch-legacy":
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        head = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, 1001, system))
        path.write_bytes(head + program(code) + pickle.dumps([], protocol=2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program(code))
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
            archive.writestr("archive/version", "3\n")
    return path


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage") -> bytes:
    """A storage as a torch zip file refers to it; ``write_pickle`` puts four floats at "0"."""
    return args(
        value("storage"), name("torch", kind), value(key), value("cpu"), value(numel)
    ) + b"Q"  # fmt: skip


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...], held: bytes = b"") -> bytes:
    """A tensor on ``held``, which is ``storage()`` by default."""
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        held or storage(),
        *map(value, (offset, size, stride, False)),
        call(name("collections", "OrderedDict")),
    )
