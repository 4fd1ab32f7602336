"""How well heat maps fit soft masks: overlap, pointing, energy, ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from qscore_fast.errors import SettingsError

MEASURES = ("heat_iou", "soft_iou", "pointing", "energy", "auroc")

REASONS = ("", "no heat", "empty mask", "full mask", "heat not finite")
"""Why a measure of an image is undefined, by the number in :class:`Overlap`."""

NO_HEAT, EMPTY, FULL, NOT_FINITE = range(1, len(REASONS))


@dataclass(frozen=True)
class OverlapSettings:
    """What the paper leaves open.

    Attributes:
        heat_threshold: A, the area of a heat map in ``heat_iou``, is where it is above this share of its
            maximum, from 0 (wherever there is heat; ``heat_iou`` is ``energy`` then) to below 1.
        mask_threshold: a mask of 0 to 1 covers a pixel from this value on, above 0 and up to 1; for the
            measures that need to know inside from outside (pointing, auroc), and for all with
            ``hard_masks``.
        hard_masks: cut the masks at ``mask_threshold`` for every measure.
        pointing_tolerance: pixels by which the hottest one may miss the mask and still count as a hit; 15
            in the pointing game as it was published.

    Raises:
        SettingsError: a value out of range.
    """

    heat_threshold: float = 0.5
    mask_threshold: float = 0.5
    hard_masks: bool = False
    pointing_tolerance: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.heat_threshold < 1:
            raise SettingsError(
                f"heat_threshold = {self.heat_threshold:g}: give a share of the maximum, from 0 to below 1"
            )
        if not 0 < self.mask_threshold <= 1:
            raise SettingsError(
                f"mask_threshold = {self.mask_threshold:g}: give a mask's value, above 0 and up to 1"
            )
        if not 0 <= self.pointing_tolerance <= 64:
            raise SettingsError(
                f"pointing_tolerance = {self.pointing_tolerance}: give pixels, from 0 to 64"
            )

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


class Overlap(NamedTuple):
    """The measures of N images, each in [0, 1], higher where the heat fits the mask better.

    A value is NaN exactly where it is undefined, and the columns of ``undefined`` say why.

    Attributes:
        values: (N, 5) float64, in the order of MEASURES.
        undefined: (N, 5) uint8: a number of REASONS, 0 where the value is defined.
    """

    values: Tensor
    undefined: Tensor

    def of(self, measure: str) -> Tensor:
        """The (N,) values of one of MEASURES."""
        return self.values[:, MEASURES.index(measure)]


def overlap(
    heat: Tensor,
    mask: Tensor,
    settings: OverlapSettings | None = None,
    seen: Tensor | None = None,
) -> Overlap:
    """Every measure of every image.

    With a = the heat, m = the mask in [0, 1], b = the mask cut at the mask threshold, A = the indicator of
    a > t max(a), sums over pixels:

    * heat_iou, the paper's mIoU: sum a min(A, m) / sum a max(A, m). s(.) is "the sum of the heat map's
      values in that area", so a pixel of the mask without heat adds nothing to the union: this is the
      share of the hot area's heat that lies in the mask, less what the mask holds outside the hot area.
    * soft_iou: sum min(a', m) / sum max(a', m) with a' = a / max(a); it does ask for the whole mask.
    * pointing: whether b holds the hottest pixel; of several equally hot ones, the share that it holds.
    * energy: sum a m / sum a, the share of the heat inside the mask.
    * auroc: of the heat as a ranking of the pixels with b as the truth; ties count half.

    None depends on the scale of the heat. A map without heat has no measure; a mask with no pixel, or with
    all, has no auroc, and an all-zero mask has 0 for the others.

    Args:
        heat: (N, H, W), floating point, 0 or more.
        mask: (N, H, W): uint8 of 0 to 255, bool, or floating point of 0 to 1.
        settings: thresholds; the defaults of :class:`OverlapSettings` if None.
        seen: (N, H, W) bool: pixels that count; None for all.

    Raises:
        SettingsError: other shapes or dtypes, negative heat, a mask out of range.
    """
    return overlaps(heat, [mask], settings, seen)[0]


def overlaps(
    heat: Tensor,
    masks: Sequence[Tensor],
    settings: OverlapSettings | None = None,
    seen: Tensor | None = None,
) -> list[Overlap]:
    """:func:`overlap` with several masks of the same images; the heat is looked at once."""
    settings = settings or OverlapSettings()
    given, counted = _checked_heat(heat, seen)
    finite = given.isfinite().all(1)
    a = torch.where(finite[:, None], given, 0.0)
    peak = a.amax(1, keepdim=True) if a.shape[1] else a.new_zeros((len(a), 1))
    hot = peak > 0
    # From here on 0 to 1: the sums of tiny heat must not vanish, those of large not overflow.
    a = torch.where(hot, a / torch.where(hot, peak, 1.0), 0.0)
    area = (a > settings.heat_threshold).to(a.dtype)
    hottest = (a == 1) & hot
    ranks = _ranks(a, counted)
    found = []
    for mask in masks:
        m = _checked_mask(mask, heat, counted)
        b = (m >= settings.mask_threshold) & counted
        if settings.hard_masks:
            m = b.to(a.dtype)
        near = b if not settings.pointing_tolerance else _grown(b, heat.shape, settings, counted)
        values = torch.stack(
            [
                (a * torch.minimum(area, m)).sum(1) / (a * torch.maximum(area, m)).sum(1),
                torch.minimum(a, m).sum(1) / torch.maximum(a, m).sum(1),
                (hottest & near).sum(1) / hottest.sum(1).double(),
                (a * m).sum(1) / a.sum(1),
                _auroc(ranks, b, counted),
            ],
            dim=1,
        )
        undefined = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
        inside, pixels = b.sum(1), counted.sum(1)
        undefined[inside == 0, -1] = EMPTY
        undefined[(inside == pixels) & (pixels > 0), -1] = FULL
        undefined[~hot[:, 0]] = NO_HEAT
        undefined[~finite] = NOT_FINITE
        found.append(Overlap(torch.where(undefined > 0, math.nan, values), undefined))
    return found


def _checked_heat(heat: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Heat as float64 (N, P), 0 where it does not count; and which pixels do."""
    if heat.ndim != 3 or not heat.is_floating_point():
        raise SettingsError(
            f"heat is {heat.dtype} of shape {tuple(heat.shape)}: give floating-point maps (N, H, W)"
        )
    if seen is not None and (seen.shape != heat.shape or seen.dtype != torch.bool):
        raise SettingsError(
            f"seen is {seen.dtype} of shape {tuple(seen.shape)}: give bool {tuple(heat.shape)}"
        )
    a = heat.double().flatten(1)
    if (a.nan_to_num(0.0) < 0).any():
        raise SettingsError(
            "heat is below 0 somewhere: give maps of evidence for, such as relu(map)"
        )
    if seen is None:
        return a, torch.ones_like(a, dtype=torch.bool)
    counted = seen.to(heat.device).flatten(1)
    return torch.where(counted, a, 0.0), counted


def _checked_mask(mask: Tensor, heat: Tensor, counted: Tensor) -> Tensor:
    """A mask as float64 (N, P) of 0 to 1, 0 where it does not count."""
    if mask.shape != heat.shape:
        raise SettingsError(
            f"heat has shape {tuple(heat.shape)} and the mask {tuple(mask.shape)}: give as many masks of "
            "that size"
        )
    m = mask.to(heat.device).double().flatten(1)
    if mask.dtype == torch.uint8:
        m = m / 255
    if not ((m >= 0) & (m <= 1)).all():
        raise SettingsError("the mask is not between 0 and 1 everywhere: divide it by its maximum")
    return torch.where(counted, m, 0.0)


def _grown(inside: Tensor, shape: torch.Size, settings: OverlapSettings, counted: Tensor) -> Tensor:
    """The masks, and every pixel at most the tolerance away from one of theirs."""
    reach = settings.pointing_tolerance
    line = torch.arange(-reach, reach + 1, device=inside.device)
    disc = (line[:, None] ** 2 + line**2 <= reach**2).float()
    images = inside.reshape(len(inside), 1, *shape[1:]).float()
    grown = F.conv2d(images, disc[None, None], padding=reach) > 0.5
    return grown.flatten(1) & counted


def _ranks(a: Tensor, counted: Tensor) -> Tensor:
    """(N, P) float64: each pixel's place among those that count, from 1; of equal ones the mean."""
    n, p = a.shape
    # Pixels that do not count come first, below all others.
    ordered, order = torch.where(counted, a, -1.0).sort(dim=1)
    position = torch.arange(p, device=a.device).expand(n, p)
    begins = torch.ones_like(counted)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = torch.ones_like(counted)
    ends[:, :-1] = begins[:, 1:]
    first = torch.where(begins, position, 0).cummax(1).values if p else position
    last = torch.where(ends, position, p).flip(1).cummin(1).values.flip(1) if p else position
    place = (first + last).double() / 2 + 1 - (~counted).sum(1, keepdim=True)
    return torch.empty_like(place).scatter_(1, order, place)


def _auroc(ranks: Tensor, inside: Tensor, counted: Tensor) -> Tensor:
    """(N,): P(a pixel inside is hotter than one outside) + half of P(equal); NaN without either."""
    num_in = inside.sum(1).double()
    num_out = counted.sum(1).double() - num_in
    above = (ranks * inside).sum(1) - num_in * (num_in + 1) / 2
    return above / (num_in * num_out)
