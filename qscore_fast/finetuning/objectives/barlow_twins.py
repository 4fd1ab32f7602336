"""Barlow Twins: the cross-correlation of the two views' projections, to be the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qscore_fast.errors import EncoderError
from qscore_fast.finetuning.objective import Objective, ObjectiveOutput
from qscore_fast.finetuning.objectives.checks import not_negative, positive
from qscore_fast.finetuning.objectives.crops import represent, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import summed, world_size
from qscore_fast.finetuning.objectives.heads import hidden_width, mlp_head, widths_of
from qscore_fast.finetuning.objectives.parts import Parts


@dataclass(frozen=True)
class BarlowTwinsSettings:
    """The defaults are those of facebookresearch/barlowtwins' main.py.

    Attributes:
        off_diagonal: the weight lambda of the correlations between different entries.
        hidden: width of a fresh projector's two hidden layers; None: 8,192, in proportion for r < 2,048.
        out: length of its output; None: ``hidden``.
    """

    off_diagonal: float = 0.0051
    hidden: int | None = None
    out: int | None = None

    def __post_init__(self) -> None:
        not_negative("Barlow Twins", ("off_diagonal", self.off_diagonal))
        positive("Barlow Twins", ("hidden", self.hidden), ("out", self.out))


class BarlowTwins(Objective):
    """Zbontar et al., ICML 2021; facebookresearch/barlowtwins, main.py."""

    system = "barlow_twins"

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module,
        loss_norm: nn.Module,
        settings: BarlowTwinsSettings,
    ) -> None:
        super().__init__()
        self.backbone, self.projector, self.loss_norm = backbone, projector, loss_norm
        self.settings = settings

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; ``terms`` has the two terms before the weight."""
        first, second = two_views(views, "Barlow Twins")
        h1, h2 = represent(self.backbone, first), represent(self.backbone, second)
        z1, z2 = self.projector(h1), self.projector(h2)
        on, off = barlow_twins_terms(self.loss_norm(z1), self.loss_norm(z2))
        terms = {"on_diagonal": on.detach(), "off_diagonal": off.detach()}
        return ObjectiveOutput(on + self.settings.off_diagonal * off, torch.cat([h1, h2]), terms)


@in_full_precision
def barlow_twins_terms(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """What the cross-correlation over all processes lacks to be the identity.

    Args:
        z1, z2: (N, d) projections, standardised column by column.

    Returns:
        Two of (): sum_i (c_ii - 1)^2 and sum over i != j of c_ij^2.
    """
    correlation = summed(z1.T @ z2 / (len(z1) * world_size()))
    diagonal = correlation.diagonal()
    off = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum(), off


def build_barlow_twins(parts: Parts, settings: BarlowTwinsSettings) -> BarlowTwins:
    """The objective with the checkpoint's projector and its statistics or fresh ones."""
    r = parts.num_features
    hidden = settings.hidden or hidden_width(8192, r)
    widths = (r, hidden, hidden, settings.out or hidden)
    projector = parts.head("projector", lambda: mlp_head(widths), r)
    norm = nn.BatchNorm1d(widths_of(projector)[1], affine=False)
    state = parts.part("loss_norm")
    if state and "online.projector" not in parts.fresh:
        expected = norm.state_dict()
        for name, value in expected.items():
            if name in state and state[name].shape != value.shape:
                raise EncoderError(
                    f"the checkpoint's {name} between projector and loss is {tuple(state[name].shape)}, but "
                    f"the projector returns {norm.num_features} numbers"
                )
        norm.load_state_dict(expected | {k: v for k, v in state.items() if k in expected})
    return BarlowTwins(parts.backbone(), projector, norm, settings)
