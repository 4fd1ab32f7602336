"""Two processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_in_processes

from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.finetuning.checkpoint import CheckpointFolder, checked_processes
from qscore_fast.finetuning.processes import Processes
from qscore_fast.finetuning.watching import read_log


def test_two_processes_make_the_steps_of_one(few_images: Path, tmp_path: Path) -> None:
    script = Path(train_in_processes.__file__)
    two = tmp_path / "two"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*launch, str(script), str(few_images), str(two)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    train_in_processes.train(str(few_images), str(tmp_path / "one"))
    logs = [read_log(path) for path in (two, tmp_path / "one")]
    for ours, theirs in zip(*logs, strict=True):
        assert (ours["loss"], ours["ssl"]) == pytest.approx(
            (theirs["loss"], theirs["ssl"]), rel=1e-4
        )
    found = [CheckpointFolder(p / "checkpoints").latest() for p in (two, tmp_path / "one")]
    assert found[0] is not None and found[1] is not None
    for name, value in found[1].objective.items():
        torch.testing.assert_close(found[0].objective[name], value, rtol=1e-4, atol=1e-5)
    assert len(found[0].processes) == 2
    with pytest.raises(
        StoreError, match="written by 2 processes and is taken up by 1: give --devices 2"
    ):
        checked_processes(found[0], 1)


def test_what_torchrun_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3",
                 "LOCAL_RANK": "1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = Processes.of("cpu", 1)
    assert (found.world, found.rank, found.nodes, found.is_first) == (4, 3, 2, False)
    with pytest.raises(SettingsError, match="torchrun started 2"):
        Processes.of("cpu", 3)
    with pytest.raises(SettingsError, match='"cpu" or "cuda"'):
        Processes.of("tpu", 1)
