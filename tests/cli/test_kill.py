"""SIGKILL at random moments: the run that is started again ends like one that was left alone."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from command import finish, qscore, start
from run_tables import tables_of

PARTS = 38
KILLS = 3


def test_killed_runs_end_like_one_left_alone(
    tmp_path: Path, images: Path, checkpoint: Path, record_property: pytest.RecordProperty
) -> None:
    (images / "bag" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    try:
        _killed(tmp_path, images, checkpoint, record_property)
    finally:
        (images / "bag" / "bad.png").unlink()


def _killed(tmp_path: Path, images: Path, checkpoint: Path, record: pytest.RecordProperty) -> None:
    def command(out: str) -> tuple[object, ...]:
        return (
            "score", images, "--encoder", checkpoint, "--out", tmp_path / out, "--embeddings",
            "npy", "--unit-size", 16, "--batch-size", 2, "--workers", 2, "--eps", "auto",
        )  # fmt: skip

    left_alone = start(*command("alone"))
    seed = time.time_ns()
    record("seed", seed)
    rng = random.Random(seed)
    moments = []
    for kill in range(KILLS):
        process = start(*command("killed"))
        wanted = min(PARTS - 1, 1 + (kill * PARTS) // KILLS + rng.randrange(PARTS // KILLS))
        parts = tmp_path / "killed" / "parts"
        while process.poll() is None and len(list(parts.glob("*.parquet"))) < wanted:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        killed = finish(process)
        moments.append((killed.returncode, len(list(parts.glob("*.parquet")))))
    assert any(code == -9 and 0 < count < PARTS for code, count in moments), (seed, moments)

    finished = qscore(*command("killed"))
    assert finished.returncode == 0, (seed, finished.stderr)
    assert "1 bad image left out" in finished.stdout
    assert finish(left_alone).returncode == 0
    assert tables_of(tmp_path / "killed") == tables_of(tmp_path / "alone"), (seed, moments)
