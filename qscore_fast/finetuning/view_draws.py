"""What is drawn for a view: numbers from 0 to 1 to a box and the parameters of every operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qscore_fast.finetuning.view_recipes import Jitter, View

_BOX_ATTEMPTS = 10
_SIGMA = (0.1, 2.0)
_RATIO = (3 / 4, 4 / 3)

# Every number has its place, so that what one operation draws does not depend on another's outcome.
_BOX, _FLIP, _JITTER, _GRAY, _BLUR, _SOLARIZE = 0, 22, 23, 32, 33, 35
NUMBERS = 36
"""How many numbers a view takes."""


@dataclass(frozen=True)
class ViewDraw:
    """One view of one image, decided.

    Attributes:
        box: top, left, height, width of the crop, pixels.
        flip, gray, solarize: whether they are done.
        jitter: the operations in their order with their factors, hue with its shift; empty if not done.
        sigma: of the blur, pixels; None if not done.
    """

    box: tuple[int, int, int, int]
    flip: bool
    jitter: tuple[tuple[str, float], ...]
    gray: bool
    sigma: float | None
    solarize: bool


def draw_view(view: View, height: int, width: int, numbers: Sequence[float]) -> ViewDraw:
    """Decide a view of an image of ``height`` x ``width`` pixels.

    Args:
        numbers: ``NUMBERS`` independent ones, uniform from 0 to below 1.
    """
    blurred = numbers[_BLUR] < view.blur
    return ViewDraw(
        box=_box(view.crop, height, width, numbers[_BOX:_FLIP]),
        flip=numbers[_FLIP] < view.flip,
        jitter=_jitter(view.jitter, numbers[_JITTER:_GRAY]),
        gray=numbers[_GRAY] < view.gray,
        sigma=_between(_SIGMA, numbers[_BLUR + 1]) if blurred else None,
        solarize=numbers[_SOLARIZE] < view.solarize,
    )


def _between(ends: tuple[float, float], number: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * number


def _box(
    share: tuple[float, float], height: int, width: int, numbers: Sequence[float]
) -> tuple[int, int, int, int]:
    """torchvision's RandomResizedCrop: ten attempts, then the centre."""
    log_ratio = math.log(_RATIO[0]), math.log(_RATIO[1])
    for attempt in range(_BOX_ATTEMPTS):
        area = height * width * _between(share, numbers[2 * attempt])
        ratio = math.exp(_between(log_ratio, numbers[2 * attempt + 1]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = numbers[2 * _BOX_ATTEMPTS], numbers[2 * _BOX_ATTEMPTS + 1]
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    w, h = width, height
    if width / height < _RATIO[0]:
        h = round(w / _RATIO[0])
    elif width / height > _RATIO[1]:
        w = round(h * _RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w


def _jitter(jitter: Jitter, numbers: Sequence[float]) -> tuple[tuple[str, float], ...]:
    if numbers[0] >= jitter.p:
        return ()
    brightness = (-jitter.brightness, jitter.brightness)
    operations = (
        ("add", _between(brightness, numbers[1]))
        if jitter.added_brightness
        else ("brightness", _factor(jitter.brightness, numbers[1])),
        (
            "channel_contrast" if jitter.channel_contrast else "contrast",
            _factor(jitter.contrast, numbers[2]),
        ),
        ("saturation", _factor(jitter.saturation, numbers[3])),
        ("hue", _between((-jitter.hue, jitter.hue), numbers[4])),
    )
    order = sorted(range(4), key=lambda number: numbers[5 + number])
    return tuple(operations[number] for number in order)


def _factor(strength: float, number: float) -> float:
    return _between((max(0.0, 1 - strength), 1 + strength), number)
