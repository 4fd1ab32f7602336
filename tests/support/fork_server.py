"""A process that has imported ``qscore`` and forks for every command, so that each costs little.

Importing torch takes seconds, and a test that kills twenty runs would spend its time on that. Nothing
has started a thread when it forks, and what follows in the child is the command as always.

It reads one JSON object a line: {"argv", "stdout", "stderr", "conditions"} starts a command and is
answered with its process id; {"poll"} is answered with that process's exit code, or null.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import time
from typing import Any

LIBRARIES = (
    "qscore_fast.cli.main", "qscore_fast.scoring", "qscore_fast.encoders", "pyarrow.parquet",
)  # fmt: skip


def serve() -> None:
    """Answer until the input ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    if threads != 1:
        raise SystemExit(f"{threads} threads run after the imports: forking is not safe")
    requests, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    while line := requests.readline():
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                os.closerange(3, 64)
                _become(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _become(argv: list[str], stdout: str, stderr: str, conditions: dict[str, Any]) -> None:
    from qscore_fast.cli import main

    for number, path in enumerate((os.devnull, stdout, stderr)):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if size := conditions.get("largest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if conditions.get("obey_permissions") and os.geteuid() == 0:
        _drop_override()
    if conditions.get("clock_runs_backwards"):
        _turn_clock()
    sys.exit(main(argv))


def _drop_override() -> None:
    """Root without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: permissions hold as for anybody."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits of each
    if libc.capget(header, data) == 0:
        data[0] &= ~0b110
        if libc.capset(header, data) == 0:
            return
    raise OSError(ctypes.get_errno(), "cannot drop the right to override permissions")


def _turn_clock() -> None:
    """An hour back at every look."""
    start, looks = time.time(), iter(range(10**9))
    time.time = lambda: start - 3600.0 * next(looks)
    time.time_ns = lambda: int(time.time() * 1e9)


if __name__ == "__main__":
    serve()
