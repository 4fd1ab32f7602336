"""Perturbation consistency: how alike the representations of one image's views are."""

from __future__ import annotations

from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.neighbours import unit_rows


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
    unit = [unit_rows(view) for view in views]
    total = unit[0].clone()
    own = unit[0].square().sum(-1)
    for view in unit[1:]:
        total += view
        own = own + view.square().sum(-1)
    pairs = len(views) * (len(views) - 1)
    return (total.square().sum(-1) - own) / pairs
