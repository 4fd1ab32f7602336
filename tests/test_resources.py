"""Peak extra memory of every public call is O(N + r) beside its result, measured; and nothing leaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROBE = ROOT / "tests" / "support" / "memory_probe.py"
MIB = 1 << 20

# Bytes that a call may add: a few numbers a row, a few a column in each thread, and what the process itself
# does meanwhile (huge pages are mapped by 2 MiB).
A_ROW, A_COLUMN, SLACK = 64, 64, 8 * MIB

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK),
    reason="the high-water mark of memory can be reset on Linux only",
)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one fresh process measured, on a matrix of 256 MiB."""
    result = subprocess.run(
        [sys.executable, PROBE, request.param],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def allowed(found: dict[str, Any]) -> int:
    columns = found["features"] * (found["threads"] + 2)
    return A_ROW * found["rows"] + A_COLUMN * columns + SLACK


def test_memory(found: dict[str, Any]) -> None:
    above = {}
    for name, call in found["calls"].items():
        # Sparse entries are gathered in growing blocks before their number is known.
        copies = 2 if "sparse" in name or "score_rows" in name else 1
        extra = call["growth"] - copies * call["result"]
        if extra > allowed(found):
            above[name] = f"{extra / MIB:.1f} MiB of {allowed(found) / MIB:.1f}"
    assert above.pop("a copy of h", None), "the probe does not even see a copy of the matrix"
    assert above == {}


def test_no_thread_and_no_file_stays(found: dict[str, Any]) -> None:
    assert found["handles"]["after"] == found["handles"]["before"]
