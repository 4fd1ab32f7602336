"""``build_objective``: an encoder and a system's name to what the training loop trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError, SettingsError
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.objectives.barlow_twins import BarlowTwinsSettings, build_barlow_twins
from qscore_fast.finetuning.objectives.byol import BYOLSettings, build_byol
from qscore_fast.finetuning.objectives.dino import DINOSettings, build_dino
from qscore_fast.finetuning.objectives.moco import (
    MoCoSettings,
    MoCoV2Settings,
    build_moco,
    build_moco_v2,
)
from qscore_fast.finetuning.objectives.moco_v3 import MoCoV3Settings, build_moco_v3
from qscore_fast.finetuning.objectives.parts import Parts
from qscore_fast.finetuning.objectives.simclr import SimCLRSettings, build_simclr
from qscore_fast.finetuning.objectives.simsiam import SimSiamSettings, build_simsiam
from qscore_fast.finetuning.objectives.swav import SwAVSettings, build_swav
from qscore_fast.finetuning.objectives.vicreg import VICRegSettings, build_vicreg

HEADS = ("online.projector", "online.predictor", "online.prototypes")

_SYSTEMS: Mapping[str, tuple[type[Any], Callable[[Parts, Any], Objective]]] = {
    "simclr": (SimCLRSettings, build_simclr),
    "swav": (SwAVSettings, build_swav),
    "moco": (MoCoSettings, build_moco),
    "moco_v2": (MoCoV2Settings, build_moco_v2),
    "moco_v3": (MoCoV3Settings, build_moco_v3),
    "byol": (BYOLSettings, build_byol),
    "dino": (DINOSettings, build_dino),
    "simsiam": (SimSiamSettings, build_simsiam),
    "vicreg": (VICRegSettings, build_vicreg),
    "barlow_twins": (BarlowTwinsSettings, build_barlow_twins),
}

SYSTEMS = tuple(_SYSTEMS)
"""The systems that can be trained further."""


@dataclass(frozen=True, eq=False)
class BuiltObjective:
    """An objective, and what of it did not come from the checkpoint.

    Attributes:
        objective: in training mode, on the encoder's device.
        fresh: the parts that were made: "online.projector", "online.predictor", "online.prototypes",
            "queue", "center". A moving average that the checkpoint lacks is a copy and is not listed.
    """

    objective: Objective
    fresh: tuple[str, ...]

    @property
    def fresh_heads(self) -> tuple[str, ...]:
        """Those of ``fresh`` with weights to train: warm them up with the backbone frozen."""
        return tuple(name for name in self.fresh if name in HEADS)


def objective_settings(system: str, values: Mapping[str, Any] | None = None) -> Any:
    """A system's settings: the official ones, but for ``values``.

    Args:
        system: one of ``SYSTEMS``.
        values: by the names of the fields of its settings' class.

    Raises:
        SettingsError: no such system, no such field, or a value that makes no sense.
    """
    kind = _SYSTEMS[_known(system)][0]
    names = [field.name for field in fields(kind)]
    unknown = sorted(set(values or {}) - set(names))
    if unknown:
        raise SettingsError(
            f"the objective of {system} has no setting {unknown[0]!r}; it has {', '.join(names)}"
        )
    for field in fields(kind):
        value = (values or {}).get(field.name, field.default)
        if not _is_of(value, str(field.type)):
            raise SettingsError(f"{field.name} of {system} must be {field.type}, got {value!r}")
    return kind(**(values or {}))


def build_objective(
    system: str | None,
    encoder: Encoder,
    settings: object | None = None,
    *,
    only_from_checkpoint: bool = False,
) -> BuiltObjective:
    """The objective of a system around a copy of an encoder's backbone; the encoder stays as it is.

    Fresh parts come from PyTorch's global random generator: seed it for the same ones.

    Args:
        system: one of ``SYSTEMS``; None: the encoder's own.
        encoder: as it was loaded; ``training_state`` brings heads, moving average, queue and centre.
        settings: of the system's class; None: the official ones. Widths in it are for fresh heads: one
            from the checkpoint keeps its own.
        only_from_checkpoint: make no head.

    Raises:
        SettingsError: no such system, settings of another one, or none is known.
        EncoderError: the encoder was trained with another system, was optimised for inference, its
            checkpoint's heads do not fit it, or, with ``only_from_checkpoint``, heads are missing.
    """
    system = _known(system or _own(encoder))
    kind, build = _SYSTEMS[system]
    settings = kind() if settings is None else settings
    if type(settings) is not kind:
        raise SettingsError(
            f"the objective of {system} takes {kind.__name__}, got {type(settings).__name__}"
        )
    if encoder.system not in (None, system):
        raise EncoderError(
            f"{encoder.name} was trained with {encoder.system}, not with {system}: take that system, or give "
            "the bare encoder (dataclasses.replace(encoder, system=None, training_state=None)), whose heads "
            "will all be fresh"
        )
    parts = Parts(encoder)
    objective = build(parts, settings)
    built = BuiltObjective(objective.to(encoder.device).train(), tuple(parts.fresh))
    if only_from_checkpoint and built.fresh_heads:
        there = ", ".join(encoder.training_state.parts) if encoder.training_state else ""
        raise EncoderError(
            f"{encoder.name} lacks {', '.join(built.fresh_heads)}, which {system} needs; beside the encoder "
            f"it has {there or 'nothing'}: give the full training checkpoint, or allow fresh heads"
        )
    return built


def _is_of(value: object, annotation: str) -> bool:
    """Whether a value is of a type as the settings' classes write it: "int | None", "float", "bool"."""
    kinds = [kind.strip() for kind in annotation.split("|")]
    if value is None or isinstance(value, bool):
        return ("None" if value is None else "bool") in kinds
    return isinstance(value, int | float) and (
        "float" in kinds or ("int" in kinds and isinstance(value, int))
    )


def _own(encoder: Encoder) -> str:
    if encoder.system is None:
        raise SettingsError(
            f"{encoder.name} does not tell its system: name one of {', '.join(SYSTEMS)} (--system)"
        )
    return encoder.system


def _known(system: str) -> str:
    if system not in _SYSTEMS:
        raise SettingsError(f"no objective for {system!r}: choose one of {', '.join(SYSTEMS)}")
    return system
