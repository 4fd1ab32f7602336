"""Units are divided between processes that know of each other by nothing but locks on a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qscore_fast.errors import StoreError
from qscore_fast.scoring.locks import WRITERS, FolderLocks, locked

HOLD = """
import sys, time
from pathlib import Path
from qscore_fast.scoring.locks import FolderLocks
locks = FolderLocks(Path(sys.argv[1]))
print(locks.acquire(int(sys.argv[2]), shared=sys.argv[3] == "shared"), flush=True)
time.sleep(600)
"""


def other_process(folder: Path, byte: int, kind: str = "alone") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(byte), kind],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_unit_is_given_out_once_and_again_when_its_process_dies(tmp_path: Path) -> None:
    process = other_process(tmp_path, 7)
    locks = FolderLocks(tmp_path)
    try:
        assert not locks.acquire(7)
        assert locks.acquire(6)
        assert locks.acquire(8)
        end(process)
        assert locks.acquire(7)
    finally:
        end(process)
        locks.close()


def test_two_stores_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = FolderLocks(tmp_path), FolderLocks(tmp_path)
    assert first.acquire(0)
    assert not second.acquire(0)
    first.release(0)
    assert second.acquire(0)
    second.close()
    assert first.acquire(0)
    first.close()


def test_writers_share_and_whoever_rewrites_is_alone(tmp_path: Path) -> None:
    process = other_process(tmp_path, WRITERS, "shared")
    locks = FolderLocks(tmp_path)
    try:
        assert locks.acquire(WRITERS, shared=True)
        assert not locks.acquire(WRITERS)
        with pytest.raises(StoreError, match="another qscore process"), locked(tmp_path):
            pass
        end(process)
        assert locks.acquire(WRITERS)
    finally:
        end(process)
        locks.close()
    with locked(tmp_path):
        pass


def test_waiting_ends_with_the_holder(tmp_path: Path) -> None:
    process = other_process(tmp_path, 3)
    locks = FolderLocks(tmp_path)
    waiting = os.fork()
    if waiting == 0:
        child = FolderLocks(tmp_path)
        os._exit(0 if child.acquire(3, wait=True) else 1)
    time.sleep(0.1)
    assert os.waitpid(waiting, os.WNOHANG) == (0, 0)
    end(process)
    assert os.waitpid(waiting, 0) == (waiting, 0)
    assert locks.acquire(3)
    locks.close()


def test_without_locks_every_unit_is_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.fcntl", refused)
    first, second = FolderLocks(tmp_path), FolderLocks(tmp_path)
    assert first.acquire(0)
    assert second.acquire(0)
    first.release(0)
    first.close()
    second.close()
