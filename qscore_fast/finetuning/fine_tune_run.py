"""FineTuneRun: a finished training, and the encoder that came out of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qscore_fast.encoders import Encoder
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.scratch import is_untrained
from qscore_fast.finetuning.watching import read_log

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, eq=False)
class FineTuneRun:
    """A training.

    Attributes:
        path: its folder.
        start: the encoder that it began with.
        objective: as it is after the last step.
    """

    path: Path
    start: Encoder = field(repr=False)
    objective: Objective = field(repr=False)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the log, in order."""
        return read_log(self.path)

    def encoder(self, tower: Literal["online", "evaluated"] = "evaluated") -> Encoder:
        """The trained encoder, frozen, on the CPU: the tower that the system evaluates, or the online one."""
        return trained_encoder(self.start, self.objective, tower=tower)

    @property
    def summary(self) -> dict[str, Any]:
        """Plain values: the first and the last line of the log, and the files."""
        lines = self.log()
        names = ("log.jsonl", "curves.svg", "curves.png", "bad_images.jsonl", CHECKPOINTS)
        return {
            "out": str(self.path),
            "system": self.objective.system,
            "steps": lines[-1]["step"] if lines else 0,
            "first": lines[0] if lines else None,
            "last": lines[-1] if lines else None,
            "files": {n: str(self.path / n) for n in names if (self.path / n).exists()},
        }


def trained_encoder(
    start: Encoder, objective: Objective, tower: Literal["online", "evaluated"] = "evaluated"
) -> Encoder:
    """An objective's backbone as an encoder: a frozen copy on the CPU, with the transform of ``start``."""
    backbone = objective.backbone if tower == "online" else objective.evaluated_backbone
    compiled = getattr(backbone, "_compiled_call_impl", None)
    backbone._compiled_call_impl = None
    try:
        module = copy.deepcopy(backbone)
    finally:
        backbone._compiled_call_impl = compiled
    return Encoder(
        module=module.cpu().eval().requires_grad_(False),
        preprocess=start.preprocess,
        name=f"{start.name}, fine-tuned",
        system=start.system or objective.system,
        num_features=start.num_features,
        source=None if is_untrained(start) else start.source,
        architecture=start.architecture,
    )
