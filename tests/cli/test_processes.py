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

from qscore_fast.cli import helper_processes, main
from qscore_fast.cli.parser import build_parser

FILES = ("scores.parquet", "errors.parquet", "features.npz")


def command(images: Path, checkpoint: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "score", images, "--encoder", checkpoint, "--out", out,
        "--unit-size", 8, "--batch-size", 2, "--embeddings", "npy", "--json", *more,
    )  # fmt: skip


def helpers_of(pid: int) -> list[int]:
    """Told by what only they are given: until it runs its program, any child has its parent's words."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(child)
            for child in children
            if b"\x00--processes\x001\x00" in Path(f"/proc/{child}/cmdline").read_bytes()
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


def take_for_helpers(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a shell script stand in for the helpers' Python, and come to its end."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(helper_processes.sys, "executable", str(path))
    monkeypatch.setattr(helper_processes.subprocess.Popen, "terminate", lambda self: self.wait())


@pytest.mark.parametrize("how", ["option", "file", "text"])
def test_helpers_neither_overwrite_nor_retry_however_this_was_asked_for(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "settings.yaml").write_text("overwrite: true\nretry_errors: true\nlower: 40\n")
    more = {
        "option": ("--overwrite", "--retry-errors", "--lower", "40"),
        "file": ("--config", tmp_path / "settings.yaml"),
        "text": ("--config", '{"overwrite": true, "retry_errors": true, "lower": 40}'),
    }[how]
    words = tmp_path / "words"
    script = f'for word in "$@"; do printf "%s\\0" "$word"; done > {words}'
    take_for_helpers(monkeypatch, tmp_path, script)
    given = command(images / "bag", checkpoint, tmp_path / "out", "--processes", 2, *more)
    assert main([str(w) for w in given]) == 0
    heard = words.read_text().split("\0")[:-1]
    assert heard[:2] == ["-m", "qscore_fast.cli"]
    options = build_parser().parse_args(heard[2:]).score
    assert not options.overwrite and not options.retry_errors
    assert (options.lower, options.processes, options.unit_size) == (40, 1, 8)
    assert options.out == str(tmp_path / "out")


def test_a_helper_that_fails_says_why(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Its process is another program, which cannot do what it was told."""
    script = (
        "for n in 1 2 3 4 5 6; do echo line $n >&2; done\n"
        "printf 'qscore: error: no room\\033[31m\\n' >&2\nexit 2"
    )
    take_for_helpers(monkeypatch, tmp_path, script)
    given = command(images / "bag", checkpoint, tmp_path / "out", "--processes", 2)
    assert main([str(w) for w in given]) == 0
    said = capsys.readouterr().err.splitlines()
    start = said.index(
        "qscore: helper process 1 of 1 ended with exit code 2; what it leaves is done here. It said "
        "last:"
    )
    assert said[start + 1 : start + 6] == [
        *(f"qscore:     line {number}" for number in (3, 4, 5, 6)),
        "qscore:     error: no room\\x1b[31m",
    ]
    assert sum("helper process" in line for line in said) == 1


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
