"""How each system is optimised: the paper's further training, and the official code of each system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qscore_fast.errors import SettingsError

Preset = Literal["paper", "official"]
OptimiserName = Literal["lars", "sgd", "adamw"]
ScheduleName = Literal["cosine", "step", "constant"]

REFERENCE_BATCH = 256
SOLO_LEARN = "solo_learn"


@dataclass(frozen=True)
class Recipe:
    """An optimiser, its schedule, and how long.

    Attributes:
        like: whose code decides the details: a key of ``GROUP_RULES`` and, with LARS, of ``LARS_OPTIONS``.
        optimiser: "lars", "sgd" with momentum, or "adamw".
        lr: the peak rate; of a batch of 256 where ``scaled``.
        scaled: whether the rate grows in proportion to the batch.
        schedule: "cosine" after the warm-up, "step" by ``milestones``, or "constant".
        by_epoch: whether the cosine changes once an epoch.
        warmup_epochs: linear, from 0.
        end_lr: the last rate over the peak.
        milestones: epochs at which the rate falls to a tenth.
        weight_decay, end_weight_decay: the second where it follows half a cosine.
    """

    like: str
    optimiser: OptimiserName
    lr: float
    epochs: int
    batch_size: int
    weight_decay: float
    scaled: bool = True
    schedule: ScheduleName = "cosine"
    by_epoch: bool = False
    warmup_epochs: float = 0
    end_lr: float = 0.0
    milestones: tuple[int, ...] = ()
    momentum: float = 0.9
    end_weight_decay: float | None = None

    def peak_lr(self, batch_size: int) -> float:
        """The rate for a global batch of this size."""
        return self.lr * batch_size / REFERENCE_BATCH if self.scaled else self.lr

    @property
    def heads_lr(self) -> float:
        """Of a batch of 256: that of heads that start at random, while the backbone is frozen."""
        if self.optimiser == "adamw":
            return 5e-4
        return 0.3 if self.optimiser == "lars" and self.like != SOLO_LEARN else 0.05


# Kalibhat et al. 2024 give the rate, the epochs, LARS and "warm-up then anneal". The rest is solo-learn's,
# with which they trained: LARS there never goes above the plain rate, and 256 images are two GPUs' batches.
PAPER = Recipe(SOLO_LEARN, "lars", 1e-5, 50, 256, 1e-6, scaled=False, warmup_epochs=5)

OFFICIAL: Mapping[str, Recipe] = {
    "simclr": Recipe("simclr", "lars", 0.3, 100, 4096, 1e-4, warmup_epochs=10),
    "swav": Recipe("swav", "lars", 0.6, 400, 256, 1e-6, end_lr=1e-3),
    "moco": Recipe("moco", "sgd", 0.03, 200, 256, 1e-4, schedule="step", milestones=(120, 160)),
    "moco_v2": Recipe("moco_v2", "sgd", 0.03, 200, 256, 1e-4, by_epoch=True),
    "moco_v3": Recipe("moco_v3", "lars", 0.3, 300, 4096, 1.5e-6, warmup_epochs=10),
    "byol": Recipe("byol", "lars", 0.2, 1000, 4096, 1.5e-6, warmup_epochs=10),
    "dino": Recipe("dino", "sgd", 0.03, 100, 256, 1e-4, warmup_epochs=10),
    "simsiam": Recipe("simsiam", "sgd", 0.05, 100, 512, 1e-4, by_epoch=True),
    "vicreg": Recipe("vicreg", "lars", 0.2, 1000, 2048, 1e-6, warmup_epochs=10, end_lr=1e-3),
    "barlow_twins": Recipe(
        "barlow_twins", "lars", 0.2, 1000, 2048, 1e-6, warmup_epochs=10, end_lr=1e-3
    ),
}
"""The official code's own, of ResNets; of a range of lengths the published checkpoint's."""

OFFICIAL_TRANSFORMERS: Mapping[str, Recipe] = {
    "dino": Recipe("dino", "adamw", 5e-4, 100, 256, 0.04, end_weight_decay=0.4, warmup_epochs=10),
    "moco_v3": Recipe("moco_v3_vit", "adamw", 1.5e-4, 300, 4096, 0.1, warmup_epochs=40),
}

OFFICIAL_OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "swav": {"queue_length": 3840, "freeze_prototypes_steps": 5005},
}
"""Settings of objectives that belong to these batch sizes and not to the code's defaults."""


def recipe_of(preset: Preset, system: str, *, transformer: bool = False) -> Recipe:
    """The recipe of a preset for a system.

    Raises:
        SettingsError: no such preset, or no recipe for the system.
    """
    if preset == "paper":
        return PAPER
    if preset != "official":
        raise SettingsError(f'preset must be "paper" or "official", got {preset!r}')
    found = OFFICIAL_TRANSFORMERS.get(system) if transformer else None
    found = found or OFFICIAL.get(system)
    if found is None:
        raise SettingsError(
            f"there is no official recipe for {system}, only for {', '.join(OFFICIAL)}: take the preset "
            "paper, or name the system (--system)"
        )
    return found
