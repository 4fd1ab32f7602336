"""A run that goes on under settings that change last digits says so, in one line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_data import save_images

from qscore_fast.cli import main
from qscore_fast.encoders import Encoder
from qscore_fast.scoring import ScoreRun, made_with, score

UNIT = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("few"), 3 * UNIT)


@pytest.fixture
def threads() -> Iterator[int]:
    """PyTorch's; put back at the end."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def run_it(folder: Path, encoder: Encoder | Path, out: Path, **settings: Any) -> ScoreRun:
    return score(
        folder, encoder, out, **{"unit_size": UNIT, "batch_size": 4, "eps": 2.5, **settings}
    )


def lose(out: Path, index: int) -> None:
    (out / "parts" / f"part-{index:06d}.parquet").unlink()


def notes_of(out: Path, index: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "parts" / f"part-{index:06d}.json").read_text())
    return content


def test_a_part_says_what_it_was_made_with(
    tmp_path: Path, folder: Path, encoder: Encoder, threads: int
) -> None:
    run_it(folder, encoder, tmp_path)
    lose(tmp_path, 1)
    torch.set_num_threads(threads + 1)
    with pytest.warns(RuntimeWarning):
        run_it(folder, encoder, tmp_path, batch_size=5)
    first, second = (notes_of(tmp_path, index)["made_with"] for index in (0, 1))
    assert (first["batch_size"], second["batch_size"]) == (4, 5)
    assert (first["threads"], second["threads"]) == (threads, threads + 1)
    for one in (first, second):
        assert one["device"] == f"cpu {torch.backends.cpu.get_cpu_capability()}"
        assert one["kernels"].startswith(("native", "reference"))
        for name in ("torch", "torchvision", "pillow", "numpy"):
            assert one["libraries"][name] == version(name)


def test_going_on_otherwise_is_said_with_both_values(
    tmp_path: Path, folder: Path, encoder: Encoder, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_it(folder, encoder, tmp_path)
        # Nothing is left to do, so nothing would be made otherwise.
        run_it(folder, encoder, tmp_path, batch_size=5)
        lose(tmp_path, 0)
        run_it(folder, encoder, tmp_path, workers=1)
    lose(tmp_path, 0)
    torch.set_num_threads(threads + 1)
    with monkeypatch.context() as patch:
        patch.setattr(made_with, "_libraries", lambda: {"torch": "9.9"})
        with pytest.warns(RuntimeWarning, match="other settings") as caught:
            run_it(folder, encoder, tmp_path, batch_size=5)
    (warning,) = caught
    message = str(warning.message)
    assert "\n" not in message
    assert f"batch_size: 4 -> 5; libraries.numpy: {version('numpy')} -> None; " in message
    assert f"libraries.torch: {version('torch')} -> 9.9; " in message
    assert f"threads: {threads} -> {threads + 1}" in message
    assert "device" not in message
    assert warning.filename == __file__


def test_each_kind_of_part_is_compared(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    lose(tmp_path, 0)
    with pytest.warns(RuntimeWarning, match=r"\(batch_size: 4 -> 5\)"):
        run_it(folder, encoder, tmp_path, batch_size=5)
    lose(tmp_path, 1)
    with pytest.warns(RuntimeWarning, match=r"\(batch_size: 5 -> 8; batch_size: 4 -> 8\)"):
        run_it(folder, encoder, tmp_path, batch_size=8)


def test_parts_of_before_are_not_compared(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    for index in range(3):
        notes = notes_of(tmp_path, index)
        del notes["made_with"]
        (tmp_path / "parts" / f"part-{index:06d}.json").write_text(json.dumps(notes))
    lose(tmp_path, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = run_it(folder, encoder, tmp_path, batch_size=5)
    assert run.session is not None
    assert run.session.parts_done == 1


def test_the_batch_size_is_no_more_than_rounding(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    """Why it may change at all."""
    first, second = (
        run_it(folder, encoder, tmp_path / str(size), batch_size=size).scores() for size in (8, 3)
    )
    assert first["sample_id"].equals(second["sample_id"])
    for name in ("q_score", "l2"):
        np.testing.assert_allclose(first[name].to_numpy(), second[name].to_numpy(), rtol=1e-4)


def test_the_command_says_it_in_one_line(
    tmp_path: Path, folder: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "score", str(folder), "--encoder", str(checkpoint), "--out", str(tmp_path),
        "--unit-size", str(UNIT), "--device", "cpu", "--batch-size",
    ]  # fmt: skip
    assert main([*command, "4"]) == 0
    assert "warning" not in capsys.readouterr().err
    lose(tmp_path, 0)
    assert main([*command, "5"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" in line.lower()]
    assert len(lines) == 1
    assert lines[0].startswith(
        f"qscore: warning: the run in {tmp_path} goes on under other settings"
    )
    assert "(batch_size: 4 -> 5)" in lines[0]
