"""Settings: what a fine-tuning is asked for, checked before anything is trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.recipes import OptimiserName, Preset

Regulariser = Literal["qscore", "lasso", "none"]
LambdaSchedule = Literal["constant", "warmup", "warmup_anneal"]
PrecisionName = Literal["float32", "bf16"]

ABOUT_THE_MACHINE = ("workers", "log_every", "monitor_every", "save_every", "keep", "tensorboard")
"""Settings on which no number of the training depends: they may change when it is resumed."""


@dataclass(frozen=True)
class Settings:
    """All of a fine-tuning but encoder, images and features. None takes the preset's value.

    Attributes:
        preset: "paper": rate 1e-5, 50 epochs, LARS, warm-up and cosine; "official": the system's own code.
        regulariser: "qscore"; "lasso": the L1 norm of h, weighted with ``lambda1``; "none", the control.
        lambda1, lambda2: weights of the two terms, 0 or more.
        lambda_schedule: "constant"; "warmup": from 0 over the first tenth of the steps; "warmup_anneal":
            that, and back to 0 along half a cosine over the last half.
        reduction: of the second term and of lasso: "sum", as published, or "mean" over the rows.
        epochs, steps: how long; ``steps`` (of the optimiser) wins.
        batch_size: images of one optimiser step, over all processes and accumulated batches.
        lr: the peak rate, as it is: no scaling by the batch.
        warmup_epochs: of the rate; None: the preset's, or a tenth of a shorter training.
        weight_decay, optimiser: of the optimiser.
        precision: "float32", or "bf16" autocast with weights in float32.
        accumulate: batches that are summed up before a step. alpha, beta, and whatever an objective takes
            from its batch, are then those of a part.
        refresh_features: discover D anew every so many epochs; 0 keeps it.
        warm_up_heads: steps in which fresh heads are trained with the backbone frozen and no regulariser,
            before all others. None: one epoch if heads are fresh, otherwise 0.
        only_from_checkpoint: refuse a checkpoint without the heads that its system needs, in place of
            starting them at random.
        image_size: side of the full-size views, pixels; None: as the encoder was trained.
        crop_scale: factor on the area of the crops, for small images.
        views_on_device: jitter, blur and the like on the training's device, after cropping in the workers;
            None: on a GPU.
        objective: settings of the objective by name, such as temperature; see ``objective_settings``.
        seed: of fresh heads, the order of the images and their augmentation.
        compile, channels_last: how the backbone is run; torch.compile falls back with a note.
        sync_batch_norm: batch statistics over all processes.
        workers: decoding processes of each training process; None: one a core, at most 16.
        shuffle_images: of shards, which are read in order: images that are shuffled among each other.
        log_every, monitor_every, save_every: steps between lines of the log, between RankMe and the
            check for collapse, and between checkpoints.
        keep: how many checkpoints beside the last one.
        collapse_below: stop when the normalised standard deviation of h falls below this share of what it
            was at first; 0 never.
        tensorboard: whether to write its event files.
    """

    preset: Preset = "paper"
    regulariser: Regulariser = "qscore"
    lambda1: float = 1e-4
    lambda2: float = 1e-4
    lambda_schedule: LambdaSchedule = "constant"
    reduction: Literal["sum", "mean"] = "sum"
    eps: float | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    warmup_epochs: float | None = None
    weight_decay: float | None = None
    optimiser: OptimiserName | None = None
    precision: PrecisionName = "float32"
    accumulate: int = 1
    refresh_features: int = 0
    warm_up_heads: int | None = None
    only_from_checkpoint: bool = False
    image_size: int | None = None
    crop_scale: float = 1.0
    views_on_device: bool | None = None
    objective: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    compile: bool = False
    channels_last: bool = False
    sync_batch_norm: bool = True
    workers: int | None = None
    shuffle_images: int = 2048
    log_every: int = 10
    monitor_every: int = 100
    save_every: int = 500
    keep: int = 2
    collapse_below: float = 0.1
    tensorboard: bool = True

    def __post_init__(self) -> None:
        _choice("preset", self.preset, ("paper", "official"))
        _choice("regulariser", self.regulariser, ("qscore", "lasso", "none"))
        _choice("lambda_schedule", self.lambda_schedule, ("constant", "warmup", "warmup_anneal"))
        _choice("reduction", self.reduction, ("sum", "mean"))
        _choice("precision", self.precision, ("float32", "bf16"))
        _choice("optimiser", self.optimiser, (None, "lars", "sgd", "adamw"))
        for name in ("lambda1", "lambda2", "weight_decay", "warmup_epochs", "collapse_below"):
            _number(name, getattr(self, name), 0.0)
        for name in ("lr", "crop_scale"):
            _number(name, getattr(self, name), 0.0, above=True)
        for name in ("epochs", "steps", "accumulate", "log_every", "monitor_every", "save_every"):
            _whole(name, getattr(self, name), 1)
        for name in ("refresh_features", "warm_up_heads", "workers", "keep", "seed"):
            _whole(name, getattr(self, name), 0)
        _whole("image_size", self.image_size, 8)
        _whole("shuffle_images", self.shuffle_images, 2)
        _whole("batch_size", self.batch_size, 1)
        if self.batch_size == 1:
            raise SettingsError(
                "batch_size is 1 (--batch-size): batch norm, alpha and beta need the statistics of several "
                "images; give 2 or more"
            )

    def asked(self) -> dict[str, Any]:
        """Everything that the numbers depend on, as plain values."""
        return {k: v for k, v in asdict(self).items() if k not in ABOUT_THE_MACHINE}


def _choice(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        words = ", ".join(str(one) for one in known if one is not None)
        raise SettingsError(f"{name} is {value!r}: choose one of {words}")


def _number(name: str, value: float | None, least: float, above: bool = False) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < least or (above and value == least):
        kind = f"above {least:g}" if above else f"{least:g} or more"
        raise SettingsError(
            f"{name} is {value} (--{name.replace('_', '-')}): give a number, {kind}"
        )


def _whole(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or value < least or value != int(value)):
        raise SettingsError(
            f"{name} is {value} (--{name.replace('_', '-')}): give a whole number, {least} or more"
        )
