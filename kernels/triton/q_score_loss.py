"""The Q-Score regulariser of a batch h (M, D), and its gradient.

    c_k = sum_i |h_ik| / n_i      alpha = mean(Q)      beta = mean(c)
    row_weight_i = -lambda1 / M 1[Q_i < alpha]
    col_weight_k = lambda2 1[c_k > beta]      / M for reduction = "mean"
    loss = sum(row_weight Q) + sum(col_weight c)
    dh = row_weight dQ/dh + col_weight sign(h) / n - sum(col_weight |h|) h / n^3

Forward: as many programs as are resident at a time score their rows, and each leaves its sum of Q
and a row of partial column sums. Some programs then add these in a fixed order, which gives alpha
and the row weights; one finishes with beta. Backward: one kernel. Bytes moved per row, with b bytes
a number: forward b D + 4 read, 20 written, besides 8 D for each resident program; backward b D + 20
read, b D written. Where a row does not fit one tile its partial sums stay in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import as_bytes, check_rows, device_capability, launch, launch_settings, row_stride
from .q_score import (
    empty_saved,
    is_two_sided,
    row_scores,
    score_factors,
    score_gradient,
    store_saved,
)
from .settings import FINISH_BLOCK, FINISH_WARPS, sum_settings
from .tile import (
    active_thresholds,
    add_to_partial,
    load_block,
    load_field,
    load_members,
    reciprocal_norm,
    row_moments,
    row_offsets,
    tile_rows,
    times_sign,
)


@triton.jit(do_not_specialize=["M"])
def _q_score_loss_fwd_kernel(
    h_ptr,
    mask_ptr,
    q_ptr,
    saved_ptr,
    q_partial_ptr,
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
    q_sum = tl.zeros((BLOCK_M,), tl.float32)
    c = tl.zeros((BLOCK_D,), tl.float32)
    for tile in tl.range(first, tl.cdiv(M, BLOCK_M), tl.num_programs(0), num_stages=NUM_STAGES):
        row, row_ok = tile_rows(tile, M, BLOCK_M)
        h_row = row_offsets(row, h_row_stride, D)
        mean, std, _, l2 = row_moments(h_ptr, h_row, row_ok, D, BLOCK_M, BLOCK_D)
        high, low = active_thresholds(mean, std, l2, eps)
        q, count, balance = row_scores(
            h_ptr, h_row, row_ok, mask_ptr, mean, l2, high, low, D, TWO_SIDED, BLOCK_M, BLOCK_D
        )
        q_sum += q
        n_inverse = reciprocal_norm(l2)
        for start in range(0, D, BLOCK_D):
            h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
            norms = tl.sum(tl.abs(h * n_inverse[:, None]), axis=0)
            if D <= BLOCK_D:
                c += norms
            else:
                add_to_partial(partial_row, column, norms, tile == first, D)
        tl.store(q_ptr + row, q, mask=row_ok)
        store_saved(saved_ptr, high, low, count, balance, l2, row, row_ok, M, TWO_SIDED)
    tl.store(q_partial_ptr + first, tl.sum(q_sum, axis=0))
    if D <= BLOCK_D:
        column = tl.arange(0, BLOCK_D)
        tl.store(partial_row + column, c, mask=column < D)


@triton.jit(do_not_specialize=["M", "P"])
def _q_score_loss_sums_kernel(
    q_ptr,
    q_partial_ptr,
    partial_ptr,
    row_weight_ptr,
    row_loss_ptr,
    c_ptr,
    M,
    P,
    D: tl.constexpr,
    row_scale,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row_scale = tl.cast(row_scale, tl.float32)
    program = tl.program_id(0)

    q_sum = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, P, BLOCK_M):
        term = start + tl.arange(0, BLOCK_M)
        q_sum += tl.load(q_partial_ptr + term, mask=term < P, other=0.0)
    alpha = tl.sum(q_sum, axis=0) / M
    row_loss = tl.zeros((BLOCK_M,), tl.float32)
    for tile in range(program, tl.cdiv(M, BLOCK_M), tl.num_programs(0)):
        row, row_ok = tile_rows(tile, M, BLOCK_M)
        q = tl.load(q_ptr + row, mask=row_ok, other=0.0)
        row_weight = tl.where(q < alpha, row_scale, 0.0)
        tl.store(row_weight_ptr + row, row_weight, mask=row_ok)
        # Multiplied, not selected, so that NaN reaches the loss.
        row_loss += row_weight * q
    tl.store(row_loss_ptr + program, tl.sum(row_loss, axis=0))

    column = program * BLOCK_D + tl.arange(0, BLOCK_D)
    c = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for start in range(0, tl.where(program * BLOCK_D < D, P, 0), BLOCK_P):
        term = start + tl.arange(0, BLOCK_P)
        inside = (term < P)[:, None] & (column < D)[None, :]
        pointers = partial_ptr + term.to(tl.int64)[:, None] * D + column[None, :]
        c += tl.load(pointers, mask=inside, other=0.0)
    tl.store(c_ptr + column, tl.sum(c, axis=0), mask=column < D)


@triton.jit(do_not_specialize=["G"])
def _q_score_loss_finish_kernel(
    c_ptr,
    row_loss_ptr,
    loss_ptr,
    col_weight_ptr,
    G,
    D: tl.constexpr,
    col_scale,
    BLOCK_D: tl.constexpr,
):
    col_scale = tl.cast(col_scale, tl.float32)
    c_sum = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, D, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        c_sum += tl.load(c_ptr + column, mask=column < D, other=0.0)
    beta = tl.sum(c_sum, axis=0) / D

    loss = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(0, G, BLOCK_D):
        term = start + tl.arange(0, BLOCK_D)
        loss += tl.load(row_loss_ptr + term, mask=term < G, other=0.0)
    for start in range(0, D, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        c = tl.load(c_ptr + column, mask=column < D, other=0.0)
        col_weight = tl.where(c > beta, col_scale, 0.0)
        tl.store(col_weight_ptr + column, col_weight, mask=column < D)
        loss += col_weight * c
    tl.store(loss_ptr, tl.sum(loss, axis=0))


@triton.jit(do_not_specialize=["M"])
def _q_score_loss_bwd_kernel(
    dloss_ptr,
    h_ptr,
    mask_ptr,
    q_ptr,
    saved_ptr,
    row_weight_ptr,
    col_weight_ptr,
    dh_ptr,
    M,
    D: tl.constexpr,
    h_row_stride,
    TWO_SIDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row, row_ok = tile_rows(tl.program_id(0), M, BLOCK_M)
    h_row = row_offsets(row, h_row_stride, D)
    dloss = tl.load(dloss_ptr)
    q = tl.load(q_ptr + row, mask=row_ok, other=0.0)
    row_weight = tl.load(row_weight_ptr + row, mask=row_ok, other=0.0)
    n_inverse = reciprocal_norm(load_field(saved_ptr, 2, row, row_ok, M))

    overuse = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, D, BLOCK_D):
        h, column, _inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        col_weight = tl.load(col_weight_ptr + column, mask=column < D, other=0.0)
        overuse += tl.sum(col_weight[None, :] * tl.abs(h), axis=1)
    scale = dloss * n_inverse
    high, low, above, below, outside = score_factors(
        dloss * row_weight, saved_ptr, row, row_ok, M, D, TWO_SIDED
    )
    # NaN where Q is NaN, and then so is the whole row.
    of_unit = scale * (row_weight * q + overuse * n_inverse)
    for start in range(0, D, BLOCK_D):
        h, column, inside = load_block(h_ptr, h_row, start, row_ok, D, BLOCK_D)
        col_weight = tl.load(col_weight_ptr + column, mask=column < D, other=0.0)
        members = load_members(mask_ptr, column, D)
        dh = score_gradient(h, members, high, low, above, below, outside, TWO_SIDED)
        dh -= of_unit[:, None] * (h * n_inverse[:, None])
        dh += times_sign(scale[:, None] * col_weight[None, :], h)
        dh_pointers = dh_ptr + row[:, None] * D + column[None, :]
        tl.store(dh_pointers, dh.to(dh_ptr.dtype.element_ty), mask=inside)


def _empty(h: Tensor, *shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.empty(shape, dtype=torch.float32, device=h.device) for shape in shapes)


def _score_with_columns(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q (N,), saved (3 or 5, N), and what each program leaves: its sum of Q (P,), its columns (P, r)."""
    rows, features = check_rows(h)
    s = launch_settings(h, "columns")
    saved = empty_saved(h, two_sided)
    q, q_partial, partial = _empty(h, (rows,), (s.programs,), (s.programs, features))
    if not rows:
        return q, saved, q_partial.zero_(), partial.zero_()
    launch(
        _q_score_loss_fwd_kernel,
        s.programs,
        s.num_warps,
        h,
        as_bytes(mask),
        q,
        saved,
        q_partial,
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
    return q, saved, q_partial, partial


def q_score_loss_fwd(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """loss (), Q (N,), saved (3 or 5, N), row_weight (N,), col_weight (r,): float32, for ``h`` (N, r).

    ``saved`` is what ``q_score_fwd`` saves. Without rows the loss is 0.
    """
    rows, features = check_rows(h)
    sums = sum_settings(rows, features, device_capability(h))
    q, saved, q_partial, partial = _score_with_columns(h, mask, eps, two_sided)
    loss, row_weight, col_weight, row_loss, c = _empty(
        h, (), (rows,), (features,), (sums.programs,), (features,)
    )
    if not rows:
        return loss.zero_(), q, saved, row_weight, col_weight.zero_()
    launch(
        _q_score_loss_sums_kernel,
        sums.programs,
        sums.num_warps,
        q,
        q_partial,
        partial,
        row_weight,
        row_loss,
        c,
        rows,
        len(partial),
        features,
        -lambda1 / rows,
        BLOCK_M=sums.block_m,
        BLOCK_P=sums.block_p,
        BLOCK_D=sums.block_d,
    )
    launch(
        _q_score_loss_finish_kernel,
        1,
        FINISH_WARPS,
        c,
        row_loss,
        loss,
        col_weight,
        sums.programs,
        features,
        lambda2 / rows if mean else float(lambda2),
        BLOCK_D=FINISH_BLOCK,
    )
    return loss, q, saved, row_weight, col_weight


def q_score_loss_partial(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Q (N,), saved (3 or 5, N), sums (r + 2,) of ``h`` (N, r): what a loss over several processes needs.

    ``sums`` is float64: the column norms c, the sum of Q, N. The sums of the programs are added by
    torch, in an order that is always the same; with a collective to follow, two more launches are
    nothing.
    """
    rows, features = check_rows(h)
    q, saved, q_partial, partial = _score_with_columns(h, mask, eps, two_sided)
    sums = torch.full((features + 2,), float(rows), dtype=torch.float64, device=h.device)
    torch.sum(partial, 0, dtype=torch.float64, out=sums[:features])
    torch.sum(q_partial, 0, dtype=torch.float64, out=sums[features])
    return q, saved, sums


def q_score_loss_bwd(
    dloss: Tensor,
    h: Tensor,
    mask: Tensor | None,
    q: Tensor,
    saved: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
) -> Tensor:
    """Gradient of ``h`` from that of the loss, (); contiguous, dtype of ``h``."""
    rows, features = check_rows(h)
    dh = torch.empty((rows, features), dtype=h.dtype, device=h.device)
    if not rows:
        return dh
    s = launch_settings(h)
    launch(
        _q_score_loss_bwd_kernel,
        s.programs,
        s.num_warps,
        dloss,
        h,
        as_bytes(mask),
        q,
        saved,
        row_weight,
        col_weight,
        dh,
        rows,
        features,
        row_stride(h),
        TWO_SIDED=is_two_sided(saved),
        BLOCK_M=s.block_m,
        BLOCK_D=s.block_d,
    )
    return dh
