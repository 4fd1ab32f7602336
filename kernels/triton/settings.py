"""How a kernel is cut up: tile sizes, warps and programs, from the shape and type of ``h`` alone.

Nothing here is measured at run time, and nothing that is compiled depends on the number of rows, so
a kernel is compiled once per number of features and type. All kernels that add up rows have the
same tile, so that their statistics and scores agree to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

# Of 16-bit numbers a GPU's memory delivers more a cycle than a few instructions each can handle, so
# every shuffle and barrier of a reduction must serve many values: up to 2048 values, one row or
# several, are one warp's alone, in 4 to 16 loads of 128 bits for each of its threads.
VALUES_PER_THREAD = 64
ROW_TILE = 2048
# Several programs share a multiprocessor, so that some load while others compute. A row of up to
# 16384 values then fits the registers of one program. Of a wider row as many are handled at a time,
# so that few rows are in flight and those stay in the cache between the passes.
MAX_THREADS = 256
# The kernel that writes sparse entries keeps two 64-bit addresses and a rank for each value.
ENTRY_VALUES_PER_THREAD = 8
ENTRY_MAX_THREADS = 512
# Sparse entries of all rows of a tile that are handled at a time.
ENTRIES_TILE = 128
# Registers of a thread, as an upper bound, where it keeps a column sum beside each value.
COLUMN_REGISTERS = 256
# Tiles of a pipelined loop that are in shared memory at a time, at most.
MAX_STAGES = 3
# The one program that ends the loss, and how many columns it handles at a time.
FINISH_BLOCK = 4096
FINISH_WARPS = 8
# A program of the pooling is one warp: channels-last each of its threads owns channels and adds up
# their positions alone; otherwise the threads share the positions of a channel.
MAP_TILE = 2048
MAP_POSITIONS = 256
# Channels that are listed at a time, and channels and positions that are combined at a time.
LIST_TILE = 1024
COMBINE_TILE = 1024
COMBINE_WARPS = 4
# Of both NVIDIA and AMD.
MAX_RESIDENT_PROGRAMS = 32

Kind = Literal["rows", "columns", "entries"]


@dataclass(frozen=True)
class Capability:
    """What a device offers: ``registers`` of 32 bits and ``shared_bytes`` for each multiprocessor."""

    arch: str  # "sm_90", "gfx942", ...
    multiprocessors: int
    warp_size: int
    registers: int
    shared_bytes: int


@dataclass(frozen=True)
class Settings:
    """Launch parameters of one kernel.

    ``block_m`` rows by ``block_d`` columns are one tile. ``programs`` is the size of the grid;
    ``num_stages`` is the depth of the pipeline over tiles where a program handles several of them.
    """

    block_m: int
    block_d: int
    num_warps: int
    programs: int
    num_stages: int


@dataclass(frozen=True)
class SumSettings:
    """How the partial sums of the loss are added: ``block_p`` of ``block_d`` columns a step.

    ``programs`` of them share the columns and, ``block_m`` rows a step, the weights of the rows.
    """

    block_m: int
    block_p: int
    block_d: int
    num_warps: int
    programs: int


@dataclass(frozen=True)
class MapSettings:
    """How feature maps are pooled and combined: tiles of channels by positions, and warps."""

    pool_c: int
    pool_p: int
    pool_warps: int
    list_c: int
    combine_m: int
    combine_p: int
    combine_warps: int


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def resident_programs(
    threads: int, registers: int, shared_bytes: int, capability: Capability
) -> int:
    """How many programs a multiprocessor holds at a time, by registers and shared memory."""
    by_registers = capability.registers // (threads * 8 * cdiv(registers, 8))
    by_shared = capability.shared_bytes // max(shared_bytes, 1)
    return max(1, min(by_registers, by_shared, MAX_RESIDENT_PROGRAMS))


def settings(
    rows: int, features: int, dtype: torch.dtype, capability: Capability, kind: Kind = "rows"
) -> Settings:
    """Settings for ``h`` of shape (rows, features) on a device.

    A kernel of ``"rows"`` has one program a tile. One that sums over ``"columns"`` has a persistent
    grid of as many programs as are resident at a time, each with the next tiles on their way. One
    that writes ``"entries"`` needs more registers for each value, and gets fewer values a thread.
    """
    values, max_threads = VALUES_PER_THREAD, MAX_THREADS
    if kind == "entries":
        values, max_threads = ENTRY_VALUES_PER_THREAD, ENTRY_MAX_THREADS
    widest = max_threads * values
    block_d = max(16, min(widest, 1 << (features - 1).bit_length()))
    block_m = max(1, min(widest, ROW_TILE) // block_d)
    threads = max(capability.warp_size, block_m * block_d // values)
    tiles = cdiv(rows, block_m)
    programs, num_stages = tiles, 1
    if kind == "columns":
        tile_bytes = block_m * block_d * dtype.itemsize
        resident = resident_programs(threads, COLUMN_REGISTERS, 0, capability)
        # Only NVIDIA's copies go to shared memory by themselves; of that, half is for the pipeline,
        # which holds all stages but the one in registers.
        if capability.arch.startswith("sm_"):
            ahead = capability.shared_bytes // 2 // (resident * tile_bytes)
            num_stages = min(MAX_STAGES, 1 + ahead)
        programs = min(tiles, resident * capability.multiprocessors)
    return Settings(
        block_m=block_m,
        block_d=block_d,
        num_warps=threads // capability.warp_size,
        programs=programs,
        num_stages=num_stages,
    )


def sum_settings(rows: int, features: int, capability: Capability) -> SumSettings:
    """Settings of the kernel that adds the partial sums of a loss over (rows, features)."""
    block_m, block_d, threads = 1024, 32, 128
    row_blocks = min(cdiv(rows, block_m), capability.multiprocessors)
    return SumSettings(
        block_m=block_m,
        block_p=64,
        block_d=block_d,
        num_warps=threads // capability.warp_size,
        programs=max(cdiv(features, block_d), row_blocks),
    )


def map_settings(
    channels: int, positions: int, channels_last: bool, capability: Capability
) -> MapSettings:
    """Settings for maps of (channels, positions) on a device, whatever the number of samples."""
    all_c, all_p = power_of_two(channels), power_of_two(positions)
    if channels_last:
        pool_c = min(all_c, 8 * capability.warp_size)
        pool_p = min(all_p, MAP_TILE // pool_c)
    else:
        pool_p = min(all_p, MAP_POSITIONS)
        pool_c = min(all_c, MAP_TILE // pool_p)
    combine_p = min(all_p, MAP_POSITIONS)
    return MapSettings(
        pool_c=pool_c,
        pool_p=pool_p,
        pool_warps=1,
        list_c=min(all_c, LIST_TILE),
        combine_m=COMBINE_TILE // combine_p,
        combine_p=combine_p,
        combine_warps=COMBINE_WARPS * 32 // capability.warp_size,
    )


def power_of_two(n: int) -> int:
    """The smallest one that is not below ``n``."""
    return 1 << (n - 1).bit_length()


def entries_block(s: Settings) -> int:
    """Entries of each row of a tile that the sparse backward handles at a time."""
    return max(4, ENTRIES_TILE // s.block_m)
