"""What a user can get wrong: exit code 2, one line that says what, no traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command import finish, start
from hostile_images import photo

from qscore_fast.cli import main


def one_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("qscore: error: ")
    return lines[0]


def test_as_processes(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").mkdir()
    photo().save(tmp_path / "images" / "a.png")
    (tmp_path / "weights.pth").write_text("these are no weights")
    encoder = ("--encoder", "demo", "--out", "run")
    cases = [
        (("score", "empty", *encoder), "no image in empty"),
        (("score", "missing", *encoder), "there is no folder missing"),
        (
            ("score", "images", "--encoder", "weights.pth", "--out", "run", "--json"),
            "weights.pth: it is not a checkpoint",
        ),
    ]
    processes = [start(*arguments, cwd=tmp_path) for arguments, _ in cases]
    for process, (_, reason) in zip(processes, cases, strict=True):
        done = finish(process)
        assert done.returncode == 2
        assert reason in one_line(done.stderr)
        assert done.stdout == ""
    assert not (tmp_path / "run").exists()


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``qscore`` in this process, in a folder with one image: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    photo().save(tmp_path / "images" / "a.png")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "COMMAND|subcommand"),
        (("frobnicate",), "frobnicate"),
        (("score",), "images, encoder, out"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--eps", "big"), "--eps.*big"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--eps", "1"), "eps = 1 is below"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--workers", "0"), "workers"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--embeddings", "x"), "--emb.*x"),
        (("score", "images", "--encoder", "timm:resnet1", "--out", "r"), "did you mean"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--device", "tpu9"), "device tpu9"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--features", "no"), "no.*exist"),
        (("score", "images", "--encoder", "demo", "--out", "images/a.png"), "cannot make"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--colour"), "colour"),
        (("score", "images", "--encoder", "demo", "--out", "r", "--config", "x.yaml"), "x.yaml"),
        (("discover", "images"), "no run.json"),
        (("discover", "images", "--lower", "90", "--upper", "10"), "percentiles"),
    ],
)
def test_one_line_and_exit_code_2(
    call: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], reason: str
) -> None:
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert re.search(reason, one_line(err)), err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("qscore demo", "exit codes", "discover", "no labels")),
        (
            ("score", "--help"),
            ("IMAGES", "--unit-size", "default: 1024", "errors.parquet", "timm:resnet50"),
        ),
        (("discover", "--help"), ("--eps", "the run's own", "percentile", "--eps auto")),
        (("demo", "--help"), ("Fashion-MNIST", "default: qscore-demo")),
        (("info", "--help"), ("versions", "--json")),
        (("--version",), ("qscore ",)),
    ],
)
def test_help(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in words:
        assert word in text


def test_options_from_a_file(call: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("encoder: demo\nout: run\neps: 2.0\nunit_size: 3\n")
    os.rename(tmp_path / "images", tmp_path / "1e3")  # names that YAML would take for numbers
    code, out, err = call("score", "1e3", "--config", "options.yaml", "--device", "cpu")
    assert code == 0, err
    assert "1, 1 scored" in out
    assert "at eps = 2 " in out
    assert "discovered on 1 images only" in out
