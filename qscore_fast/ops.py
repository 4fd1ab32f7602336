"""The operators: ``torch.library`` schemas, fakes, device implementations, and their gradients.

Each operator takes ``h`` as (N, r), one sample a row. The operators are opaque, so the compiler keeps them
whole; gradients are plain autograd Functions around them, first order only. The kernels are looked up when
an operator runs. What a score saves for its gradient has three rows, or five where L is two-sided; so its
backward needs no such argument.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qscore_fast import backends

_library = torch.library.Library("qscore_fast", "DEF")
_SCHEMAS = (
    "row_stats_fwd(Tensor h) -> Tensor",
    "row_stats_bwd(Tensor dstats, Tensor h, Tensor stats) -> Tensor",
    "q_score(Tensor h, Tensor? mask, float eps, bool two_sided=False) -> Tensor",
    "q_score_fwd(Tensor h, Tensor? mask, float eps, bool two_sided=False) -> (Tensor, Tensor)",
    "q_score_bwd(Tensor dq, Tensor h, Tensor? mask, Tensor q, Tensor saved) -> Tensor",
    "highly_active(Tensor h, float eps, bool two_sided=False) -> Tensor",
    "activation_counts(Tensor h, float eps, bool two_sided=False) -> Tensor",
    "score_rows(Tensor h, Tensor? mask, float eps, float keep_eps, bool two_sided=False) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "score_maps(Tensor maps, Tensor? mask, float eps, bool two_sided, str combine, bool rectify) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    "sparse_fwd(Tensor h, float eps, bool two_sided=False) -> (Tensor, Tensor, Tensor, Tensor)",
    "sparse_bwd(Tensor dvalue, Tensor dstats, Tensor h, Tensor offsets, Tensor feature, "
    "Tensor value, Tensor stats) -> Tensor",
    "q_score_loss_fwd(Tensor h, Tensor? mask, float eps, float lambda1, float lambda2, bool mean, "
    "bool two_sided=False) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "q_score_loss_partial(Tensor h, Tensor? mask, float eps, bool two_sided=False) "
    "-> (Tensor, Tensor, Tensor)",
    "q_score_loss_bwd(Tensor dloss, Tensor h, Tensor? mask, Tensor q, Tensor saved, "
    "Tensor row_weight, Tensor col_weight) -> Tensor",
)
for _schema in _SCHEMAS:
    _library.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def accumulator(h: Tensor) -> torch.dtype:
    """The dtype of every statistic of ``h``: float32, or float64 for float64."""
    return torch.float64 if h.dtype == torch.float64 else torch.float32


# ---- device implementations ---------------------------------------------------------------------


def _kernels(h: Tensor) -> ModuleType:
    return backends.kernels_for(h.device.type)


def _rows(h: Tensor) -> Tensor:
    """``h`` with unit stride inside a row: the compiler may hand over another layout."""
    return h if h.stride(1) == 1 or h.shape[1] == 1 else h.contiguous()


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _row_stats_fwd(h: Tensor) -> Tensor:
    return _kernels(h).row_stats_fwd(_rows(h))


def _row_stats_bwd(dstats: Tensor, h: Tensor, stats: Tensor) -> Tensor:
    return _kernels(h).row_stats_bwd(_dense(dstats), _rows(h), _dense(stats))


def _q_score(h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False) -> Tensor:
    return _kernels(h).q_score(_rows(h), _dense(mask), eps, two_sided)


def _q_score_fwd(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    return _kernels(h).q_score_fwd(_rows(h), _dense(mask), eps, two_sided)


def _q_score_bwd(dq: Tensor, h: Tensor, mask: Tensor | None, q: Tensor, saved: Tensor) -> Tensor:
    return _kernels(h).q_score_bwd(_dense(dq), _rows(h), _dense(mask), _dense(q), _dense(saved))


def _highly_active(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    return _kernels(h).highly_active(_rows(h), eps, two_sided)


def _activation_counts(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    return _kernels(h).activation_counts(_rows(h), eps, two_sided)


def _score_rows(
    h: Tensor, mask: Tensor | None, eps: float, keep_eps: float, two_sided: bool = False
) -> tuple[Tensor, ...]:
    return _kernels(h).score_rows(_rows(h), _dense(mask), eps, keep_eps, two_sided)


def _planes(maps: Tensor) -> Tensor:
    """``maps`` (N, r, height, width) as (N, r, positions) with unit stride along one of the last two.

    A view of what is contiguous or channels-last; a copy of any other layout.
    """
    n, r, height, width = maps.shape
    _, of_channel, of_row, of_column = maps.stride()
    flat = height == 1 or width == 1 or of_row == width * of_column
    step = of_row if width == 1 else of_column
    if not flat or 1 not in (step, of_channel):
        return maps.reshape(n, r, height * width).contiguous()
    return maps.as_strided((n, r, height * width), (maps.stride(0), of_channel, step))


def _score_maps(
    maps: Tensor, mask: Tensor | None, eps: float, two_sided: bool, combine: str, rectify: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    settings = (eps, two_sided, combine, rectify)
    h, q, num_active, heat = _kernels(maps).score_maps(_planes(maps), _dense(mask), *settings)
    return h, q, num_active, heat.view(len(maps), *maps.shape[2:])


def _sparse_fwd(
    h: Tensor, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _kernels(h).sparse_fwd(_rows(h), eps, two_sided)


def _sparse_bwd(
    dvalue: Tensor,
    dstats: Tensor,
    h: Tensor,
    offsets: Tensor,
    feature: Tensor,
    value: Tensor,
    stats: Tensor,
) -> Tensor:
    saved = (_dense(offsets), _dense(feature), _dense(value), _dense(stats))
    return _kernels(h).sparse_bwd(_dense(dvalue), _dense(dstats), _rows(h), *saved)


def _q_score_loss_fwd(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    settings = (eps, lambda1, lambda2, mean, two_sided)
    return _kernels(h).q_score_loss_fwd(_rows(h), _dense(mask), *settings)


def _q_score_loss_partial(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    return _kernels(h).q_score_loss_partial(_rows(h), _dense(mask), eps, two_sided)


def _q_score_loss_bwd(
    dloss: Tensor,
    h: Tensor,
    mask: Tensor | None,
    q: Tensor,
    saved: Tensor,
    row_weight: Tensor,
    col_weight: Tensor,
) -> Tensor:
    weights = (_dense(row_weight), _dense(col_weight))
    return _kernels(h).q_score_loss_bwd(
        _dense(dloss), _rows(h), _dense(mask), _dense(q), _dense(saved), *weights
    )


# ---- fakes: shapes and dtypes for the compiler --------------------------------------------------


def _fake_rows(h: Tensor, *leading: int) -> Tensor:
    return h.new_empty((*leading, h.shape[0]), dtype=accumulator(h))


def _fake_saved(h: Tensor, two_sided: bool) -> Tensor:
    return _fake_rows(h, 5 if two_sided else 3)


def _fake_gradient(h: Tensor) -> Tensor:
    return h.new_empty(h.shape)


def _row_stats_fwd_fake(h: Tensor) -> Tensor:
    return _fake_rows(h, 4)


def _row_stats_bwd_fake(dstats: Tensor, h: Tensor, stats: Tensor) -> Tensor:
    return _fake_gradient(h)


def _q_score_fake(h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False) -> Tensor:
    return _fake_rows(h)


def _q_score_fwd_fake(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor]:
    return _fake_rows(h), _fake_saved(h, two_sided)


def _q_score_bwd_fake(
    dq: Tensor, h: Tensor, mask: Tensor | None, q: Tensor, saved: Tensor
) -> Tensor:
    return _fake_gradient(h)


def _highly_active_fake(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    return h.new_empty(h.shape, dtype=torch.bool)


def _activation_counts_fake(h: Tensor, eps: float, two_sided: bool = False) -> Tensor:
    return h.new_empty(h.shape[1], dtype=torch.int64)


def _sparse_fwd_fake(
    h: Tensor, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    entries = torch.library.get_ctx().new_dynamic_size()
    return (
        h.new_empty(h.shape[0] + 1, dtype=torch.int64),
        h.new_empty(entries, dtype=torch.int32),
        h.new_empty(entries, dtype=accumulator(h)),
        _fake_rows(h, 4),
    )


def _score_rows_fake(
    h: Tensor, mask: Tensor | None, eps: float, keep_eps: float, two_sided: bool = False
) -> tuple[Tensor, ...]:
    return (
        *_sparse_fwd_fake(h, keep_eps),
        _fake_rows(h),
        h.new_empty(h.shape[0], dtype=torch.int32),
        _activation_counts_fake(h, eps),
    )


def _score_maps_fake(
    maps: Tensor, mask: Tensor | None, eps: float, two_sided: bool, combine: str, rectify: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        maps.new_empty(maps.shape[:2], dtype=accumulator(maps)),
        _fake_rows(maps),
        maps.new_empty(maps.shape[0], dtype=torch.int32),
        maps.new_empty((maps.shape[0], *maps.shape[2:]), dtype=accumulator(maps)),
    )


def _sparse_bwd_fake(dvalue: Tensor, dstats: Tensor, h: Tensor, *saved: Tensor) -> Tensor:
    return _fake_gradient(h)


def _q_score_loss_fwd_fake(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss = h.new_empty((), dtype=accumulator(h))
    return (
        loss,
        _fake_rows(h),
        _fake_saved(h, two_sided),
        _fake_rows(h),
        h.new_empty(h.shape[1], dtype=accumulator(h)),
    )


def _q_score_loss_partial_fake(
    h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    sums = h.new_empty(h.shape[1] + 2, dtype=torch.float64)
    return _fake_rows(h), _fake_saved(h, two_sided), sums


def _q_score_loss_bwd_fake(dloss: Tensor, h: Tensor, *saved: Tensor | None) -> Tensor:
    return _fake_gradient(h)


for _schema in _SCHEMAS:
    _name = _schema.partition("(")[0]
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, globals()[f"_{_name}"], _key)
    # Gradients live in the Functions below; the operators themselves have none.
    _library.impl(_name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"qscore_fast::{_name}", globals()[f"_{_name}_fake"], lib=_library)

_ops = torch.ops.qscore_fast
highly_active = _ops.highly_active.default
activation_counts = _ops.activation_counts.default
score_rows = _ops.score_rows.default
q_score_loss_partial = _ops.q_score_loss_partial.default
q_score_loss_bwd = _ops.q_score_loss_bwd.default
score_maps = _ops.score_maps.default


# ---- gradients ----------------------------------------------------------------------------------


def _needs_gradient(h: Tensor) -> bool:
    return h.requires_grad and torch.is_grad_enabled()


class _RowStats(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        stats = _ops.row_stats_fwd.default(h)
        ctx.save_for_backward(h, stats)
        return stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dstats: Tensor) -> Tensor:
        h, stats = ctx.saved_tensors
        return _ops.row_stats_bwd.default(dstats, h, stats)


def row_stats(h: Tensor) -> Tensor:
    """(4, N): mean, std, l1, l2 of the rows of ``h`` (N, r)."""
    return _RowStats.apply(h) if _needs_gradient(h) else _ops.row_stats_fwd.default(h)


class _QScore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, mask: Tensor | None, eps: float, two_sided: bool) -> Tensor:
        q, saved = _ops.q_score_fwd.default(h, mask, eps, two_sided)
        ctx.save_for_backward(h, mask, q, saved)
        return q

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor) -> tuple[Tensor, None, None, None]:
        h, mask, q, saved = ctx.saved_tensors
        return _ops.q_score_bwd.default(dq, h, mask, q, saved), None, None, None


def q_score(h: Tensor, mask: Tensor | None, eps: float, two_sided: bool = False) -> Tensor:
    """(N,): Q of the rows of ``h`` (N, r); ``mask`` is D, bool (r,), or None."""
    if _needs_gradient(h):
        return _QScore.apply(h, mask, eps, two_sided)
    return _ops.q_score.default(h, mask, eps, two_sided)


class _SparseActivations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, eps: float, two_sided: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        offsets, feature, value, stats = _ops.sparse_fwd.default(h, eps, two_sided)
        ctx.mark_non_differentiable(offsets, feature)
        ctx.save_for_backward(h, offsets, feature, value, stats)
        return offsets, feature, value, stats

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, doffsets: Tensor, dfeature: Tensor, dvalue: Tensor, dstats: Tensor
    ) -> tuple[Tensor, None, None]:
        return _ops.sparse_bwd.default(dvalue, dstats, *ctx.saved_tensors), None, None


def sparse_activations(
    h: Tensor, eps: float, two_sided: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Offsets (N + 1,), feature (nnz,), value (nnz,) and stats (4, N) of ``h`` (N, r)."""
    if _needs_gradient(h):
        return _SparseActivations.apply(h, eps, two_sided)
    return _ops.sparse_fwd.default(h, eps, two_sided)


class _QScoreLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        mask: Tensor | None,
        eps: float,
        lambda1: float,
        lambda2: float,
        mean: bool,
        two_sided: bool,
    ) -> Tensor:
        settings = (eps, lambda1, lambda2, mean, two_sided)
        loss, *saved = _ops.q_score_loss_fwd.default(h, mask, *settings)
        ctx.save_for_backward(h, mask, *saved)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dh = q_score_loss_bwd(dloss, *ctx.saved_tensors)
        return dh, *[None] * 6


def q_score_loss(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool = False,
) -> Tensor:
    """The regulariser of ``h`` (N, r), a scalar; ``mean`` divides the second sum by N."""
    settings = (eps, lambda1, lambda2, mean, two_sided)
    if _needs_gradient(h):
        return _QScoreLoss.apply(h, mask, *settings)
    return _ops.q_score_loss_fwd.default(h, mask, *settings)[0]
