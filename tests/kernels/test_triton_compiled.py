"""The Triton kernels as compiled for NVIDIA and AMD GPUs: no GPU is needed to read machine code.

A subprocess compiles them, because the pytest process has the interpreter switched on.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import triton_compile
from triton_compile import (
    DEVICES,
    DTYPES,
    KERNELS,
    KINDS,
    TWO_SIDED,
    WIDTHS,
    WITHOUT_H,
    capability,
    forward_registers,
    settings_module,
)

WITH_H = [k for k in KERNELS if k not in WITHOUT_H]
FORWARDS = ("_row_stats_fwd_kernel", "_q_score_fwd_kernel", "_highly_active_kernel")
FORWARDS += ("_sparse_count_kernel",)
COLUMN_SUMS = [k for k, kind in KINDS.items() if kind == "columns"]
BACKWARDS = [k for k in KERNELS if k.endswith("bwd_kernel")]


@functools.cache
def measurements() -> list[dict[str, object]]:
    kernels = importlib.import_module("qscore_fast.kernels")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    # The default of Triton < 3.10, named so that it does not warn.
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    process = subprocess.run(
        [sys.executable, triton_compile.__file__, str(Path(kernels.__path__[0]).parent)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def select(widths: tuple[int, ...] = WIDTHS, **wanted: object) -> list[dict[str, object]]:
    """The measurements at some widths; at those that the targets name unless told."""
    found = [
        m for m in measurements() if m["d"] in widths and all(m[k] == v for k, v in wanted.items())
    ]
    assert found
    return found


def itemsize(m: dict[str, object]) -> int:
    return DTYPES[m["dtype"]].itemsize


def tile(m: dict[str, object]) -> tuple[int, int]:
    """Rows of a tile, and values of h that each thread holds (padded columns included)."""
    device, kind = m["device"], KINDS.get(m["kernel"], "rows")
    s = settings_module().settings(1, m["d"], DTYPES[m["dtype"]], capability(device), kind)
    return s.block_m, s.block_m * s.block_d // m["threads"]


def real_values(m: dict[str, object]) -> int:
    """Values of h that exist and that the busiest thread holds."""
    block_m, values = tile(m)
    vector = 16 // itemsize(m)
    # Every thread has a vector in each stretch of so many columns.
    stretch = m["threads"] * vector
    return min(values, block_m * -(-m["d"] // stretch) * vector)


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(kernel: str) -> None:
    for m in select((1, 129, *WIDTHS, 16384), kernel=kernel):
        assert (m["spills"], m["local"]) == (0, 0), m


@pytest.mark.parametrize("kernel", WITH_H)
def test_a_row_wider_than_a_tile_spills_no_tile(kernel: str) -> None:
    for m in select((40000,), kernel=kernel):
        assert m["local"] == 0, m
        assert m["spills"] <= 8, m


@pytest.mark.parametrize("kernel", FORWARDS)
def test_registers_of_a_forward(kernel: str) -> None:
    """What ``test_settings`` takes for granted where it counts the bytes in flight."""
    for m in select(kernel=kernel):
        if m["device"].startswith("sm_"):
            registers = forward_registers(tile(m)[0], m["d"], m["threads"])
            assert m["registers"] <= registers, (m, registers)


@pytest.mark.parametrize("kernel", COLUMN_SUMS)
def test_persistent_programs_are_resident(kernel: str) -> None:
    """Registers and shared memory are enough for every program of the grid to run at once."""
    for m in select((1, 129, *WIDTHS, 16384), kernel=kernel):
        c = capability(m["device"])
        module = settings_module()
        s = module.settings(10**7, m["d"], DTYPES[m["dtype"]], c, "columns")
        each = s.programs // c.multiprocessors
        # A program's shared memory has 1 KiB of the driver's besides.
        resident = module.resident_programs(m["threads"], m["registers"], m["shared"] + 1024, c)
        assert resident >= each, m


@pytest.mark.parametrize("kernel", KERNELS)
def test_registers_leave_room_for_other_programs(kernel: str) -> None:
    """Two programs or more share a multiprocessor, so that one loads while another computes."""
    for m in select(kernel=kernel):
        c = capability(m["device"])
        module = settings_module()
        assert module.resident_programs(m["threads"], m["registers"], m["shared"] + 1024, c) >= 2, m


@pytest.mark.parametrize("kernel", WITH_H)
def test_h_is_loaded_with_128_bits(kernel: str) -> None:
    """As many wide loads as the values of a thread need, for AMD's buffer loads as well."""
    for m in select(kernel=kernel):
        assert m["wide_loads"] >= real_values(m) * itemsize(m) // 16, m


@pytest.mark.parametrize("kernel", BACKWARDS)
def test_dh_is_stored_with_128_bits(kernel: str) -> None:
    for m in select(kernel=kernel):
        assert m["wide_stores"] >= real_values(m) * itemsize(m) // 16, m


@pytest.mark.parametrize("kernel", WITH_H)
def test_h_is_loaded_once(kernel: str) -> None:
    """One load of the tile serves every pass over a row that fits one.

    The backward of the sparse activations loads, besides, the few elements that are entries.
    """
    expected = 2 if kernel == "_sparse_bwd_kernel" else 1
    for m in select(kernel=kernel, dtype="bf16"):
        assert m["loads_of_h"] == expected, m


@pytest.mark.parametrize("kernel", WITH_H)
def test_h_leaves_the_cache_first(kernel: str) -> None:
    """Where h is read once it must not push out the mask, the weights and the column sums.

    Copies of the pipeline pass by the first-level cache; they can carry no other hint. The compiler
    has no such hint for AMD.
    """
    for m in select(kernel=kernel):
        if m["device"].startswith("sm_"):
            wanted = real_values(m) * itemsize(m) // 16
            assert m["evict_first"] >= wanted or m["async_copies"] >= wanted, m


# Instructions of a thread for each element of h, those of slow paths included. At 3.35 TB/s an H100's
# multiprocessor gets 7.2 bfloat16 numbers in each of its 1.755e9 cycles a second, and issues
# instructions for 128 threads: 18 for each number are what the full speed leaves, 35 for a gradient,
# which writes as much as it reads, and twice that for float32.
INSTRUCTIONS = {
    "_row_stats_fwd_kernel": 13,
    "_row_stats_bwd_kernel": 12,
    "_q_score_fwd_kernel": 21,
    "_q_score_bwd_kernel": 13,
    "_highly_active_kernel": 15,
    "_sparse_count_kernel": 17,
    "_activation_counts_kernel": 21,
    "_sparse_bwd_kernel": 16,
    "_q_score_loss_fwd_kernel": 29,
    "_q_score_loss_bwd_kernel": 24,
    "_score_rows_kernel": 35,
    "_sparse_fill_kernel": 55,
}


# With L on both sides.
TWO_SIDED_INSTRUCTIONS = INSTRUCTIONS | {
    "_q_score_fwd_kernel": 27,
    "_q_score_bwd_kernel": 16,
    "_highly_active_kernel": 16,
    "_sparse_count_kernel": 18,
    "_activation_counts_kernel": 22,
    "_q_score_loss_fwd_kernel": 33,
    "_q_score_loss_bwd_kernel": 26,
    "_score_rows_kernel": 37,
}


@pytest.mark.parametrize("kernel", WITH_H)
def test_few_instructions_for_each_element(kernel: str) -> None:
    for m in select((2048,), kernel=kernel, device="sm_90"):
        limits = TWO_SIDED_INSTRUCTIONS if m["two_sided"] else INSTRUCTIONS
        assert m["instructions"] <= limits[kernel], m


def test_every_target_is_measured() -> None:
    assert {m["device"] for m in measurements()} == set(DEVICES)
    for kernel in WITH_H:
        found = {(m["d"], m["dtype"]) for m in select(kernel=kernel, device="sm_90")}
        assert found == {(d, dtype) for d in WIDTHS for dtype in DTYPES}
    assert {m["kernel"] for m in select(two_sided=True)} == set(TWO_SIDED)
