"""``qscore encoders``: inspect and list on stand-ins for what they print, bench on a small encoder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qscore_fast.cli import encoders_command, main
from qscore_fast.encoders import throughput
from qscore_fast.encoders.throughput import Throughput
from qscore_fast.errors import EncoderError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


class Found:
    """What inspect_checkpoint returns."""

    def lines(self) -> list[str]:
        return ["system      dino", "name        \x1b[31mred"]

    def to_json(self) -> dict[str, Any]:
        return {"system": "dino"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What inspect_checkpoint was asked for; a file named "bad" is not recognised."""
    calls: list[tuple[Any, ...]] = []

    def inspect_checkpoint(
        path: str, system: str | None = None, *, tower: str | None = None, pool: str | None = None
    ) -> Found:
        calls.append((path, system, tower, pool))
        if path == "bad":
            raise EncoderError("no known layout")
        return Found()

    module = ModuleType("qscore_fast.encoders.inspection")
    module.inspect_checkpoint = inspect_checkpoint  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_inspect(call: Call, asked: list[tuple[Any, ...]]) -> None:
    code, out, err = call("encoders", "inspect", "a.pth")
    assert (code, err) == (0, "")
    assert out == "system      dino\nname        \\x1b[31mred\n"
    options = ("--system", "dino", "--tower", "online", "--pool", "patch_mean", "--json")
    code, out, _ = call("encoders", "inspect", "a.pth", *options)
    assert (code, json.loads(out)) == (0, {"system": "dino"})
    assert asked == [("a.pth", None, None, None), ("a.pth", "dino", "online", "patch_mean")]


def test_inspect_errors(call: Call, asked: list[tuple[Any, ...]]) -> None:
    code, out, err = call("encoders", "inspect", "bad")
    assert (code, out, err) == (2, "", "qscore: error: no known layout\n")
    for arguments, reason in (
        (("--tower", "left"), "--tower: not valid: left"),
        (("--pool", "max"), "--pool: not valid: max"),
        (("--frob",), "frob"),
    ):
        code, _, err = call("encoders", "inspect", "a.pth", *arguments)
        assert code == 2
        assert reason in err
        assert err.count("\n") == 1


def test_list(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Row:
        def to_json(self) -> dict[str, str]:
            return {"system": "swav"}

    module = ModuleType("qscore_fast.encoders.catalogue")
    module.ROWS = [Row(), Row()]  # type: ignore[attr-defined]
    module.catalogue_lines = lambda: ["system", "swav"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys.modules["qscore_fast.encoders"], "catalogue", module, raising=False)
    assert call("encoders", "list") == (0, "system\nswav\n", "")
    assert json.loads(call("encoders", "list", "--json")[1]) == [{"system": "swav"}] * 2


def test_bench(call: Call, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [{"fold_batch_norm": True}, {"precision": "bfloat16"}]
    monkeypatch.setattr(throughput, "default_variants", lambda _: few)
    bench = (
        "encoders",
        "bench",
        checkpoint,
        "--device",
        "cpu",
        "--batch-size",
        3,
        "--seconds",
        0.01,
    )
    code, out, err = call(*bench)
    assert code == 0, err
    assert "measuring" in err
    lines = out.splitlines()
    assert "batches of 3 images, 28 x 28, on cpu" in lines[0]
    assert [line.split()[0] for line in lines[3:6]] == ["float32", "float32+folded", "bfloat16"]
    assert "1.00x" in lines[3]

    code, out, _ = call(*bench, "--crop", 20, "--json")
    content = json.loads(out)
    assert code == 0
    assert content["preprocess"]["crop"] == 20
    assert content["batch_size"] == 3
    assert {"encoder", "device", "device_name", "threads", "torch"} <= content.keys()
    for row in content["variants"]:
        assert row["images_per_second"] > 0
        assert row["cosine"] > 0.99


def test_bench_errors(call: Call, checkpoint: Path) -> None:
    for arguments, reason in (
        (("--batch-size", 0), "batch_size must be"),
        (("--seconds", -1), "seconds must be"),
        (("--device", "tpu9"), "tpu9"),
    ):
        code, out, err = call("encoders", "bench", checkpoint, *arguments)
        assert (code, out) == (2, "")
        assert reason in err.splitlines()[-1]


def test_the_table_of_rows_that_failed() -> None:
    rows = [
        Throughput("float32", 100.0, 1.0, 0.0),
        Throughput("float16", 250.0, error="its features are not all finite"),
        Throughput("bfloat16", error="no such operation"),
    ]
    lines = encoders_command.throughput_lines(rows)
    assert "2.50x" in lines[2]
    assert "not all finite" in lines[2]
    assert lines[3].split(maxsplit=1) == ["bfloat16", "no such operation"]
    assert "1.00000" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("inspect", "list", "bench", "moco_v2_800ep")),
        (("inspect", "--help"), ("FILE", "--tower", "--pool", "Nothing in the file is executed")),
        (("list", "--help"), ("--json",)),
        (("bench", "--help"), ("ENCODER", "--seconds", "--crop-fraction", "float32's")),
    ],
)
def test_help(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["encoders", *arguments])
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in words:
        assert word in text
