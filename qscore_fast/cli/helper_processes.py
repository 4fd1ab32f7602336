"""``--processes``: more processes on this machine that do the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO

from qscore_fast.cli.terminal import say
from qscore_fast.errors import SettingsError

STOP_SECONDS = 8.0
LAST_LINES, LAST_BYTES = 5, 4096
"""Of what a helper said, shown where it failed."""

# What this process does before the others begin, wherever it was told to: the last word is these.
_NOT_THEIRS = {"overwrite": False, "retry_errors": False}


@dataclass
class _Helper:
    """A process that was started, and the file with what it says."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]
    reported: bool = False

    def failed(self) -> bool:
        """Whether it has ended otherwise than well, or as it was told to."""
        return self.process.poll() not in (None, 0, 143, -signal.SIGTERM)

    def last_lines(self) -> list[str]:
        """The end of what it said."""
        end = self.said.seek(0, os.SEEK_END)
        self.said.seek(max(0, end - LAST_BYTES))
        lines = self.said.read().decode(errors="backslashreplace").splitlines()
        return [line for line in lines if line.strip()][-LAST_LINES:]


class HelperProcesses:
    """Processes that are given the same command, each on a GPU of its own where there are several.

    They join the run as any process on any machine could, and whatever becomes of them, the process that
    started them ends with the whole run: it does what they leave. They are stopped when the block ends.

    Args:
        arguments: of the command, as they were given.
        processes: how many in all, this one included.
        device, workers: what the command was told, if anything.

    Attributes:
        workers: decoding threads of each process; None leaves them to ``score``.
    """

    def __init__(
        self, arguments: Sequence[str], processes: int, device: str | None, workers: int | None
    ) -> None:
        if processes < 1:
            raise SettingsError(f"processes must be 1 or more, got {processes}")
        if processes > 1 and device not in (None, "cpu", "cuda"):
            raise SettingsError(
                f"processes = {processes} shares the GPUs out by itself and contradicts device = "
                f"{device}: give --device cuda, or leave it out"
            )
        self._arguments = list(arguments)
        self._num_helpers = processes - 1
        self._device = device
        self._helpers: list[_Helper] = []
        self.workers = workers
        if processes > 1:
            self._take_share(processes)

    def start(self) -> None:
        """Start them, once."""
        with _sigterm_later():  # a process that is started and not yet listed would be forgotten
            self._start()

    def report_failures(self) -> None:
        """Say of each helper that failed since the last look how it ended, and what it said last."""
        for number, helper in enumerate(self._helpers, 1):
            if not helper.failed() or helper.reported:
                continue
            helper.reported = True
            say(
                f"helper process {number} of {len(self._helpers)} ended with exit code "
                f"{helper.process.returncode}; what it leaves is done here. It said last:"
            )
            for line in helper.last_lines() or ["nothing"]:
                say(f"    {line.removeprefix('qscore: ')}")

    def _start(self) -> None:
        for number in range(1, self._num_helpers + 1):
            said = tempfile.TemporaryFile()  # noqa: SIM115, open for as long as the helper lives
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "qscore_fast.cli"),
                    *self._arguments,
                    *("--processes", "1", "--workers", str(self.workers)),
                    *("--config", json.dumps(_NOT_THEIRS)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, **self._environment(number)},
            )
            self._helpers.append(_Helper(process, said))
        self._num_helpers = 0

    def __enter__(self) -> HelperProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        running = [helper for helper in self._helpers if helper.process.poll() is None]
        for helper in running:
            helper.process.terminate()
        for helper in running:
            try:
                helper.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                helper.process.kill()
                helper.process.wait()
                helper.reported = True
        if kind is None:
            self.report_failures()
        for helper in self._helpers:
            helper.said.close()

    def _take_share(self, processes: int) -> None:
        """Leave the others their part of the cores and, where there are several GPUs, theirs."""
        import torch

        from qscore_fast.scoring.prefetch import default_workers

        if self.workers is None:
            self.workers = max(1, default_workers() // processes)
        self._num_gpus = 0 if self._device == "cpu" else torch.cuda.device_count()
        self._threads = max(1, torch.get_num_threads() // processes)
        torch.set_num_threads(self._threads)

    def _environment(self, number: int) -> dict[str, str]:
        gpu = {}
        if self._num_gpus > 1:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else [str(i) for i in range(self._num_gpus)]
            gpu = {"CUDA_VISIBLE_DEVICES": names[number % len(names)]}
        return {**gpu, "OMP_NUM_THREADS": str(self._threads)}


@contextmanager
def _sigterm_later() -> Iterator[None]:
    """SIGTERM takes effect at the end of the block."""
    came: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)
