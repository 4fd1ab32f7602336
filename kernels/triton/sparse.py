"""The highly active entries of h (M, D) in compressed sparse row order, and their gradient.

    value_j = (h_j - mu) / n    for j in L = { j : h_j > mu + eps sigma },  ascending in a row
    TWO_SIDED: L = { j : |h_j - mu| > eps sigma }
    dh = gradient of the statistics + (g_k [k in L] - sum_L g / D) / n - (sum_L g value) h / n^2

The number of entries is known only once h has been read: one kernel computes the statistics and
counts, the host reads the total (one synchronisation), a second kernel fills. Bytes moved per row,
with e entries and b bytes a number: forward 2 b D + 28 read, 36 + 8 e written; backward
b D + 44 + 12 e read, b D written; the entries' elements once more, from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import check_rows, launch, launch_settings, row_stride
from .row_stats import stats_factors, stats_gradient
from .settings import entries_block
from .tile import (
    active_elements,
    active_thresholds,
    load_block,
    load_field,
    reciprocal_norm,
    row_moments,
    row_offsets,
    store_field,
    store_moments,
    tile_rows,
)


@triton.jit
def store_thresholds(thresholds_ptr, high, low, row, row_ok, M, TWO_SIDED: tl.constexpr):
    """The thresholds of each row's entries, (1, M) or (2, M)."""
    store_field(thresholds_ptr, 0, high, row, row_ok, M)
    if TWO_SIDED:
        store_field(thresholds_ptr, 1, low, row, row_ok, M)


@triton.jit(do_not_specialize=["M"])
def _sparse_count_kernel(
    h_ptr,
    stats_ptr,
    thresholds_ptr,
    count_ptr,
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
    mean, std, l1, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
    high, low = active_thresholds(mean, std, l2, eps)
    count = tl.zeros((BLOCK_M,), tl.int32)
    for start in range(0, D, BLOCK_D):
        h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        active = active_elements(h, high, low, TWO_SIDED) & (column < D)[None, :]
        count += tl.sum(active.to(tl.int32), axis=1)
    store_moments(stats_ptr, mean, std, l1, l2, row, row_ok, M)
    store_thresholds(thresholds_ptr, high, low, row, row_ok, M, TWO_SIDED)
    tl.store(count_ptr + row, count, mask=row_ok)


@triton.jit(do_not_specialize=["M"])
def _sparse_fill_kernel(
    h_ptr,
    stats_ptr,
    thresholds_ptr,
    offsets_ptr,
    feature_ptr,
    value_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    mean = load_field(stats_ptr, 0, row, row_ok, M)
    n_inverse = reciprocal_norm(load_field(stats_ptr, 3, row, row_ok, M))
    high = load_field(thresholds_ptr, 0, row, row_ok, M)
    low = high
    if TWO_SIDED:
        low = load_field(thresholds_ptr, 1, row, row_ok, M)
    entry = tl.load(offsets_ptr + row, mask=row_ok, other=0)
    h_row = row_offsets(row, h_row_stride, D)
    for start in range(0, D, BLOCK_D):
        h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        active = active_elements(h, high, low, TWO_SIDED) & (column < D)[None, :]
        rank = tl.cumsum(active.to(tl.int32), axis=1) - 1
        position = entry[:, None] + rank
        feature = tl.broadcast_to(column[None, :], (BLOCK_M, BLOCK_D))
        tl.store(feature_ptr + position, feature, mask=active)
        tl.store(value_ptr + position, (h - mean[:, None]) * n_inverse[:, None], mask=active)
        entry += tl.sum(active.to(tl.int32), axis=1)


@triton.jit(do_not_specialize=["M"])
def _sparse_bwd_kernel(
    dvalue_ptr,
    dstats_ptr,
    h_ptr,
    offsets_ptr,
    feature_ptr,
    value_ptr,
    stats_ptr,
    dh_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    h_row = row_offsets(row, h_row_stride, D)
    dh_row = row * D
    first = tl.load(offsets_ptr + row, mask=row_ok, other=0)
    entries = (tl.load(offsets_ptr + row + 1, mask=row_ok, other=0) - first).to(tl.int32)
    most = tl.max(entries, axis=0)

    sum_g = tl.zeros((BLOCK_M,), tl.float32)
    sum_gv = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, most, BLOCK_E):
        rank = start + tl.arange(0, BLOCK_E)
        exists = rank[None, :] < entries[:, None]
        position = first[:, None] + rank[None, :]
        g = tl.load(dvalue_ptr + position, mask=exists, other=0.0)
        sum_g += tl.sum(g, axis=1)
        sum_gv += tl.sum(g * tl.load(value_ptr + position, mask=exists, other=0.0), axis=1)

    mean, constant, of_centred, of_sign, of_h = stats_factors(
        dstats_ptr, stats_ptr, row, row_ok, M, D
    )
    n_inverse = reciprocal_norm(load_field(stats_ptr, 3, row, row_ok, M))
    constant -= sum_g * n_inverse / D
    of_h -= sum_gv * n_inverse * n_inverse
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        dh = stats_gradient(h, mean, constant, of_centred, of_sign, of_h)
        dh_pointers = dh_ptr + dh_row[:, None] + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)

    # The entries of L once more, now with their own term, over what another thread may have stored.
    tl.debug_barrier()
    for start in range(0, most, BLOCK_E):
        rank = start + tl.arange(0, BLOCK_E)
        exists = rank[None, :] < entries[:, None]
        position = first[:, None] + rank[None, :]
        g = tl.load(dvalue_ptr + position, mask=exists, other=0.0)
        feature = tl.load(feature_ptr + position, mask=exists, other=0)
        h = tl.load(h_ptr + h_row[:, None] + feature, mask=exists, other=0.0).to(tl.float32)
        dh = stats_gradient(h, mean, constant, of_centred, of_sign, of_h)
        dh += g * n_inverse[:, None]
        tl.store(dh_ptr + dh_row[:, None] + feature, dh.to(dh_ptr.dtype.element_ty), mask=exists)


def empty_thresholds(h: Tensor, two_sided: bool) -> Tensor:
    """Room for the thresholds of the entries of each row of ``h``: the upper, TWO_SIDED and the lower."""
    return torch.empty((2 if two_sided else 1, h.shape[0]), dtype=torch.float32, device=h.device)


def fill_entries(
    h: Tensor, stats: Tensor, thresholds: Tensor, count: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """offsets, feature, value of the ``count`` (N,) entries of each row beyond its ``thresholds``."""
    rows, features = h.shape
    offsets = torch.empty(rows + 1, dtype=torch.int64, device=h.device)
    offsets[:1].zero_()
    torch.cumsum(count, 0, out=offsets[1:])

    entries = int(offsets[-1])
    feature = torch.empty(entries, dtype=torch.int32, device=h.device)
    value = torch.empty(entries, dtype=torch.float32, device=h.device)
    if entries:
        s = launch_settings(h, "entries")
        launch(
            _sparse_fill_kernel,
            s.programs,
            s.num_warps,
            h,
            stats,
            thresholds,
            offsets,
            feature,
            value,
            rows,
            features,
            row_stride(h),
            TWO_SIDED=len(thresholds) == 2,
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
        )
    return offsets, feature, value


def sparse_fwd(
    h: Tensor, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """offsets (N + 1,) int64, feature (nnz,) int32, value (nnz,) float32, statistics (4, N)."""
    rows, features = check_rows(h)
    stats = torch.empty((4, rows), dtype=torch.float32, device=h.device)
    thresholds = empty_thresholds(h, two_sided)
    count = torch.empty(rows, dtype=torch.int32, device=h.device)
    s = launch_settings(h)
    if rows:
        launch(
            _sparse_count_kernel,
            s.programs,
            s.num_warps,
            h,
            stats,
            thresholds,
            count,
            rows,
            features,
            row_stride(h),
            float(eps),
            TWO_SIDED=two_sided,
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
        )
    return *fill_entries(h, stats, thresholds, count), stats


def sparse_bwd(
    dvalue: Tensor,
    dstats: Tensor,
    h: Tensor,
    offsets: Tensor,
    feature: Tensor,
    value: Tensor,
    stats: Tensor,
) -> Tensor:
    """Gradient of ``h`` from those of the values (nnz,) and the statistics (4, N)."""
    rows, features = check_rows(h)
    dh = torch.empty((rows, features), dtype=h.dtype, device=h.device)
    if not rows:
        return dh
    s = launch_settings(h)
    launch(
        _sparse_bwd_kernel,
        s.programs,
        s.num_warps,
        dvalue,
        dstats,
        h,
        offsets,
        feature,
        value,
        stats,
        dh,
        rows,
        features,
        row_stride(h),
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
        BLOCK_E=entries_block(s),
    )
    return dh
