"""``make gpu``: the tests on the GPU, then the benchmark, from the source tree alone.

Needs torch, triton and pytest, and pytest-xdist to be done in minutes; the package need not be installed and
nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time

import torch

from . import run, tables
from .environment import ROOT
from .results import newest

TOTAL_SECONDS = 480.0
CLOSING_SECONDS = 90.0  # the sweeps, the overhead, and the comparator that is under way
TESTS = (
    "tests/kernels",
    "tests/test_functional.py",
    "tests/test_nn.py",
    "tests/images/test_nvjpeg.py",
)
MOST_PROCESSES = 14
"""That compile and test side by side, each with a context of its own on the GPU."""
# Left out where scikit-learn is missing.
WITH_SCIKIT_LEARN = ("tests/evaluation/test_probes_cuda.py",)
# What is the native kernels' alone cannot even be imported where they are missing; what reads compiled code
# needs no GPU, and holds for the compiler that it was written with.
OTHERS = (
    "tests/kernels/test_native_module.py",
    "tests/kernels/test_native_rows.py",
    "tests/kernels/test_triton_compiled.py",
    "tests/kernels/test_maps_compiled.py",
)


def main() -> int:
    if not torch.cuda.is_available():
        print("make gpu: torch sees no CUDA or ROCm device here", file=sys.stderr)
        return 2
    begin = time.monotonic()
    # -rs names every test that was skipped.
    chosen = TESTS + (WITH_SCIKIT_LEARN if importlib.util.find_spec("sklearn") else ())
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-k", "not native", *chosen]
    command += [f"--ignore={path}" for path in OTHERS]
    if importlib.util.find_spec("xdist"):  # nearly all of the time is the compiler's
        command += ["-n", str(min(MOST_PROCESSES, os.cpu_count() or 1))]
    tests = subprocess.run(command, cwd=ROOT, check=False).returncode
    left = TOTAL_SECONDS - CLOSING_SECONDS - (time.monotonic() - begin)
    code = run.main(["--device", "cuda", "--dtypes", "bfloat16", "float32"], max(left, 0))
    if code == 0:
        name = torch.cuda.get_device_name()
        (result,) = (found for found in newest() if found["environment"]["device"] == name)
        print("\n".join(["", tables.heading(result), *tables.terminal(tables.short(result), 3)]))
    if tests:
        print(
            "make gpu: tests failed, see above; a case with a wrong result has no time",
            file=sys.stderr,
        )
    return tests or code


if __name__ == "__main__":
    sys.exit(main())
