"""The self-supervised systems: their names, and what their official evaluation does."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from qscore_fast.encoders.layouts.layout import Padding
from qscore_fast.encoders.layouts.official import dino_heads, moco_v3_heads
from qscore_fast.errors import EncoderError
from qscore_fast.images import IMAGENET, Preprocess
from qscore_fast.images.recipes import BYOL, IMAGENET_BICUBIC, SWAV, UNIT_RANGE


@dataclass(frozen=True)
class System:
    """What holds for a system's official checkpoints.

    Attributes:
        title: as its authors write it.
        preprocess: the transform of the official evaluation.
        padding: of the official networks.
        num_heads: attention heads of its ViT as a function of the width; None if it has none.
    """

    title: str
    preprocess: Preprocess = IMAGENET
    padding: Padding = "torch"
    num_heads: Callable[[int], int] | None = None


def _supervised_heads(width: int) -> int:
    """Heads of 64 channels up to ViT-L; 16 heads in ViT-H, -g and -G."""
    return 16 if width in (1280, 1408, 1664) else dino_heads(width)


SYSTEMS = {
    "simclr": System("SimCLR", UNIT_RANGE, "same_pool"),
    "swav": System("SwAV", SWAV),
    "moco": System("MoCo v1"),
    "moco_v2": System("MoCo v2"),
    "moco_v3": System("MoCo v3", num_heads=moco_v3_heads),
    "byol": System("BYOL", BYOL, "same"),
    "dino": System("DINO", IMAGENET_BICUBIC, num_heads=dino_heads),
    "simsiam": System("SimSiam"),
    "vicreg": System("VICReg"),
    "barlow_twins": System("Barlow Twins"),
    "dinov2": System("DINOv2", IMAGENET_BICUBIC),
    "dinov3": System("DINOv3", IMAGENET_BICUBIC),
    "supervised": System("supervised", num_heads=_supervised_heads),
}
_FAMILIES = {"moco": ("moco", "moco_v2", "moco_v3"), "simclr_v2": ("simclr",)}


def members(system: str) -> tuple[str, ...]:
    """The systems that a user may mean: "moco" is any version of it.

    Raises:
        EncoderError: no such system.
    """
    name = system.lower().replace("-", "_").replace(" ", "_")
    name = {"barlowtwins": "barlow_twins", "mocov2": "moco_v2", "mocov3": "moco_v3"}.get(name, name)
    if name in _FAMILIES:
        return _FAMILIES[name]
    if name in SYSTEMS:
        return (name,)
    near = difflib.get_close_matches(name, SYSTEMS, n=3)
    raise EncoderError(
        f"no system {system!r}; "
        + (f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(SYSTEMS)}")
    )
