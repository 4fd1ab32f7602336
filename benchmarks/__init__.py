"""Benchmarks: ``make bench`` on the CPU, ``make gpu`` on a GPU, ``qscore bench`` wherever it is installed."""

import importlib.util
from pathlib import Path

import qscore_fast

# In a source tree without an installation, kernels/ lies beside the package.
if importlib.util.find_spec("qscore_fast.kernels") is None:
    qscore_fast.__path__.append(str(Path(__file__).resolve().parents[1]))
