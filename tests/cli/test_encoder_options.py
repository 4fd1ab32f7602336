"""Loading, preprocessing and speed options: what ``score`` makes of them, and help without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qscore_fast import encoders
from qscore_fast.cli import main
from qscore_fast.cli.encoder_options import encoder_from, preprocess_changes
from qscore_fast.cli.parser import build_parser
from qscore_fast.encoders import Encoder, load_encoder

Options = Callable[..., Any]


@pytest.fixture
def options(checkpoint: Path) -> Options:
    """What ``qscore score`` parses, with these options added."""

    def parse(*arguments: object) -> Any:
        words = ["score", "images", "--encoder", str(checkpoint), "--out", "run", "--device", "cpu"]
        return build_parser().parse_args([*words, *map(str, arguments)]).score

    return parse


def test_nothing_asked(options: Options) -> None:
    parsed = options()
    assert preprocess_changes(parsed) == {}
    encoder = encoder_from(parsed)
    assert (encoder.precision, encoder.notes) == ("float32", ())
    assert encoder.preprocess == load_encoder(encoder.name).preprocess


def test_what_load_encoder_is_given(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    encoder = load_encoder("demo", device="cpu")

    def stand_in(spec: str, system: str | None = None, **rest: Any) -> Encoder:
        found.update(spec=spec, system=system, **rest)
        return encoder

    monkeypatch.setattr(encoders, "load_encoder", stand_in)
    given = ("--system", "dino", "--tower", "ema", "--pool", "cls", "--no-pretrained")
    assert encoder_from(options(*given)).fingerprint == encoder.fingerprint
    assert found.pop("spec").endswith("encoder.pth")
    assert found == {
        "system": "dino", "tower": "ema", "pool": "cls", "device": "cpu", "pretrained": False
    }  # fmt: skip


def test_preprocessing(options: Options) -> None:
    changed = encoder_from(
        options(
            "--resize", 40, 30, "--crop", 20, "--interpolation", "box",
            "--mean", 0.5, "--std", 0.25,
        )
    ).preprocess  # fmt: skip
    assert changed.to_json() == {
        "mode": "L", "resize": [40, 30], "crop": 20, "interpolation": "box",
        "mean": [0.5], "std": [0.25],
    }  # fmt: skip
    changed = encoder_from(options("--crop-fraction", 0.875)).preprocess
    assert (changed.crop_fraction, changed.resize, changed.crop) == (0.875, (28, 28), None)


def test_speed(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    plain = encoder_from(options())
    fast = encoder_from(
        options("--precision", "bfloat16-autocast", "--channels-last", "--fold-batch-norm")
    )
    assert fast.precision == "bfloat16-autocast+folded+channels-last"
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(fast(images), plain(images), rtol=0.1, atol=0.1)
    assert capsys.readouterr().err == ""


def test_a_compiler_that_fails_is_one_line(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_compiler(_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", no_compiler)
    assert encoder_from(options("--compile")).precision == "float32"
    (line,) = capsys.readouterr().err.splitlines()
    assert "torch.compile failed, running eagerly instead (no compiler)" in line


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--crop", "20", "--crop-fraction", "0.5"), "contradict"),
        (("--mean", "1", "2", "3"), "mean must be 1 finite numbers"),
        (("--resize", "1", "2", "3"), "resize must be"),
        (("--crop-fraction", "2"), "crop_fraction must be"),
        (("--interpolation", "cubic"), "--interpolation.*cubic|interpolation: not valid"),
        (("--precision", "int8"), "--precision: not valid: .*int8"),
        (("--mean", "red"), "mean"),
    ],
)
def test_errors(
    arguments: tuple[str, ...],
    reason: str,
    checkpoint: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["score", images, "--encoder", checkpoint, "--out", tmp_path / "run", *arguments]
    assert main([str(word) for word in command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(reason, err), err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_records_them_all(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "score",
        images / "bag",
        "--encoder",
        checkpoint,
        "--out",
        tmp_path / "run",
        "--json",
    ]
    how = ["--two-sided", "--crop-fraction", 0.875, "--precision", "bfloat16", "--device", "cpu"]
    assert main([str(word) for word in command + how]) == 0
    assert json.loads(capsys.readouterr().out)["num_scored"] > 0
    asked = json.loads((tmp_path / "run/run.json").read_text())["asked"]
    assert asked["encoder"]["dtype"] == "bfloat16"
    assert asked["preprocess"]["crop_fraction"] == 0.875
    assert asked["two_sided"] is True

    assert main(["discover", str(tmp_path / "run"), "--eps", "3"]) == 0
    assert "images, two-sided)" in capsys.readouterr().out
    assert main([str(word) for word in command]) == 2  # one-sided, float32: not the same run
    assert "two_sided" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from qscore_fast.cli import main\n"
        "try: main(['encoders', 'bench', '--help'])\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
