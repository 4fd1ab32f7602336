"""``--processes``: more processes on this machine that do the same run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from qscore_fast.cli.terminal import say
from qscore_fast.errors import SettingsError

STOP_SECONDS = 8.0


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
        # Overwriting is this process's to do, before the others begin.
        self._arguments = [word for word in arguments if word != "--overwrite"]
        self._num_helpers = processes - 1
        self._device = device
        self._running: list[subprocess.Popen[bytes]] = []
        self.workers = workers
        if processes > 1:
            self._take_share(processes)

    def start(self) -> None:
        """Start them, once."""
        with _sigterm_later():  # a process that is started and not yet listed would be forgotten
            self._start()

    def _start(self) -> None:
        for number in range(1, self._num_helpers + 1):
            self._running.append(
                subprocess.Popen(
                    [
                        *(sys.executable, "-m", "qscore_fast.cli"),
                        *self._arguments,
                        *("--processes", "1", "--workers", str(self.workers)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **self._environment(number)},
                )
            )
        self._num_helpers = 0

    def __enter__(self) -> HelperProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        failed = [p.returncode for p in self._running if p.returncode not in (0, 143, -15)]
        if failed and kind is None:
            say(
                f"{len(failed)} of {len(self._running)} helper processes ended with exit code "
                f"{', '.join(map(str, failed))}; what they left was done here"
            )

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
