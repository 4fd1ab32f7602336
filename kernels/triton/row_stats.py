"""Mean, standard deviation, L1 and L2 norm of every row of h (M, D), and their gradient.

    sigma^2 = sum (h - mu)^2 / (D - 1)        l1 = sum |h|        n^2 = sum h^2
    dh = dmean / D + dstd (h - mu) / ((D - 1) sigma) + dl1 sign(h) + dl2 h / n

Statistics are (4, M) float32: rows mean, std, l1, l2. Bytes moved per row, with b bytes a number:
forward b D read, 16 written; backward b D + 28 read, b D written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import check_rows, launch, launch_settings, row_stride
from .tile import (
    load_block,
    load_field,
    reciprocal_norm,
    row_moments,
    row_offsets,
    store_moments,
    tile_rows,
    times_sign,
)


@triton.jit(do_not_specialize=["M"])
def _row_stats_fwd_kernel(
    h_ptr,
    stats_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    mean, std, l1, l2 = row_moments(
        h_ptr, row_offsets(row, h_row_stride, D), row_ok, D, BLOCK_M, BLOCK_D
    )
    store_moments(stats_ptr, mean, std, l1, l2, row, row_ok, M)


@triton.jit
def stats_factors(dstats_ptr, stats_ptr, row, row_ok, M, D: tl.constexpr):
    """mu and the factors of 1, h - mu, sign(h) and h in the gradient of the statistics."""
    mean = load_field(stats_ptr, 0, row, row_ok, M)
    std = load_field(stats_ptr, 1, row, row_ok, M)
    l2 = load_field(stats_ptr, 3, row, row_ok, M)
    dmean = load_field(dstats_ptr, 0, row, row_ok, M)
    dstd = load_field(dstats_ptr, 1, row, row_ok, M)
    dl1 = load_field(dstats_ptr, 2, row, row_ok, M)
    dl2 = load_field(dstats_ptr, 3, row, row_ok, M)
    # sigma is NaN at D = 1.
    of_centred = tl.where((std == 0) | (D == 1), 0.0, dstd / ((D - 1) * std))
    return mean, dmean / D, of_centred, dl1, dl2 * reciprocal_norm(l2)


@triton.jit
def stats_gradient(h, mean, constant, of_centred, of_sign, of_h):
    of_sign = tl.broadcast_to(of_sign[:, None], h.shape)
    return (
        constant[:, None]
        + of_centred[:, None] * (h - mean[:, None])
        + times_sign(of_sign, h)
        + of_h[:, None] * h
    )


@triton.jit(do_not_specialize=["M"])
def _row_stats_bwd_kernel(
    dstats_ptr,
    h_ptr,
    stats_ptr,
    dh_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    mean, constant, of_centred, of_sign, of_h = stats_factors(
        dstats_ptr, stats_ptr, row, row_ok, M, D
    )
    h_row = row_offsets(row, h_row_stride, D)
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        dh = stats_gradient(h, mean, constant, of_centred, of_sign, of_h)
        dh_pointers = dh_ptr + row[:, None] * D + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)


def row_stats_fwd(h: Tensor) -> Tensor:
    """Statistics (4, N) float32 of the rows of ``h`` (N, r): mean, std, l1, l2."""
    rows, features = check_rows(h)
    stats = torch.empty((4, rows), dtype=torch.float32, device=h.device)
    if not rows:
        return stats
    s = launch_settings(h)
    launch(
        _row_stats_fwd_kernel,
        s.programs,
        s.num_warps,
        h,
        stats,
        rows,
        features,
        row_stride(h),
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return stats


def row_stats_bwd(dstats: Tensor, h: Tensor, stats: Tensor) -> Tensor:
    """Gradient of ``h`` from that of the statistics (4, N); contiguous, dtype of ``h``."""
    rows, features = check_rows(h)
    dh = torch.empty((rows, features), dtype=h.dtype, device=h.device)
    if not rows:
        return dh
    s = launch_settings(h)
    launch(
        _row_stats_bwd_kernel,
        s.programs,
        s.num_warps,
        dstats,
        h,
        stats,
        dh,
        rows,
        features,
        row_stride(h),
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return dh
