"""``--processes``: the same files as one process writes, whatever becomes of the helpers."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command import finish, qscore, start
from run_tables import tables_of

from qscore_fast.cli import main

FILES = ("scores.parquet", "errors.parquet", "features.npz")


def command(images: Path, checkpoint: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "score", images, "--encoder", checkpoint, "--out", out,
        "--unit-size", 8, "--batch-size", 2, "--embeddings", "npy", "--json", *more,
    )  # fmt: skip


def helpers_of(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(child)
            for child in children
            if b"--processes" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
    except (FileNotFoundError, ProcessLookupError):  # ended between two looks
        return []


def test_helpers_and_their_death_change_nothing(
    tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    alone = qscore(*command(images, checkpoint, tmp_path / "alone"))
    assert alone.returncode == 0, alone.stderr
    for case in ("left", "killed"):
        out = tmp_path / case
        process = start(*command(images, checkpoint, out, "--processes", 3))
        while case == "killed" and process.poll() is None:
            if helpers := helpers_of(process.pid):
                time.sleep(0.3)
                with suppress(ProcessLookupError):  # it may have done its share already
                    os.kill(helpers[0], signal.SIGKILL)
                break
        found = finish(process)
        assert found.returncode == 0, found.stderr
        assert tables_of(out) == tables_of(tmp_path / "alone")
        for name in FILES:
            assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
        session = json.loads(found.stdout)["session"]
        total = json.loads(alone.stdout)["num_images"]
        assert session["images_done"] + session["images_by_others"] == total


def test_helpers_end_with_the_process_that_is_stopped(
    tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    process = start(*command(images, checkpoint, tmp_path / "out", "--processes", 2))
    helpers: list[int] = []
    while process.poll() is None and not (helpers := helpers_of(process.pid)):
        time.sleep(0.002)
    assert helpers, process.communicate()
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 143
    assert not Path(f"/proc/{helpers[0]}").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--processes", 0), "processes must be 1 or more, got 0"),
        (("--processes", 2, "--device", "cuda:1"), "contradicts device = cuda:1"),
        (("--num-shards", 2), "shard_index and num_shards go together"),
        (("--num-shards", 2, "--shard-index", 2), "shard_index must be from 0 to num_shards - 1"),
        (("--max-error-rate", 1.5), "max_error_rate must be from 0 to 1, got 1.5"),
    ],
)
def test_contradictions(
    tmp_path: Path,
    images: Path,
    checkpoint: Path,
    more: tuple[object, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(w) for w in command(images, checkpoint, tmp_path / "out", *more)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
