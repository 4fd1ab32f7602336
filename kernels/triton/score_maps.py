"""Representations, scores and heat maps from the last feature maps F (N, C, P), P positions.

    h_c = mean over p of F_cp        S = L of h within the mask
    heat_p = sum (or mean, or max) over c in S of s_c F_cp        s_c = 1, TWO_SIDED sign(h_c - mu)

RECTIFY takes max(s_c F_cp, 0) instead. Three launches: F is read once and pooled; h is scored as any
other h; each sample lists its S and reads those channels again, which are few, out of the cache
where the batch fits it. Bytes moved per sample, with b bytes a number and m = |S|: C P b + 8 C +
m P b read, 4 C + 4 P written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import DTYPES, as_bytes, device_capability, launch
from .q_score import q_score_fwd
from .settings import map_settings
from .tile import load_members

COMBINATIONS = {"sum": 0, "mean": 1, "max": 2}
# Offsets inside a sample are 32-bit.
MAX_SAMPLE_ELEMENTS = 2**31 - 1


@triton.jit
def _pool_maps_kernel(
    maps_ptr,
    h_ptr,
    C: tl.constexpr,
    P: tl.constexpr,
    sample_stride,
    channel_stride,
    position_stride,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    BLOCKS: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    sample = (tl.program_id(0) // BLOCKS).to(tl.int64)
    channel = tl.program_id(0) % BLOCKS * BLOCK_C + tl.arange(0, BLOCK_C)
    exists = channel < C
    of_channel = maps_ptr + sample * sample_stride + channel * channel_stride
    total = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, P, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        pointers = of_channel[None, :] + (position * position_stride)[:, None]
        inside = exists[None, :] & (position < P)[:, None]
        total += tl.sum(tl.load(pointers, mask=inside, other=0.0).to(tl.float32), axis=0)
    h = tl.div_rn(total, tl.full((BLOCK_C,), P, tl.float32))
    tl.store(h_ptr + sample * C + channel, h, mask=exists)


@triton.jit
def list_members(
    h_ptr,
    mask_ptr,
    high,
    low,
    list_ptr,
    C: tl.constexpr,
    TWO_SIDED: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Writes the channels of S of one sample, as ~c where h is below the mean; returns how many."""
    count = tl.full((), 0, tl.int32)
    for start in range(0, C, BLOCK_C):
        channel = start + tl.arange(0, BLOCK_C)
        h = tl.load(h_ptr + channel, mask=channel < C, other=0.0)
        members = load_members(mask_ptr, channel, C)
        listed = (h > high) & members
        entry = channel
        if TWO_SIDED:
            below = (h < low) & members
            listed = listed | below
            entry = tl.where(below, ~channel, channel)
        ones = listed.to(tl.int32)
        tl.store(list_ptr + count + tl.cumsum(ones, axis=0) - 1, entry, mask=listed)
        count += tl.sum(ones, axis=0)
    return count


@triton.jit(do_not_specialize=["N"])
def _combine_maps_kernel(
    maps_ptr,
    mask_ptr,
    h_ptr,
    q_ptr,
    saved_ptr,
    list_ptr,
    num_active_ptr,
    heat_ptr,
    N,
    C: tl.constexpr,
    P: tl.constexpr,
    sample_stride,
    channel_stride,
    position_stride,
    COMBINE: tl.constexpr,
    RECTIFY: tl.constexpr,
    TWO_SIDED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    high = tl.load(saved_ptr + sample)
    low = high
    if TWO_SIDED:
        low = tl.load(saved_ptr + 3 * tl.cast(N, tl.int64) + sample)
    list_row = list_ptr + sample * C
    count = list_members(h_ptr + sample * C, mask_ptr, high, low, list_row, C, TWO_SIDED, BLOCK_C)
    tl.store(num_active_ptr + sample, count)
    tl.debug_barrier()  # other threads of the program wrote parts of the list
    q = tl.load(q_ptr + sample)
    for start in range(0, P, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        inside = position < P
        total = tl.zeros((BLOCK_P,), tl.float32)
        if COMBINE == 2:
            total = tl.full((BLOCK_P,), float("-inf"), tl.float32)
        for first in range(0, count, BLOCK_M):
            rank = first + tl.arange(0, BLOCK_M)
            listed = rank < count
            entry = tl.load(list_row + rank, mask=listed, other=0)
            channel = entry
            if TWO_SIDED:
                channel = tl.where(entry < 0, ~entry, entry)
            of_channel = maps_ptr + sample * sample_stride + channel * channel_stride
            pointers = of_channel[:, None] + (position * position_stride)[None, :]
            exists = listed[:, None] & inside[None, :]
            x = tl.load(pointers, mask=exists, other=0.0).to(tl.float32)
            if TWO_SIDED:
                x = tl.where((entry < 0)[:, None], -x, x)
            if RECTIFY:
                x = tl.where(x < 0, 0.0, x)
            if COMBINE == 2:
                x = tl.where(listed[:, None], x, float("-inf"))
                total = tl.maximum(total, tl.max(x, axis=0))
            else:
                total += tl.sum(x, axis=0)
        if COMBINE == 1:
            total = total / tl.maximum(count, 1).to(tl.float32)
        if COMBINE == 2:
            total = tl.where(count > 0, total, 0.0)
        total = tl.where(q != q, float("nan"), total)
        tl.store(heat_ptr + sample * P + position, total, mask=inside)


def _check_maps(maps: Tensor) -> None:
    if maps.dtype not in DTYPES:
        raise TypeError(
            f"maps has dtype {maps.dtype}; the Triton kernels take float32, float16 or bfloat16: "
            "convert it with maps.float(), or compute on the CPU"
        )
    if maps.ndim != 3 or (1 not in maps.stride()[1:] and maps[0].numel() > 1):
        raise ValueError(
            f"maps has shape {tuple(maps.shape)} and strides {maps.stride()}; the kernels take "
            "(samples, channels, positions) with unit stride along channels or positions"
        )
    extent = sum((n - 1) * abs(s) for n, s in zip(maps.shape[1:], maps.stride()[1:], strict=True))
    if extent > MAX_SAMPLE_ELEMENTS:
        raise ValueError(
            f"one sample of maps spans {extent} elements; the kernels take up to {MAX_SAMPLE_ELEMENTS}"
        )


def score_maps(
    maps: Tensor, mask: Tensor | None, eps: float, two_sided: bool, combine: str, rectify: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """h (N, C) float32, Q (N,) float32, |S| (N,) int32 and the heat map (N, P) float32.

    ``maps``: (N, C, P), unit stride along channels or positions; ``mask``: bool (C,). A sample with
    NaN or Inf has an empty S, and its Q and its heat map are NaN.
    """
    _check_maps(maps)
    samples, channels, positions = maps.shape
    h = torch.empty((samples, channels), dtype=torch.float32, device=maps.device)
    num_active = torch.empty(samples, dtype=torch.int32, device=maps.device)
    heat = torch.empty((samples, positions), dtype=torch.float32, device=maps.device)
    s = map_settings(channels, positions, maps.stride(2) != 1, device_capability(maps))
    if samples:
        launch(
            _pool_maps_kernel,
            samples * triton.cdiv(channels, s.pool_c),
            s.pool_warps,
            maps,
            h,
            channels,
            positions,
            *maps.stride(),
            BLOCK_C=s.pool_c,
            BLOCK_P=s.pool_p,
        )
    q, saved = q_score_fwd(h, mask, eps, two_sided)
    if samples:
        members = torch.empty((samples, channels), dtype=torch.int32, device=maps.device)
        launch(
            _combine_maps_kernel,
            samples,
            s.combine_warps,
            maps,
            as_bytes(mask),
            h,
            q,
            saved,
            members,
            num_active,
            heat,
            samples,
            channels,
            positions,
            *maps.stride(),
            COMBINE=COMBINATIONS[combine],
            RECTIFY=rectify,
            TWO_SIDED=two_sided,
            BLOCK_C=s.list_c,
            BLOCK_M=s.combine_m,
            BLOCK_P=s.combine_p,
        )
    return h, q, num_active, heat
