"""What a training starts from: objective, views and recipe of an encoder's system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.objectives import SYSTEMS, build_objective, objective_settings
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.recipes import OFFICIAL_OBJECTIVES, Recipe, recipe_of
from qscore_fast.finetuning.scratch import is_untrained
from qscore_fast.finetuning.settings import Settings
from qscore_fast.finetuning.view_recipes import views_of
from qscore_fast.finetuning.views import ViewTransform


@dataclass(frozen=True, eq=False)
class Start:
    """A training before its first step.

    Attributes:
        objective: on the CPU, in training mode.
        system: its name.
        fresh: parts that the checkpoint lacks. fresh_heads: those of them with weights.
        transform: an image to its views. mode: the images' colour mode.
        recipe: of the preset. batch_size: images a step.
        untrained: whether the backbone starts at random, too.
    """

    objective: Objective
    system: str
    fresh: tuple[str, ...]
    fresh_heads: tuple[str, ...]
    transform: ViewTransform
    mode: str
    recipe: Recipe
    batch_size: int
    untrained: bool = False

    def notes(self, plan: Plan) -> list[str]:
        """What a user should know of how the training starts."""
        found: list[str] = []
        if self.untrained:
            return found
        if self.fresh:
            found.append(
                f"the checkpoint has no {', '.join(self.fresh)}: they start at random"
                + (
                    f", and the heads are trained for {plan.warm_up_heads:,} steps with the backbone frozen "
                    f"at a rate of {plan.heads_lr:g}"
                    if plan.warm_up_heads and self.fresh_heads
                    else ""
                )
            )
        if self.fresh_heads and not plan.warm_up_heads:
            found.append(
                "fresh heads are not warmed up (--warm-up-heads 0): their first gradients will disturb the "
                "backbone"
            )
        return found


def starting(encoder: Encoder, system: str | None, settings: Settings) -> Start:
    """Put together what a training of an encoder needs.

    Raises:
        SettingsError: the system is not known, or the batch does not fit its queue.
        EncoderError: the checkpoint's heads do not fit.
    """
    system = system or encoder.system
    if system is None or system not in SYSTEMS:
        told = "does not tell its system" if system is None else f"is of {system}"
        raise SettingsError(
            f"{encoder.name} {told}: name one that can be trained further (--system): {', '.join(SYSTEMS)}"
        )
    transformer = any(isinstance(m, torch.nn.LayerNorm) for m in encoder.module.modules())
    recipe = recipe_of(settings.preset, system, transformer=transformer)
    batch_size = settings.batch_size or recipe.batch_size
    values: dict[str, Any] = dict(settings.objective)
    if settings.preset == "official":
        values = {**OFFICIAL_OBJECTIVES.get(system, {}), **values}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        built = build_objective(
            system,
            encoder,
            objective_settings(system, values),
            only_from_checkpoint=settings.only_from_checkpoint,
        )
    objective = built.objective.cpu()
    objective.check_batch(batch_size // settings.accumulate)
    size = settings.image_size or encoder.preprocess.output_size[0]
    transform = ViewTransform(
        views_of(system, transformer),
        size,
        encoder.preprocess.mean,
        encoder.preprocess.std,
        crop_scale=settings.crop_scale,
    )
    return Start(
        objective,
        system,
        built.fresh,
        built.fresh_heads,
        transform,
        encoder.preprocess.mode,
        recipe,
        batch_size,
        is_untrained(encoder),
    )
