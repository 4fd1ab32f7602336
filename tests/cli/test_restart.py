"""The process of a command that encodes, started anew under the allocator that it is best served by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qscore_fast.allocator import NO_SMALL_CACHE, can_keep_freed_memory

pytestmark = pytest.mark.skipif(not can_keep_freed_memory(), reason="needs glibc")

AT_START = """
import json, os, sys
with open(os.environ["STARTS"], "a") as starts:
    starts.write(json.dumps([os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.orig_argv[1:]]) + chr(10))
"""
"""A sitecustomize: one line in a file at each start of an interpreter."""


def starts(folder: Path, *command: str, tunables: str | None = None) -> tuple[int, str, list[Any]]:
    """Exit code and errors of a command, and process, tunables and arguments of each start."""
    (folder / "sitecustomize.py").write_text(AT_START)
    log = folder / "starts"
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": str(folder), "STARTS": str(log)}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr, [json.loads(s) for s in log.read_text().splitlines()]


QSCORE = str(Path(sys.executable).with_name("qscore"))
MISSING = ["score", "no such folder ü", "--encoder", "encoder.pth", "--out", "out"]


FROM_PYTHON = "import sys; from qscore_fast.cli import main; sys.exit(main())"


@pytest.mark.parametrize(
    "command",
    [[QSCORE], [sys.executable, "-X", "utf8", "-c", FROM_PYTHON]],
    ids=["script", "python"],
)
def test_score_starts_anew_once_with_the_same_arguments(tmp_path: Path, command: list[str]) -> None:
    code, errors, (first, second) = starts(tmp_path, *command, *MISSING)
    assert code == 2
    assert "no such folder ü" in errors
    assert first[0] == second[0]  # the process that a scheduler or a terminal knows
    assert (first[1], second[1]) == (None, NO_SMALL_CACHE)
    assert first[2] == second[2]
    assert second[2][-len(MISSING) :] == MISSING


def test_other_tunables_stay(tmp_path: Path) -> None:
    _, _, (_, second) = starts(tmp_path, QSCORE, *MISSING, tunables="glibc.malloc.mxfast=0")
    assert second[1] == f"glibc.malloc.mxfast=0:{NO_SMALL_CACHE}"


def test_what_the_user_set_is_left(tmp_path: Path) -> None:
    tunables = "glibc.malloc.tcache_count=3"
    code, _, (only,) = starts(tmp_path, QSCORE, *MISSING, tunables=tunables)
    assert (code, only[1]) == (2, tunables)


def test_commands_without_an_encoder_are_not_started_anew(tmp_path: Path) -> None:
    code, _, (only,) = starts(tmp_path, QSCORE, "rescore", "no such run")
    assert (code, only[1]) == (2, None)
