"""SimCLR: NT-Xent over the two views of the global batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.finetuning.objective import Objective, ObjectiveOutput
from qscore_fast.finetuning.objectives.checks import positive
from qscore_fast.finetuning.objectives.crops import represent_crops, two_views
from qscore_fast.finetuning.objectives.full_precision import in_full_precision
from qscore_fast.finetuning.objectives.gathering import gathered_with_gradient, rank
from qscore_fast.finetuning.objectives.heads import freeze_zero_offset, layers_of, mlp_head
from qscore_fast.finetuning.objectives.parts import Parts


@dataclass(frozen=True)
class SimCLRSettings:
    """The defaults are those of google-research/simclr's run.py.

    Attributes:
        temperature: of the cosine similarities.
        hidden: width of a fresh projector's hidden layers; None: r.
        out: length of its output.
        layers: how many linear layers it has: 3 in the code and in SimCLR v2, 2 in the first paper.
    """

    temperature: float = 0.1
    hidden: int | None = None
    out: int = 128
    layers: int = 3

    def __post_init__(self) -> None:
        values = [
            (name, getattr(self, name)) for name in ("temperature", "hidden", "out", "layers")
        ]
        positive("SimCLR", *values)


class SimCLR(Objective):
    """Chen et al., ICML 2020 and NeurIPS 2020; google-research/simclr, objective.py and model_util.py."""

    system = "simclr"

    def __init__(self, backbone: nn.Module, projector: nn.Module, settings: SimCLRSettings) -> None:
        super().__init__()
        self.backbone, self.projector, self.settings = backbone, projector, settings

    def forward(self, views: Sequence[Tensor]) -> ObjectiveOutput:
        """See ``Objective``; both views go through the network as one batch."""
        h = represent_crops(self.backbone, two_views(views, "SimCLR"))
        z1, z2 = self.projector(h).chunk(2)
        return ObjectiveOutput(nt_xent_loss(z1, z2, self.settings.temperature), h)


@in_full_precision
def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> Tensor:
    """The normalised temperature-scaled cross-entropy, twice the mean over the 2N embeddings.

    Args:
        z1, z2: (N, d) projections of the two views, of any length; rows of all processes are negatives,
            with their gradients.
        temperature: of the cosine similarities.

    Returns:
        (): the mean over view 1 plus the mean over view 2, as the official code has it.
    """
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    all1, all2 = gathered_with_gradient(z1), gathered_with_gradient(z2)
    rows = torch.arange(len(z1), device=z1.device)
    labels = rows + len(z1) * rank()

    def cross_entropy(anchors: Tensor, partners: Tensor, same_view: Tensor) -> Tensor:
        themselves = torch.zeros(len(anchors), len(same_view), dtype=torch.bool, device=z1.device)
        themselves[rows, labels] = True
        negatives = (anchors @ same_view.T).masked_fill(themselves, -torch.inf)
        logits = torch.cat([anchors @ partners.T, negatives], dim=1) / temperature
        return F.cross_entropy(logits, labels)

    return cross_entropy(z1, all2, all1) + cross_entropy(z2, all1, all2)


def build_simclr(parts: Parts, settings: SimCLRSettings) -> SimCLR:
    """The objective with the checkpoint's projector or a fresh one, its weights N(0, 0.01^2)."""
    r = parts.num_features

    def fresh() -> nn.Module:
        widths = (r, *[settings.hidden or r] * (settings.layers - 1), settings.out)
        head = mlp_head(widths, last_norm="scale")
        for linear in layers_of(head, nn.Linear):
            nn.init.normal_(linear.get_parameter("weight"), std=0.01)
        return head

    projector = parts.head("projector", fresh, r)
    norms = layers_of(projector, nn.BatchNorm1d)
    if norms:
        freeze_zero_offset(norms[-1])
    return SimCLR(parts.backbone(), projector, settings)
