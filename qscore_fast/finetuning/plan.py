"""Plan: a training in whole numbers of steps, with nothing left to a default."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qscore_fast.finetuning import schedules
from qscore_fast.finetuning.objective import StepPosition
from qscore_fast.finetuning.recipes import Recipe

THROUGH_PEAK = ("swav", "dino")
"""Whose warm-up has the peak rate at its last step already."""


@dataclass(frozen=True)
class Plan:
    """What the loop does at which step.

    Attributes:
        recipe: optimiser and schedule.
        peak_lr: its highest rate.
        steps: of the optimiser, after the warm-up of the heads.
        steps_per_epoch: in which the images are gone through once.
        warm_up_heads: steps before these, in which the backbone is frozen.
        heads_lr: the rate of these, constant.
        accumulate: batches a step.
    """

    recipe: Recipe
    peak_lr: float
    steps: int
    steps_per_epoch: int
    warm_up_heads: int = 0
    heads_lr: float = 0.0
    accumulate: int = 1

    @property
    def all_steps(self) -> int:
        """Those of the heads alone included."""
        return self.warm_up_heads + self.steps

    def warms_up(self, done: int) -> bool:
        """Whether the step after ``done`` steps trains the heads alone."""
        return done < self.warm_up_heads

    def position(self, done: int) -> StepPosition:
        """Where the objective stands after ``done`` steps; it does not see the warm-up of its heads."""
        return StepPosition(max(0, done - self.warm_up_heads), self.steps, self.steps_per_epoch)

    def lr(self, done: int) -> float:
        """The rate of the step after ``done`` steps, of a parameter group with the peak rate."""
        if self.warms_up(done):
            return self.heads_lr
        recipe, step = self.recipe, done - self.warm_up_heads
        if recipe.schedule == "constant":
            return self.peak_lr
        if recipe.schedule == "step":
            milestones = [epoch * self.steps_per_epoch for epoch in recipe.milestones]
            return schedules.step_decay(step, milestones, self.peak_lr)
        steps, every = self.steps, 1
        if recipe.by_epoch:
            every = self.steps_per_epoch
            step, steps = step // every, -(-steps // every)
        return schedules.warmup_cosine(
            step,
            steps,
            self.peak_lr,
            min(round(recipe.warmup_epochs * self.steps_per_epoch / every), steps),
            end=recipe.end_lr * self.peak_lr,
            through_peak=recipe.like in THROUGH_PEAK,
        )

    def weight_decay(self, done: int) -> float:
        """That of the parameters that have any."""
        recipe = self.recipe
        if recipe.end_weight_decay is None:
            return recipe.weight_decay
        step = self.position(done).step
        return schedules.weight_decay(
            step, self.steps, recipe.weight_decay, recipe.end_weight_decay
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
