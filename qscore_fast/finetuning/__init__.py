"""Further training of a self-supervised encoder with its own objective and Q-Score as a regulariser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qscore_fast.lazy_imports import lazy_names

if TYPE_CHECKING:
    from qscore_fast.finetuning.callback import QScoreCallback
    from qscore_fast.finetuning.comparison import Comparison, compare
    from qscore_fast.finetuning.fine_tune_run import FineTuneRun
    from qscore_fast.finetuning.module import FineTuningModule
    from qscore_fast.finetuning.objective import Objective, ObjectiveOutput, StepPosition
    from qscore_fast.finetuning.objectives import build_objective
    from qscore_fast.finetuning.regulariser import Lambdas, RepresentationRegulariser
    from qscore_fast.finetuning.run import finetune
    from qscore_fast.finetuning.scratch import untrained_encoder
    from qscore_fast.finetuning.settings import Settings
    from qscore_fast.finetuning.trained import export_run, open_run
    from qscore_fast.finetuning.watching import TrainingStopped

_NAMES = {
    "callback": ("QScoreCallback",),
    "comparison": ("Comparison", "compare"),
    "fine_tune_run": ("FineTuneRun",),
    "module": ("FineTuningModule",),
    "objective": ("Objective", "ObjectiveOutput", "StepPosition"),
    "objectives": ("build_objective",),
    "regulariser": ("Lambdas", "RepresentationRegulariser"),
    "run": ("finetune",),
    "scratch": ("untrained_encoder",),
    "settings": ("Settings",),
    "trained": ("export_run", "open_run"),
    "watching": ("TrainingStopped",),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "finetune",
    "Settings",
    "FineTuneRun",
    "TrainingStopped",
    "untrained_encoder",
    "open_run",
    "export_run",
    "compare",
    "Comparison",
    "FineTuningModule",
    "QScoreCallback",
    "RepresentationRegulariser",
    "Lambdas",
    "build_objective",
    "Objective",
    "ObjectiveOutput",
    "StepPosition",
]


# Lightning takes seconds to import, and objectives do without it.
__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted(__all__)
