"""Everything about a batch h (M, D): statistics, scores, the census and the sparse activations.

One kernel reads h once and computes, for each row, what ``row_stats``, ``q_score`` and the first
half of ``sparse`` compute, and the census' column counts in registers; a second writes the entries
above keep_eps. Bytes moved per row, with e entries and b bytes a number: 2 b D + 28 read, 36 + 8 e
written, besides 4 D for each resident program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .active import count_active
from .launch import as_bytes, check_rows, launch, launch_settings, row_stride
from .q_score import row_scores
from .sparse import empty_thresholds, fill_entries, store_thresholds
from .tile import (
    active_elements,
    active_thresholds,
    add_to_partial,
    load_block,
    row_moments,
    row_offsets,
    store_moments,
    tile_rows,
)


@triton.jit(do_not_specialize=["M"])
def _score_rows_kernel(
    h_ptr,
    mask_ptr,
    stats_ptr,
    thresholds_ptr,
    entries_ptr,
    q_ptr,
    num_active_ptr,
    partial_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    eps,
    keep_eps,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    eps = tl.cast(eps, tl.float32)
    keep_eps = tl.cast(keep_eps, tl.float32)
    first = tl.program_id(0)
    partial_row = partial_ptr + first.to(tl.int64) * D
    counts = tl.zeros((BLOCK_D,), tl.int32)
    for tile in tl.range(first, tl.cdiv(M, BLOCK_M), tl.num_programs(0), num_stages=NUM_STAGES):
        row, row_ok = tile_rows(tile, M, BLOCK_M)
        h_row = row_offsets(row, h_row_stride, D)
        mean, std, l1, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
        high, low = active_thresholds(mean, std, l2, eps)
        keep_high, keep_low = active_thresholds(mean, std, l2, keep_eps)
        entries = tl.zeros((BLOCK_M,), tl.int32)
        for start in range(0, D, BLOCK_D):
            h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
            kept = active_elements(h, keep_high, keep_low, TWO_SIDED) & (column < D)[None, :]
            entries += tl.sum(kept.to(tl.int32), axis=1)
            active = count_active(h, high, low, TWO_SIDED)
            if D <= BLOCK_D:
                counts += active
            else:
                add_to_partial(partial_row, column, active, tile == first, D)
        q, num_active, _ = row_scores(
            h_ptr, h_row, row_ok, mask_ptr, mean, l2, high, low, D, TWO_SIDED, BLOCK_M, BLOCK_D
        )
        store_moments(stats_ptr, mean, std, l1, l2, row, row_ok, M)
        store_thresholds(thresholds_ptr, keep_high, keep_low, row, row_ok, M, TWO_SIDED)
        tl.store(entries_ptr + row, entries, mask=row_ok)
        tl.store(q_ptr + row, q, mask=row_ok)
        tl.store(num_active_ptr + row, num_active.to(tl.int32), mask=row_ok)
    if D <= BLOCK_D:
        column = tl.arange(0, BLOCK_D)
        tl.store(partial_row + column, counts, mask=column < D)


def score_rows(
    h: Tensor, mask: Tensor | None, eps: float, keep_eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores at ``eps`` and entries above ``keep_eps`` <= eps, for ``h`` (N, r); mask: bool (r,).

    Returns offsets (N + 1,) int64, feature (nnz,) int32, value (nnz,) float32, statistics (4, N),
    Q (N,) float32, the number of features in L and in the mask (N,) int32, and in how many rows
    each feature is in L (r,) int64. A row with NaN or Inf has no active feature, and its Q is NaN.
    """
    rows, features = check_rows(h)
    s = launch_settings(h, "columns")
    stats = torch.empty((4, rows), dtype=torch.float32, device=h.device)
    thresholds = empty_thresholds(h, two_sided)
    q = torch.empty(rows, dtype=torch.float32, device=h.device)
    entries, num_active = (torch.empty(rows, dtype=torch.int32, device=h.device) for _ in range(2))
    partial = torch.empty((s.programs, features), dtype=torch.int32, device=h.device)
    if rows:
        launch(
            _score_rows_kernel,
            s.programs,
            s.num_warps,
            h,
            as_bytes(mask),
            stats,
            thresholds,
            entries,
            q,
            num_active,
            partial,
            rows,
            features,
            row_stride(h),
            float(eps),
            float(keep_eps),
            TWO_SIDED=two_sided,
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
            NUM_STAGES=s.num_stages,
        )
    return *fill_entries(h, stats, thresholds, entries), stats, q, num_active, partial.sum(0)
