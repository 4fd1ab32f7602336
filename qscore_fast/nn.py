"""The regulariser as a module, to drop into a training loop."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.functional import EPS, Features, FeatureSet, q_score_loss, resolve_sides
from qscore_fast.process_group import Group


class QScoreLoss(torch.nn.Module):
    """``q_score_loss`` with its settings: ``loss = ssl_loss + QScoreLoss(features)(h)``.

    Args:
        features: D as ``DiscriminativeFeatures`` or bool ``(r,)``; None for all features. It is kept as a
            buffer, so it moves with ``.to(device)`` and is saved in the state dict.
        eps: threshold of L in standard deviations; None takes the eps of ``features``, otherwise 4.
        lambda1: weight of the first term.
        lambda2: weight of the second term.
        reduction: ``"sum"``, as published, or ``"mean"`` (see ``q_score_loss``).
        group: the processes whose rows are one batch (see ``q_score_loss``, which says what DDP makes of
            the gradient). ``"world"`` is looked up at every call, so the module can be made before
            ``torch.distributed`` is initialised, and be copied and pickled.
        two_sided: whether entries far below the mean count like those far above (see ``q_score``: beyond
            the paper); None takes that of ``features``, otherwise False.

    ``forward(h)`` takes ``(..., r)``, the representations before the projector, of both views together,
    and returns a scalar. Errors as ``q_score_loss``.
    """

    features: Tensor | None

    def __init__(
        self,
        features: Features = None,
        eps: float | None = None,
        lambda1: float = 1e-4,
        lambda2: float = 1e-4,
        reduction: str = "sum",
        group: Group = None,
        *,
        two_sided: bool | None = None,
    ) -> None:
        super().__init__()
        carries_eps = isinstance(features, FeatureSet) and not isinstance(features, Tensor)
        if eps is None:
            eps = features.eps if carries_eps else EPS  # type: ignore[union-attr]
        self.register_buffer("features", features.mask if carries_eps else features)  # type: ignore[union-attr,arg-type]
        self.eps = float(eps)
        self.two_sided = resolve_sides(features, two_sided)
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.reduction = reduction
        self.group = group

    def forward(self, h: Tensor) -> Tensor:
        return q_score_loss(
            h,
            self.features,
            self.eps,
            self.lambda1,
            self.lambda2,
            self.reduction,
            self.group,
            two_sided=self.two_sided,
        )

    def extra_repr(self) -> str:
        chosen = (
            "all"
            if self.features is None
            else f"{int(self.features.sum())} of {len(self.features)}"
        )
        return (
            f"features={chosen}, eps={self.eps}, lambda1={self.lambda1}, lambda2={self.lambda2}, "
            f"reduction={self.reduction!r}, two_sided={self.two_sided}"
        )
