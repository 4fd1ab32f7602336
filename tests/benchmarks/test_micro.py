"""The small batches run, each once and untimed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.micro.test_small_batches import IMPLEMENTATIONS, SHAPES
from benchmarks.operations import OPERATIONS


def test_each_runs_once() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", "benchmarks/micro"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert f"{len(OPERATIONS) * len(SHAPES) * len(IMPLEMENTATIONS)} passed" in result.stdout
