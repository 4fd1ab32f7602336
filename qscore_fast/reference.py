"""The Q-Score equations in plain PyTorch: the oracle that every kernel is tested against.

Notation: ``h`` is ``(..., r)``, one sample a row, r features; mu, sigma, n are a row's mean, standard
deviation (with Bessel's correction) and L2 norm. Floating types narrower than float32 are widened to
float32 first, float64 stays; every result has that widened type. Gradients are PyTorch's own, and no
gradient flows through the set L, alpha or beta. ``two_sided`` is an extension beyond the paper, for
features with signs: L then holds what is far from mu on either side, and Q is the mean distance.

Source: Kalibhat et al., "Measuring Self-Supervised Representation Quality for Downstream
Classification Using Discriminative Features", AAAI 2024, https://arxiv.org/abs/2203.01881.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class RowStats(NamedTuple):
    """Statistics of each row of ``h`` (..., r); every field has shape (...), float32 or float64."""

    mean: Tensor
    std: Tensor
    l1: Tensor
    l2: Tensor


class SparseActivations(NamedTuple):
    """The highly active entries of N rows in compressed sparse row order, and the rows' statistics.

    Row i owns the entries ``offsets[i]:offsets[i + 1]``, with ascending ``feature``.
    """

    offsets: Tensor  # (N + 1,) int64
    feature: Tensor  # (nnz,) int32
    value: Tensor  # (nnz,) (h_ij - mu_i) / n_i, float32 or float64; two-sided below 0 where h_ij < mu_i
    mean: Tensor  # (N,), as are the next three
    std: Tensor
    l1: Tensor
    l2: Tensor


class RowScores(NamedTuple):
    """All that scoring N rows needs to know about them."""

    q_score: Tensor  # (N,) float32 or float64
    num_active: Tensor  # (N,) int32: |L and D|
    activations: SparseActivations
    counts: Tensor  # (r,) int64: the rows with feature j in L


class MapScores(NamedTuple):
    """What the last feature maps of N samples say: representations, scores, and where they come from."""

    h: Tensor  # (N, r) float32 or float64: the spatial mean of every channel
    q_score: Tensor  # (N,)
    num_active: Tensor  # (N,) int32: |L and D|
    heat: Tensor  # (N, height, width): the channels of L and D, combined


COMBINATIONS = ("sum", "mean", "max")


def widen(h: Tensor) -> Tensor:
    """Return ``h`` as float64 if it is float64, otherwise as float32."""
    return h if h.dtype == torch.float64 else h.float()


def row_stats(h: Tensor) -> RowStats:
    """Mean, standard deviation (r - 1), L1 and L2 norm of every row; std is NaN for r = 1."""
    h = widen(h)
    mean = h.mean(-1)
    spread = h.shape[-1] > 1 and h.numel()  # elsewhere torch.std warns of its NaN
    std = h.std(-1, correction=1) if spread else torch.full_like(mean, torch.nan)
    return RowStats(mean, std, h.abs().sum(-1), torch.linalg.vector_norm(h, dim=-1))


def highly_active(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    """L: the entries with ``h > mu + eps * sigma``, strictly. Bool (..., r).

    With ``two_sided`` those with ``h < mu - eps * sigma``, strictly, are in L as well. Empty where a row
    holds NaN or Inf, or where its sum of squares overflows.
    """
    h = widen(h.detach())
    stats = row_stats(h)
    mean = stats.mean.masked_fill(stats.l2.isinf(), torch.nan)
    active = h > (mean + eps * stats.std).unsqueeze(-1)
    if two_sided:
        active = active | (h < (mean - eps * stats.std).unsqueeze(-1))
    return active


def activation_counts(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> Tensor:
    """How many rows of ``h`` have feature j in L: int64 (r,). The census behind A_j = 100 counts / N."""
    return highly_active(h, eps, two_sided).reshape(-1, h.shape[-1]).sum(0)


def sparse_activations(h: Tensor, eps: float = 4.0, two_sided: bool = False) -> SparseActivations:
    """The entries of L with their values ``(h_ij - mu_i) / n_i``, for ``h`` of shape (N, r)."""
    active = highly_active(h, eps, two_sided)
    h = widen(h)
    stats = row_stats(h)
    row, feature = active.nonzero(as_tuple=True)
    value = (h[row, feature] - stats.mean[row]) / stats.l2[row]
    offsets = torch.zeros(len(h) + 1, dtype=torch.int64, device=h.device)
    torch.cumsum(active.sum(-1), 0, out=offsets[1:])
    return SparseActivations(offsets, feature.int(), value, *stats)


def q_score(
    h: Tensor, mask: Tensor | None = None, eps: float = 4.0, two_sided: bool = False
) -> Tensor:
    """Q_i: the mean of ``(h_ij - mu_i) / n_i`` over j in L_i and D; ``mask`` is D, bool (r,), None for all.

    With ``two_sided`` the mean of ``|h_ij - mu_i| / n_i``. 0 where no feature of D is in L_i, for a zero
    row and for r = 1. NaN where a row holds NaN or Inf, or where its sum of squares overflows.
    """
    active = highly_active(h, eps, two_sided)
    if mask is not None:
        active = active & mask
    h = widen(h)
    norm = torch.linalg.vector_norm(h, dim=-1)
    # Multiplied, not selected, so that a row with NaN or Inf gives NaN although its L is empty.
    distance = h - h.mean(-1, keepdim=True)
    if two_sided:
        distance = distance.abs()
    total = (distance * active).sum(-1)
    q = total / (active.sum(-1).clamp(min=1) * torch.where(norm > 0, norm, 1))
    return q.masked_fill(norm.isinf(), torch.nan)


def score_rows(
    h: Tensor,
    mask: Tensor | None = None,
    eps: float = 4.0,
    keep_eps: float = 2.0,
    two_sided: bool = False,
) -> RowScores:
    """Q, |L and D| and the census at ``eps``, and the entries of L at ``keep_eps``, of ``h`` (N, r)."""
    h = h.detach()
    active = highly_active(h, eps, two_sided)
    members = active if mask is None else active & mask
    return RowScores(
        q_score(h, mask, eps, two_sided),
        members.sum(-1).int(),
        sparse_activations(h, keep_eps, two_sided),
        active.sum(0),
    )


def score_maps(
    maps: Tensor,
    mask: Tensor | None = None,
    eps: float = 4.0,
    two_sided: bool = False,
    combine: str = "sum",
    rectify: bool = False,
) -> MapScores:
    """Global average pooling of ``maps`` (N, r, height, width), the scores, and one heat map a sample.

    The heat map combines the channels in L and D by "sum", "mean" or "max", a channel below the mean with
    its sign turned; ``rectify`` sets what is below 0 in a channel to 0 first. So the spatial mean of a sum
    is the sum of h over L and D. 0 where that set is empty, NaN where Q is.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017: where h is the spatial mean of the maps, the map of h_j
    is channel j, divided by the number of positions.
    """
    maps = widen(maps.detach())
    h = maps.mean((2, 3))
    members = highly_active(h, eps, two_sided)
    if mask is not None:
        members = members & mask
    q = q_score(h, mask, eps, two_sided)
    below = two_sided & (h < h.mean(-1, keepdim=True))
    maps = torch.where(below[..., None, None], -maps, maps)
    if rectify:
        maps = maps.relu()
    outside = ~members[..., None, None]
    count = members.sum(-1)[:, None, None]
    if combine == "max":
        heat = maps.masked_fill(outside, -torch.inf).amax(1)
        heat = torch.where(count > 0, heat, 0)
    else:
        heat = maps.masked_fill(outside, 0).sum(1)
        if combine == "mean":
            heat = heat / count.clamp(min=1)
    heat = heat.masked_fill(q.isnan()[:, None, None], torch.nan)
    return MapScores(h, q, members.sum(-1).int(), heat)


def column_norms(h: Tensor) -> Tensor:
    """c_k: the L1 norm of column k of the row-normalised batch, (r,). A zero row adds nothing."""
    h = widen(h).reshape(-1, h.shape[-1])
    norm = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
    return (h.abs() / torch.where(norm > 0, norm, 1)).sum(0)


def q_score_loss(
    h: Tensor,
    mask: Tensor | None = None,
    eps: float = 4.0,
    lambda1: float = 1e-4,
    lambda2: float = 1e-4,
    reduction: str = "sum",
    two_sided: bool = False,
) -> Tensor:
    """The regulariser, to be minimised; 0 for a batch without rows.

    ``-lambda1 * mean_i(1[Q_i < alpha] Q_i) + lambda2 * sum_k(1[c_k > beta] c_k)`` with alpha and beta the
    batch means of Q and c. ``reduction="mean"`` divides the second sum by the number of rows.
    """
    h = h.reshape(-1, h.shape[-1])
    if not len(h):
        return widen(h).sum()
    q = q_score(h, mask, eps, two_sided)
    c = column_norms(h)
    weak = (q < q.mean()).detach()
    crowded = (c > c.mean()).detach()
    overuse = (crowded * c).sum()
    if reduction == "mean":
        overuse = overuse / len(h)
    return -lambda1 * (weak * q).mean() + lambda2 * overuse


def q_score_loss_of_part(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    reduction: str,
    two_sided: bool,
    total: Callable[[Tensor], Tensor],
    processes: int,
) -> Tensor:
    """``q_score_loss`` of a batch whose rows lie in ``processes`` processes; this one has ``h``.

    ``total`` adds a tensor up over the processes. The value is that of the whole batch; the gradient is
    times ``processes``, so that the mean over the processes, which DDP takes, is that of the whole batch.
    """
    h = h.reshape(-1, h.shape[-1])
    q = q_score(h, mask, eps, two_sided)
    c = column_norms(h)
    sums = total(torch.cat([c, q.sum().reshape(1), q.new_tensor([len(h)])]).detach())
    c_total, q_total, rows = sums[:-2], sums[-2], sums[-1].clamp(min=1)
    weak = (q < q_total / rows).detach()
    crowded = c_total > c_total.mean()
    per_column = lambda2 / rows if reduction == "mean" else lambda2
    quality = -lambda1 * (weak * q).sum() / rows
    own = processes * (quality + per_column * (crowded * c).sum())
    value = total(quality.detach()) + per_column * (crowded * c_total).sum()
    return own + (value - own.detach())
