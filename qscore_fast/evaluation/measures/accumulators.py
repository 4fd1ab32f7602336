"""The streamed measures as accumulators: update, compute, merge, reset."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures import directional, spectral
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.row_blocks import Array


class MomentMeasure:
    """A measure that follows from moments. For several at once, keep one RepresentationMoments instead and
    call their functions: the sums and the spectrum are then made once.

    Args:
        num_features: r.
        device: where to sum; by default that of the first batch.
        settings: the keyword arguments of the measure's function.

    Attributes:
        moments: what was seen so far.
    """

    function: ClassVar[Callable[..., Measured]]
    unit_rows: ClassVar[bool] = False

    def __init__(
        self, num_features: int, *, device: str | torch.device | None = None, **settings: Any
    ) -> None:
        known = [*inspect.signature(self.function).parameters][1:]
        if unknown := set(settings) - set(known):
            raise SettingsError(
                f"{type(self).__name__} has no setting {min(unknown)!r}; it has "
                f"{', '.join(known) or 'none'}"
            )
        self.settings = settings
        self.moments = RepresentationMoments(num_features, unit_rows=self.unit_rows, device=device)

    def update(self, h: Array) -> Self:
        """Add the rows of ``h`` (..., r)."""
        self.moments.update(h)
        return self

    def compute(self) -> Measured:
        """The value over all rows so far."""
        return type(self).function(self.moments, **self.settings)

    def merge(self, other: Self) -> Self:
        """Add the rows of another accumulator with the same settings."""
        if type(self) is not type(other) or self.settings != other.settings:
            raise SettingsError(
                f"cannot merge {type(other).__name__} with {other.settings} into "
                f"{type(self).__name__} with {self.settings}"
            )
        self.moments.merge(other.moments)
        return self

    def reset(self) -> None:
        """Forget all rows."""
        self.moments.reset()


class RankMe(MomentMeasure):
    """:func:`rank_me`; setting: eps."""

    function = staticmethod(spectral.rank_me)


class EffectiveRank(MomentMeasure):
    """:func:`effective_rank`."""

    function = staticmethod(spectral.effective_rank)


class AlphaReQ(MomentMeasure):
    """:func:`alpha_req`; setting: fit."""

    function = staticmethod(spectral.alpha_req)


class NESum(MomentMeasure):
    """:func:`nesum`."""

    function = staticmethod(spectral.nesum)


class StableRank(MomentMeasure):
    """:func:`stable_rank`; setting: centred."""

    function = staticmethod(spectral.stable_rank)


class Anisotropy(MomentMeasure):
    """:func:`anisotropy`."""

    function = staticmethod(spectral.anisotropy)


class ParticipationRatio(MomentMeasure):
    """:func:`participation_ratio`."""

    function = staticmethod(spectral.participation_ratio)


class CorrectedParticipationRatio(MomentMeasure):
    """:func:`participation_ratio_corrected`."""

    function = staticmethod(spectral.participation_ratio_corrected)


class PseudoCondition(MomentMeasure):
    """:func:`pseudo_condition`; setting: centred."""

    function = staticmethod(spectral.pseudo_condition)


class SelfClustering(MomentMeasure):
    """:func:`self_clustering`."""

    function = staticmethod(directional.self_clustering)
    unit_rows = True


class NormalisedStd(MomentMeasure):
    """:func:`normalised_std`."""

    function = staticmethod(directional.normalised_std)
    unit_rows = True


class SparsityL0(MomentMeasure):
    """:func:`sparsity_l0`."""

    function = staticmethod(directional.sparsity_l0)


class SparsityL1(MomentMeasure):
    """:func:`sparsity_l1`."""

    function = staticmethod(directional.sparsity_l1)
