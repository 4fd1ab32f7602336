"""How a kernel is cut up: tile sizes, warps and programs, from the shape and type of ``h`` alone.

Nothing here is measured at run time, and nothing that is compiled depends on the number of rows, so
a kernel is compiled once per number of features and type.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

MAX_THREADS = 1024
# Two (16-bit) or four (32-bit) loads of 128 bits in flight for each thread. A row of up to 16384
# values then fits the registers of one program. Of a wider row as many are handled at a time, so
# that few rows are in flight and those stay in the cache between the passes.
VALUES_PER_THREAD = 16
# A heavy kernel keeps two 64-bit addresses for each value.
HEAVY_MAX_THREADS = 512
HEAVY_VALUES_PER_THREAD = 8
# Elements of a tile, when rows are shorter: many small programs hide the latency of memory ...
ROW_TILE = 2048
# ... but where each program leaves a row of column sums behind, few large ones are better.
COLUMN_TILE = 8192
# Sparse entries of all rows of a tile that are handled at a time.
ENTRIES_TILE = 128
# Shared memory for the tiles in flight of a pipelined loop; fits every GPU since Ampere.
PIPELINE_BYTES = 64 * 1024
MAX_STAGES = 3


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
class FinishSettings:
    """The program that ends the loss: ``block_m`` rows or ``block_p`` x ``block_d`` sums a step."""

    block_m: int
    block_p: int
    block_d: int
    num_warps: int


FINISH = FinishSettings(block_m=4096, block_p=8, block_d=1024, num_warps=16)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def settings(
    rows: int,
    features: int,
    dtype: torch.dtype,
    processors: int | None = None,
    heavy: bool = False,
    warp_size: int = 32,
) -> Settings:
    """Settings for ``h`` of shape (rows, features).

    Without ``processors`` there is one program a tile. With it the grid is persistent: at most one
    program for each of that many multiprocessors, for kernels that sum over columns. A ``heavy``
    kernel needs more registers for each value, and gets fewer values a thread.
    """
    persistent = processors is not None
    values, max_threads = VALUES_PER_THREAD, MAX_THREADS
    if heavy:
        values, max_threads = HEAVY_VALUES_PER_THREAD, HEAVY_MAX_THREADS
    widest = max_threads * values
    block_d = max(16, min(widest, 1 << (features - 1).bit_length()))
    block_m = max(1, min(widest, COLUMN_TILE if persistent else ROW_TILE) // block_d)
    threads = min(max_threads, max(128, block_m * block_d // values))
    tiles = cdiv(rows, block_m)
    tile_bytes = block_m * block_d * dtype.itemsize
    return Settings(
        block_m=block_m,
        block_d=block_d,
        num_warps=threads // warp_size,
        programs=min(tiles, processors) if persistent else tiles,
        num_stages=max(1, min(MAX_STAGES, PIPELINE_BYTES // tile_bytes)) if persistent else 1,
    )


def entries_block(s: Settings) -> int:
    """Entries of each row of a tile that the sparse backward handles at a time."""
    return max(4, ENTRIES_TILE // s.block_m)
