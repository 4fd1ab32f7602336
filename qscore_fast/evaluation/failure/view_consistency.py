"""Perturbation consistency: how alike the representations of one image's views are."""

from __future__ import annotations

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.row_scores import check_matrix


def consistency(views: list[Tensor]) -> Tensor:
    """The mean cosine over all pairs of views; 1 for views that are the same up to scale.

    Args:
        views: two or more of (n, r), row i of each a view of the same image i.

    Returns:
        (n,) float32, float64 for float64 views.

    Raises:
        SettingsError: fewer than two views, or their shapes differ.
    """
    shapes = {tuple(view.shape) for view in views}
    if len(views) < 2 or len(shapes) > 1:
        raise SettingsError(
            f"{len(views)} views of shapes {sorted(shapes)}: give two or more of the same shape"
        )
    unit = [_unit_rows(view) for view in views]
    total = unit[0].clone()
    own = unit[0].square().sum(-1)
    for view in unit[1:]:
        total += view
        own = own + view.square().sum(-1)
    pairs = len(views) * (len(views) - 1)
    return (total.square().sum(-1) - own) / pairs


def _unit_rows(h: Tensor) -> Tensor:
    """h / ||h||_2 by rows, in float32 or float64; rows of zeros stay."""
    check_matrix("a view", h)
    wide = h.to(torch.promote_types(h.dtype, torch.float32))
    return torch.nn.functional.normalize(wide, eps=1e-30)
