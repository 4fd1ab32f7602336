"""Plan: what is trained, on what, and for how long."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import Settings
from qscore_fast.finetuning.comparison import ARMS

from .small_systems import OBJECTIVES, SYSTEMS

# Images of 28 x 28 are seen through crops of twice the usual area; a collapse is to be a row of the
# table, not the end of the experiment.
_SMALL = Settings(
    optimiser="adamw", batch_size=128, weight_decay=1e-6, crop_scale=2.0, views_on_device=True,
    channels_last=True, workers=1, keep=0, collapse_below=0.0, tensorboard=False,
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        systems: in the order of the table. checkpoints: by system; where there are none, encoders are
            pre-trained first.
        pretraining: settings of that; None with checkpoints.
        arms, seeds: of the further trainings. tuning: their settings.
    """

    systems: tuple[str, ...]
    checkpoints: dict[str, Path]
    pretraining: Settings | None
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    tuning: Settings

    @property
    def num_trainings(self) -> int:
        """Further trainings of one system."""
        return len(self.arms) * len(self.seeds)

    def pretraining_of(self, system: str) -> Settings:
        """That of one system."""
        assert self.pretraining is not None
        return replace(self.pretraining, objective=dict(OBJECTIVES[system]))

    def tuning_of(self, system: str) -> Settings:
        """That of one system: with the small objectives where we pre-trained with them."""
        if self.pretraining is None:
            return self.tuning
        return replace(self.tuning, objective=dict(OBJECTIVES[system]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "systems": list(self.systems),
            "arms": list(self.arms),
            "seeds": list(self.seeds),
            "pretraining": None if self.pretraining is None else self.pretraining.asked(),
            "objectives": {} if self.pretraining is None else dict(OBJECTIVES),
            "tuning": self.tuning.asked(),
        }


def plan_of(options: argparse.Namespace) -> Plan:
    """What the options of the command ask for.

    Raises:
        SettingsError: a system or an arm that there is not, checkpoints missing, a number out of range.
    """
    checkpoints = dict(_checkpoint(text) for text in options.checkpoints)
    if len(checkpoints) < len(options.checkpoints):
        raise SettingsError("--checkpoints names a system twice: give one file a system")
    if options.imagenet is not None and not checkpoints:
        raise SettingsError(
            "on ImageNet the experiment starts from published checkpoints: give --checkpoints SYSTEM=FILE ..."
        )
    known = tuple(checkpoints) or SYSTEMS
    systems = tuple(options.systems or known)
    if unknown := [system for system in systems if system not in known]:
        raise SettingsError(
            f"there is no {unknown[0]!r} to train further: choose of {', '.join(known)}"
        )
    arms = tuple(options.arms)
    if not arms or len(set(arms)) < len(arms) or not set(arms) <= set(ARMS):
        raise SettingsError(f"arms are {' '.join(arms)}: choose each once of {', '.join(ARMS)}")
    if len(set(options.seeds)) < len(options.seeds):
        raise SettingsError(f"seeds are {options.seeds}: give each once")
    given = {
        name: getattr(options, name)
        for name in (
            "lr",
            "epochs",
            "steps",
            "batch_size",
            "lambda1",
            "lambda2",
            "workers",
            "image_size",
        )
        if getattr(options, name) is not None
    }
    if checkpoints:
        base = Settings(keep=0, collapse_below=0.0)
        return Plan(systems, checkpoints, None, arms, tuple(options.seeds), replace(base, **given))
    tuning = replace(
        _SMALL, **{"lr": 5e-4, "steps": 60, **given}, log_every=6, monitor_every=60, save_every=1000
    )
    pretraining = replace(
        _SMALL, regulariser="none", lr=2e-3, steps=options.pretraining_steps, log_every=10,
        monitor_every=50, save_every=100,
    )  # fmt: skip
    return Plan(systems, {}, pretraining, arms, tuple(options.seeds), tuning)


def _checkpoint(text: str) -> tuple[str, Path]:
    system, mark, path = text.partition("=")
    if not mark or not path:
        raise SettingsError(f"--checkpoints takes SYSTEM=FILE, got {text!r}")
    return system, Path(path)
