"""Small files that ask for much memory or time are refused with little of either."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pickle_code import call, name, storage, tensor, value, write_pickle

# Reads each file with 300 MB of memory beyond what it starts with; a minute of processor time ends what
# would not end by itself.
READER = """
import json, resource, sys
from qscore_fast.encoders.containers import read_container
from qscore_fast.errors import EncoderError

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
answers = {}
for path in sys.argv[1:]:
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + 61, -1))
    try:
        read_container(path)
        answers[path] = "was read"
    except EncoderError as error:
        answers[path] = str(error)
print(json.dumps(answers))
"""


def _laughs(opening: bytes, closing: bytes, levels: int) -> bytes:
    """Each level holds the one before ten times: 10**levels entries when they are written out."""
    code = opening + b"K\1" * 10 + closing + b"r" + (0).to_bytes(4, "little")
    for level in range(1, levels):
        again = b"j" + (level - 1).to_bytes(4, "little")
        code += b"0" + opening + again * 10 + closing + b"r" + level.to_bytes(4, "little")
    return code


ENCODED = call(name("_codecs", "encode"), value("x" * 100_000), value("latin1"))
LONG_LIST = b"](" + b"K\1" * 100_000 + b"eq\0"
DTYPE = call(name("numpy", "dtype"), value("f8"))
BOMBS = {
    "a long integer": b"\x8b" + (2**31 - 1).to_bytes(4, "little"),
    "a negative length": b"\x8b\xff\xff\xff\xff",
    "bytes": b"\x8e" + (2**40).to_bytes(8, "little"),
    "a byte array": b"\x96" + (2**40).to_bytes(8, "little"),
    "text": b"\x8d" + (2**40).to_bytes(8, "little"),
    "a string": b"T" + (2**31 - 1).to_bytes(4, "little"),
    "a frame": b"\x95" + (2**62).to_bytes(8, "little") + b"\x8e" + (2**62).to_bytes(8, "little"),
    "a byte array by name": call(name("builtins", "bytearray"), value(2**40)),
    "a list of a number": call(name("builtins", "list"), value(2**40)),
    "deep lists": b"]" * 100_000 + b"a" * 99_999,
    "deep tuples": b")" + b"\x85" * 100_000,
    "marks": b"(" * 100_000,
    "billion laughs in tuples": _laughs(b"(", b"t", 40),
    "billion laughs in lists": _laughs(b"](", b"e", 40),
    "billion laughs in dicts": b"".join(
        [b"}K\1K\1sq\0", *[b"0}K\1h\0sK\2h\0sK\3h\0sq\0" for _ in range(50)]]
    ),
    "billion laughs in an identifier": _laughs(b"(", b"t", 40) + b"Q",
    "billion laughs in a size": call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage(),
        value(0),
        _laughs(b"](", b"e", 40),
        value((1,)),
    ),
    "a list copied over and over": LONG_LIST
    + b"0]("
    + b"".join(call(name("builtins", "set"), b"h\0") for _ in range(1000))
    + b"e",
    "numbers that hash alike": b"("
    + b"".join(value(k * (2**61 - 1)) + b"N" for k in range(1000, 60_000))
    + b"d",
    "tuples for keys": b"(" + b"".join(value((k, k)) + b"N" for k in range(20_000)) + b"d",
    "an array larger than its data": call(
        name("numpy.core.numeric", "_frombuffer"), value(b"12345678"), DTYPE, value((2**40,))
    ),
    "an expanded tensor": tensor(0, (2**30,), (0,)),
    "a large storage": tensor(0, (1,), (1,), storage("0", 2**40)),
    "a long line": b"V" + b"x" * 100_000,
    "a long number": b"I" + b"9" * 100_000 + b"\n",
    "many steps": b"N0" * 2_600_000,
}


def _without_coverage() -> dict[str, str]:
    """The environment, so that the subprocess is not traced: that would multiply its time and memory."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}


def test_bombs(tmp_path: Path) -> None:
    paths = {}
    for number, (case, code) in enumerate(BOMBS.items()):
        for kind in ("torch-zip", "pickle")[case == "many steps" :]:
            path = tmp_path / f"{number}-{kind}"
            write_pickle(path, kind, code)
            paths[str(path)] = case
    encoded = ENCODED + b"q\0" + b"0](" + b"h\0" * 100 + b"e"
    copies = b"](" + b"".join(call(name("jax", "x"), ENCODED) for _ in range(3)) + b"e"
    write_pickle(tmp_path / "fine-1", "pickle", encoded)
    write_pickle(tmp_path / "fine-2", "pickle", copies)
    paths |= {str(tmp_path / f"fine-{i}"): "fine" for i in (1, 2)}
    result = subprocess.run(
        [sys.executable, "-c", READER, *paths],
        env={**_without_coverage(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    answers = json.loads(result.stdout)
    assert answers.keys() == paths.keys()
    for path, answer in answers.items():
        assert answer.startswith(f"cannot read {path}: ") == (paths[path] != "fine"), (
            paths[path],
            answer,
        )
        assert "not enough memory" not in answer, (paths[path], answer)
