"""Two processes, each with half of every batch, train as one with the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

WORLD = 2
ROOT = Path(__file__).parents[3]


def test_two_processes_are_one_on_the_whole_batch(tmp_path: Path) -> None:
    """Losses, gradients, averages, queues and centre of all systems, and ShuffleBN."""
    file = tmp_path / "report"
    paths = [str(ROOT), str(ROOT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).with_name("two_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(WORLD), str(file)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, outputs
    assert [Path(f"{file}.{rank}").read_text() for rank in range(WORLD)] == [""] * WORLD
