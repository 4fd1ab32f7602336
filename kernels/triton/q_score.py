"""Q-Score of every row of h (M, D), and its gradient.

    L = { j : h_j > mu + eps sigma }      S = L within the mask      m = |S|
    Q = sum over S of (h - mu) / (m n)    0 where S is empty
    dQ/dh = ((1[in S] / m - 1 / D) - Q h / n) / n

Saved for the gradient are (3, M) float32: rows threshold, m, n. The comparison with the threshold
is repeated, so that the backward has the same set. Bytes moved per row, with b bytes a number:
forward b D read, 16 written; backward b D + 20 read, b D written; the mask comes from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import as_bytes, check_rows, device_guard, launch_settings
from .tile import (
    active_threshold,
    load_block,
    load_field,
    reciprocal_norm,
    row_moments,
    store_field,
    tile_rows,
)


@triton.jit
def scored_features(h, column, inside, threshold, mask_ptr, D: tl.constexpr):
    """S: which elements of the tile are in L and in the mask."""
    scored = inside & (h > threshold[:, None])
    if mask_ptr is not None:
        discriminative = tl.load(mask_ptr + column, mask=column < D, other=0) != 0
        scored = scored & discriminative[None, :]
    return scored


@triton.jit
def score_rows(
    h_ptr,
    h_row,
    row_ok,
    mask_ptr,
    eps,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Q, threshold, m and n of each row."""
    mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
    threshold = active_threshold(mean, std, l2, eps)
    total = tl.zeros((BLOCK_M,), tl.float32)
    count = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        scored = scored_features(h, column, inside, threshold, mask_ptr, D).to(tl.float32)
        # Multiplied, not selected, so that a row with NaN or Inf gives NaN although its L is empty.
        total += tl.sum(tl.where(inside, h - mean[:, None], 0.0) * scored, axis=1)
        count += tl.sum(scored, axis=1)
    q = total / (tl.maximum(count, 1.0) * tl.where(l2 > 0, l2, 1.0))
    return tl.where(l2 == float("inf"), float("nan"), q), threshold, count, l2


@triton.jit(do_not_specialize=["M"])
def _q_score_fwd_kernel(
    h_ptr,
    mask_ptr,
    q_ptr,
    saved_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    eps,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    eps = tl.cast(eps, tl.float32)
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    q, threshold, count, l2 = score_rows(
        h_ptr, row * h_row_stride, row_ok, mask_ptr, eps, D, BLOCK_M, BLOCK_D
    )
    tl.store(q_ptr + row, q, mask=row_ok)
    store_field(saved_ptr, 0, threshold, row, row_ok, M)
    store_field(saved_ptr, 1, count, row, row_ok, M)
    store_field(saved_ptr, 2, l2, row, row_ok, M)


@triton.jit
def q_gradient(unit, scored, q, count, D: tl.constexpr):
    """n dQ/dh for rows ``unit`` = h / n: 0 where m = 0, NaN in the whole row where Q is NaN."""
    of_scored = tl.where(count > 0, 1.0 / tl.maximum(count, 1.0), 0.0)
    of_mean = tl.where(count > 0, 1.0 / D, 0.0)
    return tl.where(scored, of_scored[:, None], 0.0) - of_mean[:, None] - q[:, None] * unit


@triton.jit(do_not_specialize=["M"])
def _q_score_bwd_kernel(
    dq_ptr,
    h_ptr,
    mask_ptr,
    q_ptr,
    saved_ptr,
    dh_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    dq = tl.load(dq_ptr + row, mask=row_ok, other=0.0)
    q = tl.load(q_ptr + row, mask=row_ok, other=0.0)
    threshold = load_field(saved_ptr, 0, row, row_ok, M)
    count = load_field(saved_ptr, 1, row, row_ok, M)
    n_inverse = reciprocal_norm(load_field(saved_ptr, 2, row, row_ok, M))
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, row * h_row_stride, start, row_ok, D, BLOCK_D)
        scored = scored_features(h, column, inside, threshold, mask_ptr, D)
        unit = h * n_inverse[:, None]
        dh = (dq * n_inverse)[:, None] * q_gradient(unit, scored, q, count, D)
        dh_pointers = dh_ptr + row[:, None] * D + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)


def q_score_fwd(h: Tensor, mask: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Q (N,) and what its gradient needs (3, N), float32, for ``h`` (N, r); ``mask``: bool (r,)."""
    rows, features = check_rows(h)
    q = torch.empty(rows, dtype=torch.float32, device=h.device)
    saved = torch.empty((3, rows), dtype=torch.float32, device=h.device)
    if not rows:
        return q, saved
    s = launch_settings(h)
    with device_guard(h):
        _q_score_fwd_kernel[(s.programs,)](
            h,
            as_bytes(mask),
            q,
            saved,
            rows,
            features,
            h.stride(0),
            float(eps),
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
            num_warps=s.num_warps,
        )
    return q, saved


def q_score_bwd(dq: Tensor, h: Tensor, mask: Tensor | None, q: Tensor, saved: Tensor) -> Tensor:
    """Gradient of ``h`` from that of Q (N,); contiguous, dtype of ``h``."""
    rows, features = check_rows(h)
    dh = torch.empty((rows, features), dtype=h.dtype, device=h.device)
    if not rows:
        return dh
    s = launch_settings(h)
    with device_guard(h):
        _q_score_bwd_kernel[(s.programs,)](
            dq,
            h,
            as_bytes(mask),
            q,
            saved,
            dh,
            rows,
            features,
            h.stride(0),
            BLOCK_M=s.block_m,
            BLOCK_D=s.block_d,
            num_warps=s.num_warps,
        )
    return dh
