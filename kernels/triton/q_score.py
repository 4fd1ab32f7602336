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
    load_members,
    reciprocal_norm,
    row_moments,
    scored_features,
    store_field,
    tile_rows,
)


@triton.jit
def row_scores(
    h_ptr,
    h_row,
    row_ok,
    mask_ptr,
    mean,
    l2,
    threshold,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Q and m of each row; both are 0 for a row that does not exist."""
    total = tl.zeros((BLOCK_M,), tl.float32)
    count = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        scored = scored_features(h, threshold, load_members(mask_ptr, column, D))
        scored = tl.where(scored, 1.0, 0.0)
        # Multiplied, not selected, so that a row with NaN or Inf gives NaN although its L is empty.
        total += tl.sum((h - mean[:, None]) * scored, axis=1)
        count += tl.sum(scored, axis=1)
    q = total / (tl.maximum(count, 1.0) * tl.where(l2 > 0, l2, 1.0))
    return tl.where(l2 == float("inf"), float("nan"), q), count


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
    h_row = row * h_row_stride
    mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
    threshold = active_threshold(mean, std, l2, eps)
    q, count = row_scores(h_ptr, h_row, row_ok, mask_ptr, mean, l2, threshold, D, BLOCK_M, BLOCK_D)
    tl.store(q_ptr + row, q, mask=row_ok)
    if saved_ptr is not None:
        store_field(saved_ptr, 0, threshold, row, row_ok, M)
        store_field(saved_ptr, 1, count, row, row_ok, M)
        store_field(saved_ptr, 2, l2, row, row_ok, M)


@triton.jit
def score_factors(dq, count, n_inverse, D: tl.constexpr):
    """In the gradient of Q: the constant of an element in S, and that of one outside."""
    scale = tl.where(count > 0, dq * n_inverse, 0.0)
    return scale * (1.0 / tl.maximum(count, 1.0) - 1.0 / D), -scale / D


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
    in_s, outside_s = score_factors(dq, count, n_inverse, D)
    # NaN where Q is NaN, and then so is the whole row.
    of_unit = dq * n_inverse * q
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, row * h_row_stride, start, row_ok, D, BLOCK_D)
        scored = scored_features(h, threshold, load_members(mask_ptr, column, D))
        unit = h * n_inverse[:, None]
        dh = tl.where(scored, in_s[:, None], outside_s[:, None]) - of_unit[:, None] * unit
        dh_pointers = dh_ptr + row[:, None] * D + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)


def _score(h: Tensor, mask: Tensor | None, eps: float, saved: Tensor | None) -> Tensor:
    rows, features = check_rows(h)
    q = torch.empty(rows, dtype=torch.float32, device=h.device)
    if not rows:
        return q
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
    return q


def q_score(h: Tensor, mask: Tensor | None, eps: float) -> Tensor:
    """Q (N,) float32 for ``h`` (N, r), where no gradient is wanted; ``mask``: bool (r,)."""
    return _score(h, mask, eps, None)


def q_score_fwd(h: Tensor, mask: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """Q (N,) and what its gradient needs (3, N), float32, for ``h`` (N, r); ``mask``: bool (r,)."""
    saved = torch.empty((3, h.shape[0]), dtype=torch.float32, device=h.device)
    return _score(h, mask, eps, saved), saved


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
