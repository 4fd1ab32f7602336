"""Which features of each image a heat map shows: given ones, or the image's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.functional import EPS, highly_active, resolve_sides

Features = DiscriminativeFeatures | Tensor | Sequence[int] | None


@dataclass(frozen=True, eq=False)
class ChosenFeatures:
    """What ``features`` asks for.

    Attributes:
        indices: int64 (K,), the same for every image; None: each image's own L & D.
        mask: D, bool (r,), of the score and of L & D; None for all features.
        eps, two_sided: of L.
    """

    indices: Tensor | None
    mask: Tensor | None
    eps: float
    two_sided: bool

    @classmethod
    def of(
        cls,
        features: Features,
        num_features: int,
        eps: float | None = None,
        two_sided: bool | None = None,
    ) -> ChosenFeatures:
        """Check ``features`` against r.

        Raises:
            SettingsError: of another encoder, out of range, not whole numbers, or none at all.
        """
        if features is None:
            return cls(None, None, _checked_eps(eps, EPS), bool(two_sided))
        if isinstance(features, DiscriminativeFeatures):
            try:
                sides = resolve_sides(features, two_sided)
            except ValueError as error:
                raise SettingsError(str(error)) from error
            mask = _checked_mask(features.mask, num_features)
            return cls(None, mask, _checked_eps(eps, features.eps), sides)
        eps, sides = _checked_eps(eps, EPS), bool(two_sided)
        if isinstance(features, Tensor) and features.dtype == torch.bool:
            return cls(None, _checked_mask(features, num_features), eps, sides)
        return cls(_checked_indices(features, num_features), None, eps, sides)

    def members(self, h: Tensor) -> Tensor:
        """Which features the maps of each row of ``h`` (N, r) show: bool (N, r)."""
        if self.indices is not None:
            given = torch.zeros_like(h, dtype=torch.bool)
            given[:, self.indices.to(h.device)] = True
            return given
        own = highly_active(h, self.eps, two_sided=self.two_sided)
        return own if self.mask is None else own & self.mask.to(h.device)


def _checked_eps(eps: float | None, default: float) -> float:
    eps = float(default if eps is None else eps)
    if not 0 <= eps < float("inf"):
        raise SettingsError(
            f"eps is {eps}; it must be a finite number of standard deviations, >= 0"
        )
    return eps


def _checked_mask(mask: Tensor, num_features: int) -> Tensor:
    if mask.shape != (num_features,):
        raise SettingsError(
            f"the features are {tuple(mask.shape)} but the encoder has r = {num_features}: they belong "
            "to different encoders"
        )
    return mask


def _checked_indices(features: Tensor | Sequence[int], num_features: int) -> Tensor:
    try:
        indices = torch.as_tensor(features)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"features is {features!r}; give indices, DiscriminativeFeatures, a bool mask (r,) or None"
        ) from error
    whole = not (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool)
    if indices.ndim != 1 or not len(indices) or not whole:
        raise SettingsError(
            f"features are {indices.dtype} of shape {tuple(indices.shape)}; give one whole number or more, "
            "or None for each image's own"
        )
    wrong = indices[(indices < 0) | (indices >= num_features)]
    if len(wrong):
        raise SettingsError(
            f"feature {int(wrong[0])} is out of range: the encoder has features 0 to {num_features - 1}"
        )
    return indices.long()
