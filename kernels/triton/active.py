"""L, the highly active entries of h (M, D), as a mask and as a count for each feature.

    L_i = { j : h_ij > mu_i + eps sigma_i }        counts_j = |{ i : j in L_i }|

TWO_SIDED: L_i holds the j with h_ij < mu_i - eps sigma_i as well.

Bytes moved per row, with b bytes a number: b D read; the mask writes D, the census nothing. A
program of the census counts over its rows in registers and leaves one row of int32, summed at the
end. Where a row does not fit one tile those sums stay in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import check_rows, launch, launch_settings, row_stride
from .tile import (
    active_elements,
    active_thresholds,
    add_to_partial,
    load_block,
    row_moments,
    row_offsets,
    tile_rows,
)


@triton.jit(do_not_specialize=["M"])
def _highly_active_kernel(
    h_ptr,
    active_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    eps,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    eps = tl.cast(eps, tl.float32)
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    h_row = row_offsets(row, h_row_stride, D)
    mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
    high, low = active_thresholds(mean, std, l2, eps)
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        active = active_elements(h, high, low, TWO_SIDED)
        active_pointers = active_ptr + row[:, None] * D + column[None, :]
        tl.store(active_pointers, active.to(tl.uint8), mask=inside)


@triton.jit
def count_active(h, high, low, TWO_SIDED: tl.constexpr):
    """How many rows of a tile each column is active in: none of those that do not exist."""
    return tl.sum(active_elements(h, high, low, TWO_SIDED).to(tl.int32), axis=0)


@triton.jit(do_not_specialize=["M"])
def _activation_counts_kernel(
    h_ptr,
    partial_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    eps,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    eps = tl.cast(eps, tl.float32)
    first = tl.program_id(0)
    partial_row = partial_ptr + first.to(tl.int64) * D
    counts = tl.zeros((BLOCK_D,), tl.int32)
    for tile in tl.range(first, tl.cdiv(M, BLOCK_M), tl.num_programs(0), num_stages=NUM_STAGES):
        row, row_ok = tile_rows(tile, M, BLOCK_M)
        h_row = row_offsets(row, h_row_stride, D)
        mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
        high, low = active_thresholds(mean, std, l2, eps)
        for start in range(0, D, BLOCK_D):
            h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
            active = count_active(h, high, low, TWO_SIDED)
            if D <= BLOCK_D:
                counts += active
            else:
                add_to_partial(partial_row, column, active, tile == first, D)
    if D <= BLOCK_D:
        column = tl.arange(0, BLOCK_D)
        tl.store(partial_row + column, counts, mask=column < D)


def highly_active(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    """L as bool (N, r), for ``h`` (N, r)."""
    rows, features = check_rows(h)
    active = torch.empty((rows, features), dtype=torch.bool, device=h.device)
    if not rows:
        return active
    s = launch_settings(h)
    launch(
        _highly_active_kernel,
        s.programs,
        s.num_warps,
        h,
        active.view(torch.uint8),
        rows,
        features,
        row_stride(h),
        float(eps),
        TWO_SIDED=two_sided,
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return active


def activation_counts(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    """In how many rows each feature is in L: int64 (r,), for ``h`` (N, r)."""
    rows, features = check_rows(h)
    s = launch_settings(h, "columns")
    partial = torch.empty((s.programs, features), dtype=torch.int32, device=h.device)
    if rows:
        launch(
            _activation_counts_kernel,
            s.programs,
            s.num_warps,
            h,
            partial,
            rows,
            features,
            row_stride(h),
            float(eps),
            TWO_SIDED=two_sided,
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
            NUM_STAGES=s.num_stages,
        )
    return partial.sum(0)
