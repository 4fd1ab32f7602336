"""Q-Score of every row of h (M, D), and its gradient.

    L = { j : h_j > mu + eps sigma }      S = L within the mask      m = |S|
    Q = sum over S of (h - mu) / (m n)    0 where S is empty
    dQ/dh = ((1[in S] / m - 1 / D) - Q h / n) / n

TWO_SIDED: L = { j : |h_j - mu| > eps sigma }      s_j = sign(h_j - mu)
    Q = sum over S of s (h - mu) / (m n)
    dQ/dh = ((s 1[in S] / m - (sum over S of s) / (m D)) - Q h / n) / n

Saved for the gradient are (3, M) float32: rows threshold, m, n; and TWO_SIDED, (5, M), the lower
threshold and the sum of s. The comparison with the thresholds is repeated, so that the backward has
the same set. Bytes moved per row, with b bytes a number: forward b D read, 16 written (TWO_SIDED
24); backward b D + 20 read (28), b D written; the mask comes from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import as_bytes, check_rows, launch, launch_settings, row_stride
from .tile import (
    active_elements,
    active_thresholds,
    load_block,
    load_field,
    load_members,
    reciprocal_norm,
    row_moments,
    row_offsets,
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
    high,
    low,
    D: tl.constexpr,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Q, m and the sum of s of each row; all are 0 for a row that does not exist."""
    total = tl.zeros((BLOCK_M,), tl.float32)
    count = tl.zeros((BLOCK_M,), tl.float32)
    balance = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        members = load_members(mask_ptr, column, D)[None, :]
        # Multiplied, not selected, so that a row with NaN or Inf gives NaN although its L is empty.
        if TWO_SIDED:
            active = active_elements(h, high, low, TWO_SIDED) & members
            scored = tl.where(active, 1.0, 0.0)
            total += tl.sum(tl.abs(h - mean[:, None]) * scored, axis=1)
            count += tl.sum(scored, axis=1)
            sign = tl.where(active, tl.where(h < low[:, None], -1.0, 1.0), 0.0)
            balance += tl.sum(sign, axis=1)
        else:
            scored = tl.where((h > high[:, None]) & members, 1.0, 0.0)
            total += tl.sum((h - mean[:, None]) * scored, axis=1)
            count += tl.sum(scored, axis=1)
    q = total / (tl.maximum(count, 1.0) * tl.where(l2 > 0, l2, 1.0))
    return tl.where(l2 == float("inf"), float("nan"), q), count, balance


@triton.jit
def store_saved(saved_ptr, high, low, count, balance, l2, row, row_ok, M, TWO_SIDED: tl.constexpr):
    """What the gradient of each row's Q needs, (3, M) or (5, M)."""
    store_field(saved_ptr, 0, high, row, row_ok, M)
    store_field(saved_ptr, 1, count, row, row_ok, M)
    store_field(saved_ptr, 2, l2, row, row_ok, M)
    if TWO_SIDED:
        store_field(saved_ptr, 3, low, row, row_ok, M)
        store_field(saved_ptr, 4, balance, row, row_ok, M)


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
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    eps = tl.cast(eps, tl.float32)
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    h_row = row_offsets(row, h_row_stride, D)
    mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
    high, low = active_thresholds(mean, std, l2, eps)
    q, count, balance = row_scores(
        h_ptr, h_row, row_ok, mask_ptr, mean, l2, high, low, D, TWO_SIDED, BLOCK_M, BLOCK_D
    )
    tl.store(q_ptr + row, q, mask=row_ok)
    if saved_ptr is not None:
        store_saved(saved_ptr, high, low, count, balance, l2, row, row_ok, M, TWO_SIDED)


@triton.jit
def score_factors(dq, saved_ptr, row, row_ok, M, D: tl.constexpr, TWO_SIDED: tl.constexpr):
    """In the gradient of Q: the thresholds, and the constants of an element above, below, outside."""
    high = load_field(saved_ptr, 0, row, row_ok, M)
    count = load_field(saved_ptr, 1, row, row_ok, M)
    n_inverse = reciprocal_norm(load_field(saved_ptr, 2, row, row_ok, M))
    scale = tl.where(count > 0, dq * n_inverse, 0.0)
    low, below = high, scale
    each = 1.0 / tl.maximum(count, 1.0)
    if TWO_SIDED:
        low = load_field(saved_ptr, 3, row, row_ok, M)
        share = load_field(saved_ptr, 4, row, row_ok, M) * each / D
        above, below, outside = scale * (each - share), scale * (-each - share), -scale * share
    else:
        above, outside = scale * (each - 1.0 / D), -scale / D
    return high, low, above, below, outside


@triton.jit
def score_gradient(h, members, high, low, above, below, outside, TWO_SIDED: tl.constexpr):
    """The part of a tile's gradient of Q that is constant on each side: see ``score_factors``."""
    members = members[None, :]
    dh = tl.where((h > high[:, None]) & members, above[:, None], outside[:, None])
    if TWO_SIDED:
        dh = tl.where((h < low[:, None]) & members, below[:, None], dh)
    return dh


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
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    dq = tl.load(dq_ptr + row, mask=row_ok, other=0.0)
    q = tl.load(q_ptr + row, mask=row_ok, other=0.0)
    n_inverse = reciprocal_norm(load_field(saved_ptr, 2, row, row_ok, M))
    high, low, above, below, outside = score_factors(dq, saved_ptr, row, row_ok, M, D, TWO_SIDED)
    h_row = row_offsets(row, h_row_stride, D)
    # NaN where Q is NaN, and then so is the whole row.
    of_unit = dq * n_inverse * q
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        members = load_members(mask_ptr, column, D)
        dh = score_gradient(h, members, high, low, above, below, outside, TWO_SIDED)
        dh -= of_unit[:, None] * (h * n_inverse[:, None])
        dh_pointers = dh_ptr + row[:, None] * D + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)


def empty_saved(h: Tensor, two_sided: bool) -> Tensor:
    """Room for what the gradient of Q needs of the rows of ``h``; its size tells whether L is two-sided."""
    return torch.empty((5 if two_sided else 3, h.shape[0]), dtype=torch.float32, device=h.device)


def is_two_sided(saved: Tensor) -> bool:
    return saved.shape[0] == 5


def _score(
    h: Tensor, mask: Tensor | None, eps: float, saved: Tensor | None, two_sided: bool
) -> Tensor:
    rows, features = check_rows(h)
    q = torch.empty(rows, dtype=torch.float32, device=h.device)
    if not rows:
        return q
    s = launch_settings(h)
    launch(
        _q_score_fwd_kernel,
        s.programs,
        s.num_warps,
        h,
        as_bytes(mask),
        q,
        saved,
        rows,
        features,
        row_stride(h),
        float(eps),
        TWO_SIDED=two_sided,
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return q


def q_score(h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False) -> Tensor:
    """Q (N,) float32 for ``h`` (N, r), where no gradient is wanted; ``mask``: bool (r,)."""
    return _score(h, mask, eps, None, two_sided)


def q_score_fwd(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    """Q (N,) and what its gradient needs, (3, N) or (5, N), float32, for ``h`` (N, r)."""
    saved = empty_saved(h, two_sided)
    return _score(h, mask, eps, saved, two_sided), saved


def q_score_bwd(dq: Tensor, h: Tensor, mask: Tensor | None, q: Tensor, saved: Tensor) -> Tensor:
    """Gradient of ``h`` from that of Q (N,); contiguous, dtype of ``h``."""
    rows, features = check_rows(h)
    dh = torch.empty((rows, features), dtype=h.dtype, device=h.device)
    if not rows:
        return dh
    s = launch_settings(h)
    launch(
        _q_score_bwd_kernel,
        s.programs,
        s.num_warps,
        dq,
        h,
        as_bytes(mask),
        q,
        saved,
        dh,
        rows,
        features,
        row_stride(h),
        TWO_SIDED=is_two_sided(saved),
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return dh
