"""The registry of operations: ours, the plain formula, NumPy, and the traffic that none of them avoids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor

import qscore_fast as qf
from qscore_fast import reference

from . import numpy_form
from .numpy_form import EPS, KEEP_EPS
from .timing import Call

Function = Callable[[Tensor], Any]


class Phase(Enum):
    """Which part of a differentiable function is timed."""

    FORWARD = "forward"
    BACKWARD = "backward"
    BOTH = "forward + backward"


@dataclass(frozen=True)
class Operation:
    """An operation on ``h`` (N, r). ``reads`` and ``writes`` count passes over the whole matrix."""

    name: str
    ours: Function
    plain: Function
    numpy: Callable[[Any], Any] | None = None
    phase: Phase = Phase.FORWARD
    reads: int = 1
    writes: int = 0
    scalar: bool = False

    def call(self, function: Function, h: Tensor) -> Call:
        """A call without arguments that runs this operation's phase of ``function`` on ``h``."""
        if self.phase is Phase.FORWARD:

            def forward() -> Any:
                with torch.no_grad():
                    return function(h)

            return forward
        leaf = h.detach().requires_grad_()
        dtype = torch.float64 if h.dtype == torch.float64 else torch.float32
        # Differs from row to row, so that a mixed-up row shows.
        dout = torch.linspace(0.5, 1.5, len(h), device=h.device, dtype=dtype)
        if self.scalar:
            dout = dout.new_ones(())
        if self.phase is Phase.BOTH:
            return lambda: torch.autograd.grad(function(leaf), leaf, dout)[0]
        out = function(leaf)
        return lambda: torch.autograd.grad(out, leaf, dout, retain_graph=True)[0]


def _q_score(h: Tensor) -> Tensor:
    return qf.q_score(h, None, EPS)


def _plain_q_score(h: Tensor) -> Tensor:
    return reference.q_score(h, None, EPS)


def _loss(h: Tensor) -> Tensor:
    return qf.q_score_loss(h, None, EPS)


def _plain_loss(h: Tensor) -> Tensor:
    return reference.q_score_loss(h, None, EPS)


_ALL = (
    Operation("q_score forward", _q_score, _plain_q_score, numpy_form.q_score),
    Operation("q_score backward", _q_score, _plain_q_score, phase=Phase.BACKWARD, writes=1),
    Operation("q_score forward + backward", _q_score, _plain_q_score, phase=Phase.BOTH,
              reads=2, writes=1),
    Operation("q_score_loss forward", _loss, _plain_loss, scalar=True),
    Operation("q_score_loss forward + backward", _loss, _plain_loss, phase=Phase.BOTH,
              reads=2, writes=1, scalar=True),
    Operation("row_stats", qf.row_stats, reference.row_stats, numpy_form.row_stats),
    Operation("activation_counts", lambda h: qf.activation_counts(h, EPS),
              lambda h: reference.activation_counts(h, EPS), numpy_form.activation_counts),
    Operation("sparse_activations", lambda h: qf.sparse_activations(h, KEEP_EPS),
              lambda h: reference.sparse_activations(h, KEEP_EPS),
              numpy_form.sparse_activations),
    Operation("score_rows", lambda h: qf.score_rows(h, None, EPS, KEEP_EPS),
              lambda h: reference.score_rows(h, None, EPS, KEEP_EPS)),
    Operation("score_rows two-sided",
              lambda h: qf.score_rows(h, None, EPS, KEEP_EPS, two_sided=True),
              lambda h: reference.score_rows(h, None, EPS, KEEP_EPS, True)),
)  # fmt: skip

OPERATIONS = {operation.name: operation for operation in _ALL}
