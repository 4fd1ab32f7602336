"""The public mathematics on tensors.

``h`` is ``(..., r)``: one representation a row, r features, float32, float16 or bfloat16 (float64 on the
CPU and on the reference backend). Any row stride is read in place; a layout without unit stride inside a
row is copied. Statistics and scores are float32 (float64 for float64).

``two_sided`` is an extension beyond the paper, for features with signs (a vision transformer's, which no
ReLU ends): L then holds the entries more than eps standard deviations from the mean on either side, and Q
is the mean of their distances from it.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from qscore_fast import backends, ops, reference
from qscore_fast.process_group import Group, sharing_group
from qscore_fast.reference import COMBINATIONS, MapScores, RowScores, RowStats, SparseActivations

EPS = 4.0
"""The paper's threshold, in standard deviations of the row."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@runtime_checkable
class FeatureSet(Protocol):
    """What stands for D: ``qscore_fast.DiscriminativeFeatures``, or anything with a mask and its L."""

    @property
    def mask(self) -> Tensor: ...  # bool (r,)

    @property
    def eps(self) -> float: ...

    @property
    def two_sided(self) -> bool: ...


Features = FeatureSet | Tensor | None


def row_stats(h: Tensor) -> RowStats:
    """Mean, standard deviation, L1 and L2 norm of every row, in one read of ``h``.

    Args:
        h: ``(..., r)``.

    Returns:
        ``RowStats(mean, std, l1, l2)``, each ``(...)``. ``std`` has Bessel's correction like ``torch.std``
        and is NaN for r = 1. Differentiable, once.

    Raises:
        TypeError: ``h`` is no tensor, or of another dtype.
        ValueError: ``h`` has no feature dimension, or r = 0.
    """
    _check(h)
    if backends.runs_reference(h.device.type):
        return reference.row_stats(h)
    stats = ops.row_stats(_as_rows(h)).reshape(4, *h.shape[:-1])
    return RowStats(*stats.unbind(0))


def highly_active(h: Tensor, eps: float = EPS, *, two_sided: bool = False) -> Tensor:
    """The set L: the entries with ``h > mu + eps * sigma``, strictly, over each row.

    Args:
        h: ``(..., r)``.
        eps: threshold in standard deviations, >= 0.
        two_sided: also the entries with ``h < mu - eps * sigma``, strictly: beyond the paper.

    Returns:
        bool ``(..., r)``. All False in a row with NaN or Inf.

    Raises:
        TypeError, ValueError: as ``row_stats``; ValueError also for a negative or non-finite ``eps``.
    """
    _check(h)
    eps = _checked_eps(eps)
    if backends.runs_reference(h.device.type):
        return reference.highly_active(h, eps, two_sided)
    return ops.highly_active(_as_rows(h.detach()), eps, two_sided).reshape(h.shape)


def sparse_activations(
    h: Tensor, eps: float = EPS, *, two_sided: bool = False
) -> SparseActivations:
    """The entries of L with their values, and the rows' statistics, in compressed sparse row order.

    A row has at most r / (1 + eps^2) entries (two-sided r / eps^2), so the result is small, and Q under any
    set D and any larger eps follows from it: Q is the mean of a row's values within D, two-sided of their
    absolute values.

    Args:
        h: ``(..., r)``; leading dimensions are flattened to N rows.
        eps: threshold in standard deviations, >= 0.
        two_sided: as ``highly_active``; an entry below the mean has a negative value.

    Returns:
        ``SparseActivations(offsets (N + 1,) int64, feature (nnz,) int32, value (nnz,), mean, std, l1, l2
        (N,))`` with ``value = (h_ij - mu_i) / ||h_i||_2``. ``value`` and the statistics are
        differentiable, once.

    Raises:
        TypeError, ValueError: as ``highly_active``.
    """
    _check(h)
    eps = _checked_eps(eps)
    h = _as_rows(h)
    if backends.runs_reference(h.device.type):
        return reference.sparse_activations(h, eps, two_sided)
    offsets, feature, value, stats = ops.sparse_activations(h, eps, two_sided)
    return SparseActivations(offsets, feature, value, *stats.unbind(0))


def activation_counts(h: Tensor, eps: float = EPS, *, two_sided: bool = False) -> Tensor:
    """How many rows have feature j in L: the census of a batch.

    Args:
        h: ``(..., r)``.
        eps: threshold in standard deviations, >= 0.
        two_sided: as ``highly_active``.

    Returns:
        int64 ``(r,)``. A row with NaN or Inf counts nowhere.

    Raises:
        TypeError, ValueError: as ``highly_active``.
    """
    _check(h)
    eps = _checked_eps(eps)
    h = _as_rows(h.detach())
    if backends.runs_reference(h.device.type):
        return reference.activation_counts(h, eps, two_sided)
    return ops.activation_counts(h, eps, two_sided)


def q_score(
    h: Tensor,
    features: Features = None,
    eps: float | None = None,
    *,
    two_sided: bool | None = None,
) -> Tensor:
    """The Q-Score of every row: the mean of ``(h_ij - mu_i) / ||h_i||_2`` over j in L_i and D.

    Args:
        h: ``(..., r)``.
        features: D as ``DiscriminativeFeatures`` or bool ``(r,)``; None for all features.
        eps: threshold of L in standard deviations, >= 0. None takes the eps of ``features`` where it
            carries one, otherwise 4.
        two_sided: the mean of ``|h_ij - mu_i| / ||h_i||_2`` over an L of both sides of the mean, as
            ``highly_active``: beyond the paper. None takes that of ``features`` where it carries one,
            otherwise False.

    Returns:
        ``(...)``, higher is better. 0 where L and D share no feature, for a zero row and for r = 1; NaN
        where a row holds NaN or Inf, or its sum of squares overflows. Differentiable, once; L is constant
        for the gradient. Under ``torch.compile`` every new value of ``eps`` compiles again.

    Raises:
        TypeError: wrong types, as above. ValueError: wrong shapes, a negative or non-finite ``eps``, or a
            ``two_sided`` that contradicts ``features``.

    Source: Kalibhat et al., AAAI 2024, eq. 1, on L2-normalised rows.
    """
    _check(h)
    mask, eps, two_sided = _resolve(features, eps, two_sided, h)
    if backends.runs_reference(h.device.type):
        return reference.q_score(h, mask, eps, two_sided)
    q = ops.q_score(_as_rows(h), mask, eps, two_sided)
    return q if h.ndim == 2 else q.reshape(h.shape[:-1])


def score_rows(
    h: Tensor,
    features: Features = None,
    eps: float | None = None,
    keep_eps: float = 2.0,
    *,
    two_sided: bool | None = None,
) -> RowScores:
    """Everything that scoring needs, in one read of ``h``: scores, sparse activations, statistics, census.

    Equal to ``q_score(h, features, eps)``, ``sparse_activations(h, keep_eps)`` and
    ``activation_counts(h, eps)``, without gradients. The activations are kept from the smaller ``keep_eps``
    on, so that Q under other features and any eps >= ``keep_eps`` follows from them later.

    Args:
        h: ``(..., r)``; leading dimensions are flattened to N rows.
        features: as ``q_score``.
        eps: as ``q_score``.
        keep_eps: threshold of the activations that are returned, 0 <= ``keep_eps`` <= ``eps``.
        two_sided: as ``q_score``.

    Returns:
        ``RowScores(q_score (N,), num_active (N,) int32, activations, counts (r,) int64)``. ``num_active``
        is the number of features in L and D; ``counts`` is over L alone.

    Raises:
        TypeError, ValueError: as ``q_score``; ValueError also for a ``keep_eps`` above ``eps``.
    """
    _check(h)
    mask, eps, two_sided = _resolve(features, eps, two_sided, h)
    keep_eps = _checked_eps(keep_eps)
    if keep_eps > eps:
        raise ValueError(
            f"keep_eps is {keep_eps} but the score is taken at eps {eps}; keep_eps must not be above it"
        )
    h = _as_rows(h.detach())
    if backends.runs_reference(h.device.type):
        return reference.score_rows(h, mask, eps, keep_eps, two_sided)
    offsets, feature, value, stats, q, num_active, counts = ops.score_rows(
        h, mask, eps, keep_eps, two_sided
    )
    activations = SparseActivations(offsets, feature, value, *stats.unbind(0))
    return RowScores(q, num_active, activations, counts)


def score_maps(
    maps: Tensor,
    features: Features = None,
    eps: float | None = None,
    combine: str = "sum",
    *,
    rectify: bool = False,
    two_sided: bool | None = None,
) -> MapScores:
    """Representations, scores and heat maps from the last feature maps, in about one read of them.

    For an encoder whose representation is the spatial mean of its last feature maps, a ResNet's. Equal to
    ``q_score(maps.mean((2, 3)), features, eps)`` in float32, with the channels in L and D beside it, which
    are few and read a second time.

    Args:
        maps: ``(N, r, height, width)``, contiguous or channels-last; another layout is copied.
        features: as ``q_score``.
        eps: as ``q_score``.
        combine: how the channels become one heat map: "sum", "mean" or "max".
        rectify: count what is below 0 in a channel as 0, as Grad-CAM does.
        two_sided: as ``q_score``; a channel whose mean is below mu then counts with its sign turned.

    Returns:
        ``MapScores(h (N, r), q_score (N,), num_active (N,) int32, heat (N, height, width))``, without
        gradients. The spatial mean of a "sum" is the sum of h over L and D. ``heat`` is 0 where L and D
        share no feature, and NaN where Q is.

    Raises:
        TypeError, ValueError: as ``q_score``; ValueError also for an unknown ``combine``.
    """
    _check_maps(maps)
    mask, eps, two_sided = _resolve(features, eps, two_sided, maps[:, :, 0, 0])
    if combine not in COMBINATIONS:
        raise ValueError(f"combine is {combine!r}; choose one of {', '.join(COMBINATIONS)}")
    maps = maps.detach()
    if backends.runs_reference(maps.device.type):
        return reference.score_maps(maps, mask, eps, two_sided, combine, rectify)
    return MapScores(*ops.score_maps(maps, mask, eps, two_sided, combine, rectify))


def q_score_loss(
    h: Tensor,
    features: Features = None,
    eps: float | None = None,
    lambda1: float = 1e-4,
    lambda2: float = 1e-4,
    reduction: str = "sum",
    group: Group = None,
    *,
    two_sided: bool | None = None,
) -> Tensor:
    """The Q-Score regulariser of a batch, to be minimised beside the self-supervised loss.

    ``-lambda1 * mean_i(1[Q_i < alpha] Q_i) + lambda2 * sum_k(1[c_k > beta] c_k)``: raises the scores below
    the batch mean alpha, and lowers the columns whose L1 norm c_k in the row-normalised batch is above the
    mean beta. Indicators, alpha and beta are constants for the gradient.

    Args:
        h: ``(..., r)``; leading dimensions are flattened, so both views of a batch go in together.
        features: D as ``DiscriminativeFeatures`` or bool ``(r,)``; None for all features.
        eps: as ``q_score``.
        lambda1: weight of the first term.
        lambda2: weight of the second term.
        reduction: ``"sum"``, as published; ``"mean"`` divides the second sum by the number of rows.
        group: the processes whose rows are one batch: a ``torch.distributed`` process group, ``"world"``
            for all processes (this one alone where ``torch.distributed`` is not initialised), or None for
            the batch of this process. They may have different numbers of rows, also none. All of them
            must call, with the same features and settings.
        two_sided: as ``q_score``; it changes the first term only.

    Returns:
        A scalar, float32 (float64 for float64). 0 for a batch without rows; NaN if a row holds NaN or Inf.
        With ``group`` every process gets the value of the whole batch, and **the gradient of its own rows
        times the number of processes**, so that parameter gradients averaged over the processes, as DDP
        and FSDP average them, equal those of one process with the whole batch; that is also what autograd
        gives through ``torch.distributed.nn.functional.all_reduce``. The forward makes two all-reduces, of
        r + 2 numbers and of one, the backward none. ``torch.compile`` breaks its graph at a call with
        ``group``.

    Raises:
        TypeError, ValueError: as ``q_score``, and for a wrong ``reduction``, lambda or ``group``.

    Source: Kalibhat et al., AAAI 2024, eq. 2 and 3, with the sign of a loss.
    """
    _check(h)
    mask, eps, two_sided = _resolve(features, eps, two_sided, h)
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; choose 'sum' (as published) or 'mean'")
    for name, value in (("lambda1", lambda1), ("lambda2", lambda2)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}; it must be a finite number")
    h = _as_rows(h)
    on_reference = backends.runs_reference(h.device.type)
    plain = (h, mask, eps, lambda1, lambda2, reduction, two_sided)
    settings = (h, mask, eps, float(lambda1), float(lambda2), reduction == "mean", two_sided)
    sharing = sharing_group(group)
    if sharing is None:
        return reference.q_score_loss(*plain) if on_reference else ops.q_score_loss(*settings)
    from qscore_fast import distributed_loss

    if on_reference:
        return distributed_loss.reference_q_score_loss(*plain, sharing)
    return distributed_loss.q_score_loss(*settings, sharing)


def _as_rows(h: Tensor) -> Tensor:
    """``h`` as (N, r)."""
    return h if h.ndim == 2 else h.reshape(-1, h.shape[-1])


def _check(h: Tensor) -> None:
    if not isinstance(h, Tensor):
        raise TypeError(f"h is {type(h).__name__}; pass a torch.Tensor of shape (..., r)")
    if h.dtype not in _DTYPES:
        raise TypeError(
            f"h has dtype {h.dtype}; convert it to float32, float16, bfloat16 or float64"
        )
    if h.ndim == 0 or h.shape[-1] == 0:
        raise ValueError(
            f"h has shape {tuple(h.shape)}; it needs a last dimension of r >= 1 features"
        )


def _check_maps(maps: Tensor) -> None:
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps is {type(maps).__name__}; pass a torch.Tensor (N, r, height, width)")
    if maps.dtype not in _DTYPES:
        raise TypeError(
            f"maps has dtype {maps.dtype}; convert it to float32, float16, bfloat16 or float64"
        )
    if maps.ndim != 4 or 0 in maps.shape[1:]:
        raise ValueError(
            f"maps has shape {tuple(maps.shape)}; it must be (N, r, height, width), only N may be 0"
        )


def _checked_eps(eps: float) -> float:
    eps = float(eps)
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps is {eps}; it must be a finite number of standard deviations, >= 0")
    return eps


def resolve_sides(features: Features, two_sided: bool | None) -> bool:
    """Whether L is two-sided: as asked, or as ``features`` were discovered. ValueError if these differ."""
    if isinstance(features, Tensor) or not isinstance(features, FeatureSet):
        return bool(two_sided)
    if two_sided not in (None, features.two_sided):
        raise ValueError(
            f"two_sided is {two_sided} but the features were discovered with two_sided = "
            f"{features.two_sided}: leave two_sided out, or discover them again"
        )
    return features.two_sided


def _resolve(
    features: Features, eps: float | None, two_sided: bool | None, h: Tensor
) -> tuple[Tensor | None, float, bool]:
    """D as a bool tensor on the device of ``h`` (None for all), eps, and whether both sides count."""
    if features is None or isinstance(features, Tensor):
        mask, own_eps = features, EPS
    elif isinstance(features, FeatureSet):
        mask, own_eps = features.mask, features.eps
    else:
        raise TypeError(
            f"features is {type(features).__name__}; pass DiscriminativeFeatures, a bool tensor (r,) or "
            "None for all features"
        )
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"features has dtype {mask.dtype}; pass a bool mask of shape (r,)")
        if mask.shape != h.shape[-1:]:
            raise ValueError(
                f"features has shape {tuple(mask.shape)} but h has r = {h.shape[-1]} features: they "
                "belong to different encoders"
            )
        mask = mask.to(h.device)
    sides = resolve_sides(features, two_sided)
    return mask, _checked_eps(own_eps if eps is None else eps), sides
