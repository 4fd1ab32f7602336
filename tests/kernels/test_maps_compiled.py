"""The kernels of ``score_maps`` as compiled for NVIDIA and AMD GPUs, read without one."""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import maps_compile
import pytest
from maps_compile import KERNELS, map_settings
from triton_compile import DTYPES, capability, settings_module


@functools.cache
def measurements() -> list[dict[str, object]]:
    kernels = importlib.import_module("qscore_fast.kernels")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    process = subprocess.run(
        [sys.executable, maps_compile.__file__, str(Path(kernels.__path__[0]).parent)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def of(kernel: str) -> list[dict[str, object]]:
    found = [m for m in measurements() if m["kernel"] == kernel]
    assert len(found) == len(maps_compile.TARGETS)
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(kernel: str) -> None:
    for m in of(kernel):
        assert (m["spills"], m["local"]) == (0, 0), m


@pytest.mark.parametrize("kernel", KERNELS)
def test_enough_of_the_maps_is_on_its_way(kernel: str) -> None:
    """A multiprocessor holds eight tiles of the pooling, or 512 threads of the combination, and more."""
    for m in of(kernel):
        if not m["device"].startswith("sm_"):
            continue
        c = capability(m["device"])
        resident = settings_module().resident_programs(
            m["threads"], m["registers"], m["shared"] + 1024, c
        )
        assert resident >= 8 if kernel == "_pool_maps_kernel" else resident * m["threads"] >= 512, m


def test_channels_that_lie_together_are_loaded_with_128_bits() -> None:
    for m in of("_pool_maps_kernel"):
        if not m["channels_last"] or m["positions"] == 1:
            continue
        s = map_settings(m["device"], m["channels"], m["positions"], True)
        tile_bytes = s.pool_c * s.pool_p * DTYPES[m["dtype"]].itemsize
        assert m["wide_loads"] >= tile_bytes // (16 * m["threads"]), m
