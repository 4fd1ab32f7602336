"""The augmentations of every system, as its official code draws them: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from qscore_fast.errors import SettingsError


@dataclass(frozen=True)
class Jitter:
    """Brightness, contrast, saturation and hue, in an order that is drawn anew every time.

    Attributes:
        brightness, contrast, saturation: a factor is drawn from 1 - x to 1 + x, not below 0.
        hue: a shift is drawn from -x to x, in turns of the colour circle, x at most 0.5.
        p: how often the four are done.
        channel_contrast: contrast about the mean of each channel, as TensorFlow has it, in place of the
            mean of the grey image.
        added_brightness: a number from -x to x is added, with pixels from 0 to 1, in place of the factor.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    p: float = 0.8
    channel_contrast: bool = False
    added_brightness: bool = False


@dataclass(frozen=True)
class View:
    """How one view is drawn: crop and flip, jitter, grey, blur, solarisation, in this order.

    Attributes:
        crop: least and largest share of the image's area; the sides' ratio is from 3/4 to 4/3.
        jitter: the colours.
        gray: how often the view is grey.
        blur: how often it is blurred, with sigma from 0.1 to 2 pixels.
        solarize: how often what is above half the brightness is inverted.
        side: of the view, over that of the full-size views.
        bicubic: interpolation of the crop, otherwise bilinear; antialiased.
        gray_first: grey before the jitter.
        flip: how often it is mirrored. Since mirroring commutes with all the rest, its place is free.
    """

    crop: tuple[float, float]
    jitter: Jitter
    gray: float = 0.2
    blur: float = 0.0
    solarize: float = 0.0
    side: float = 1.0
    bicubic: bool = False
    gray_first: bool = False
    flip: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.crop
        if not 0 < low <= high <= 1:
            raise SettingsError(f"view: crop is {self.crop}; it must be 0 < least <= largest <= 1")
        odds = (self.gray, self.blur, self.solarize, self.flip, self.jitter.p)
        if not all(0 <= p <= 1 for p in odds):
            raise SettingsError(f"view: probabilities are from 0 to 1, got {odds}")
        if not 0 < self.side <= 1:
            raise SettingsError(f"view: side is {self.side}; it must be above 0 and at most 1")


Recipe = tuple[View, ...]
"""The views of one image: the full-size ones, then the small crops."""

_STRONG = Jitter(0.8, 0.8, 0.8, 0.2)
_V1 = Jitter(0.4, 0.4, 0.4, 0.4, p=1.0)
_V2 = Jitter(0.4, 0.4, 0.4, 0.1)
_WEAK = Jitter(0.4, 0.4, 0.2, 0.1)
_SIMCLR = replace(_STRONG, channel_contrast=True)
_BYOL = replace(_WEAK, channel_contrast=True, added_brightness=True)
_LOCAL = 96 / 224


def _unlike(view: View) -> Recipe:
    """Two views: the first always blurred, the second seldom, but at times solarised."""
    return replace(view, blur=1.0), replace(view, blur=0.1, solarize=0.2)


def _multi_crop(views: Recipe, local: View, count: int) -> Recipe:
    return views + count * (replace(local, side=_LOCAL),)


RECIPES: Mapping[str, Recipe] = {
    "simclr": 2 * (View((0.08, 1), _SIMCLR, blur=0.5, bicubic=True),),
    "swav": _multi_crop(
        2 * (View((0.14, 1), _STRONG, blur=0.5),), View((0.05, 0.14), _STRONG, blur=0.5), 6
    ),
    "moco": 2 * (View((0.2, 1), _V1, gray_first=True),),
    "moco_v2": 2 * (View((0.2, 1), _V2, blur=0.5),),
    "simsiam": 2 * (View((0.2, 1), _V2, blur=0.5),),
    "moco_v3": _unlike(View((0.2, 1), _WEAK)),
    "moco_v3_vit": _unlike(View((0.08, 1), _WEAK)),
    "byol": _unlike(View((0.08, 1), _BYOL, bicubic=True)),
    "vicreg": _unlike(View((0.08, 1), _WEAK, bicubic=True)),
    "barlow_twins": _unlike(View((0.08, 1), _WEAK, bicubic=True)),
    "dino": _multi_crop(
        _unlike(View((0.4, 1), _WEAK, bicubic=True)),
        View((0.05, 0.4), _WEAK, blur=0.5, bicubic=True),
        8,
    ),
    "dino_resnet": _multi_crop(
        _unlike(View((0.14, 1), _WEAK, bicubic=True)),
        View((0.05, 0.14), _WEAK, blur=0.5, bicubic=True),
        8,
    ),
}
"""By system; MoCo v3 and DINO crop otherwise for a ViT and for a ResNet, whose name is the longer one."""


def views_of(system: str, transformer: bool = False) -> Recipe:
    """The recipe of a system's official code, for its transformers or for its ResNets.

    Raises:
        SettingsError: there is no recipe for the system.
    """
    variants = {("moco_v3", True): "moco_v3_vit", ("dino", False): "dino_resnet"}
    name = variants.get((system, transformer), system)
    if name not in RECIPES:
        raise SettingsError(f"no views for {system!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def with_larger_crops(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with ``factor`` times the area of every crop, at most the whole image.

    For images so small that a twelfth of one shows nothing: SimCLR on CIFAR still has 0.08, MoCo's 0.2 is
    2.5 times that.
    """
    if not factor > 0:
        raise SettingsError(f"crops can be made {factor} times as large only if that is above 0")
    return tuple(
        replace(view, crop=(min(1, factor * view.crop[0]), min(1, factor * view.crop[1])))
        for view in recipe
    )
