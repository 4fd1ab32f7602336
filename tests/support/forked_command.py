"""``qscore`` in processes that are forked off one that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

TIMEOUT = 120


class ForkedCommand:
    """A running command."""

    def __init__(self, server: ForkServer, pid: int, stdout: Path, stderr: Path) -> None:
        self.pid, self.returncode = pid, None
        self._server, self._stdout, self._stderr = server, stdout, stderr

    def poll(self) -> int | None:
        """Its exit code once it has ended; the negative signal for one that was killed."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Does nothing to a process that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for it; its output and exit code."""
        end = time.monotonic() + TIMEOUT
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"still running after {TIMEOUT} s: {_text(self._stderr)}")
            time.sleep(0.005)
        assert self.returncode is not None
        return subprocess.CompletedProcess(
            self.pid, self.returncode, _text(self._stdout), _text(self._stderr)
        )


def _text(output: Path) -> str:
    """Nothing from a process that was killed before it opened its outputs."""
    return output.read_text() if output.exists() else ""


class ForkServer:
    """Starts commands; ends, with all that it started, when the block ends."""

    def __init__(self, folder: Path) -> None:
        """Keep the outputs in ``folder``."""
        self._folder = folder
        self._commands: list[ForkedCommand] = []

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OMP_WAIT_POLICY": "passive",
                # Arrow's allocator would have a thread from its import on.
                "JE_ARROW_MALLOC_CONF": "background_thread:false",
            },
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for command in self._commands:
            command.send_signal(signal.SIGKILL)
        self._process.communicate()

    def start(self, *arguments: object, **conditions: Any) -> ForkedCommand:
        """Start ``qscore`` under conditions that fork_server.py knows."""
        name = f"{len(self._commands):04d}"
        stdout, stderr = self._folder / f"{name}.out", self._folder / f"{name}.err"
        pid = self.ask(
            {
                "argv": [str(argument) for argument in arguments],
                "stdout": str(stdout),
                "stderr": str(stderr),
                "conditions": conditions,
            }
        )
        self._commands.append(ForkedCommand(self, pid, stdout, stderr))
        return self._commands[-1]

    def run(self, *arguments: object, **conditions: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return self.start(*arguments, **conditions).finish()

    def ask(self, request: dict[str, Any]) -> Any:
        """One question to the process, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
