"""``make gpu``: tests on the GPU, then the benchmark, from the source tree alone.

Needs torch, triton and pytest; the package need not be installed and nothing is downloaded.
"""

from __future__ import annotations

import subprocess
import sys

import torch

import qscore_fast
from benchmarks import bench_kernels
from benchmarks.environment import ROOT

TESTS = (
    "tests/kernels/test_kernels.py",
    "tests/kernels/test_settings.py",
    "tests/test_functional.py",
)


def main() -> int:
    if not torch.cuda.is_available():
        print("make gpu: torch sees no CUDA or ROCm device here", file=sys.stderr)
        return 2
    # In a source tree kernels/ lies beside the package.
    qscore_fast.__path__.append(str(ROOT))
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not native", *TESTS]
    tests = subprocess.run(command, cwd=ROOT, check=False).returncode
    if tests:
        print("make gpu: the tests failed, so there are no times", file=sys.stderr)
        return tests
    return bench_kernels.main(["--device", "cuda"])


if __name__ == "__main__":
    sys.exit(main())
