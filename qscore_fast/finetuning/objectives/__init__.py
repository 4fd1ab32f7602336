"""The objectives of the eight self-supervised systems, as their official code has them."""

from qscore_fast.finetuning.objectives.build import (
    SYSTEMS,
    BuiltObjective,
    build_objective,
    objective_settings,
)

__all__ = ["SYSTEMS", "BuiltObjective", "build_objective", "objective_settings"]
