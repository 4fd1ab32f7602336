"""The regulariser of a batch whose rows lie in several processes.

Every process reads its own rows once and adds r + 2 numbers to those of the others: its column norms, its
sum of Q, its number of rows. alpha, beta and the weights follow from the totals and are the same
everywhere. One more number is added up, for the value of the loss. The backward needs nobody else.

Imported where it is used: ``torch.compiler.disable`` imports the whole compiler, two seconds of every start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from qscore_fast import ops, reference


# torch.compile leaves its graph here and comes back: the collectives are not part of it.
@torch.compiler.disable
def q_score_loss(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool,
    group: ProcessGroup,
) -> Tensor:
    """The regulariser of the rows of all processes of ``group``; this one has ``h`` (N, r), N >= 0.

    The value is the same in every process. The gradient of ``h`` is that of the value times the number of
    processes. Every process of the group must call, with the same r and settings.
    """
    arguments = (h, mask, eps, lambda1, lambda2, mean, two_sided, group)
    if h.requires_grad and torch.is_grad_enabled():
        return _QScoreLoss.apply(*arguments)
    return _forward(*arguments)[0]


@torch.compiler.disable
def reference_q_score_loss(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    reduction: str,
    two_sided: bool,
    group: ProcessGroup,
) -> Tensor:
    """``q_score_loss`` in plain PyTorch."""

    def total(part: Tensor) -> Tensor:
        return _all_reduce(part.clone(), group)

    settings = (mask, eps, lambda1, lambda2, reduction, two_sided)
    return reference.q_score_loss_of_part(h, *settings, total, group.size())


def _all_reduce(part: Tensor, group: ProcessGroup) -> Tensor:
    distributed.all_reduce(part, group=group)
    return part


def _forward(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    lambda1: float,
    lambda2: float,
    mean: bool,
    two_sided: bool,
    group: ProcessGroup,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """loss (), q (N,), saved, row_weight (N,), col_weight (r,): what ``q_score_loss_fwd`` gives."""
    q, saved, sums = ops.q_score_loss_partial(h, mask, eps, two_sided)
    _all_reduce(sums, group)
    c, q_sum, rows = sums[:-2], sums[-2], sums[-1].clamp(min=1)
    exact_q = q.double()
    row_weight = (exact_q < q_sum / rows).double() * (-lambda1 / rows)
    col_weight = (c > c.mean()).double() * (lambda2 / rows if mean else lambda2)
    # Multiplied, not selected, so that NaN reaches the loss.
    loss = _all_reduce((row_weight * exact_q).sum(), group) + (col_weight * c).sum()
    return loss.to(q.dtype), q, saved, row_weight.to(q.dtype), col_weight.to(q.dtype)


class _QScoreLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, mask: Tensor | None, *settings: Any) -> Tensor:
        loss, *kept = _forward(h, mask, *settings)
        ctx.save_for_backward(h, mask, *kept)
        ctx.processes = settings[-1].size()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dh = ops.q_score_loss_bwd(dloss * ctx.processes, *ctx.saved_tensors)
        return dh, *[None] * 7
