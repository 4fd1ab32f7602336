"""Settings, recipe and the number of images to a Plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qscore_fast.errors import SourceError
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.recipes import REFERENCE_BATCH
from qscore_fast.finetuning.settings import Settings
from qscore_fast.finetuning.starting import Start
from qscore_fast.images import Source
from qscore_fast.scoring.atomic import made_folder, write_text

COUNT = "num_images.json"


def count_images(
    source: Source, settings: Settings, folder: Path, say: Callable[[str], None]
) -> int | None:
    """How many images an epoch has; None if only reading everything tells and ``steps`` makes that needless.

    Where it is needed the source is read once, without decoding, and the number kept in the folder.
    """
    if source.num_samples is not None:
        return source.num_samples
    if settings.steps is not None and settings.epochs is None and not settings.refresh_features:
        return None
    path = folder / COUNT
    if path.exists():
        known = json.loads(path.read_text())
        if known["manifest_hash"] == source.manifest_hash:
            return int(known["num_images"])
    say("counting the images, since the source does not tell (steps, --steps, would do without)")
    count = sum(1 for unit in source.units(1024) for _ in source.read(unit))
    made_folder(folder)
    content = {"manifest_hash": source.manifest_hash, "num_images": count}
    write_text(path, json.dumps(content) + "\n")
    return count


def make_plan(settings: Settings, start: Start, num_images: int | None) -> Plan:
    """The plan of a training.

    Args:
        num_images: of an epoch; None takes ``steps`` and the preset's epochs for the length of one.

    Raises:
        SourceError: too few images for one batch.
    """
    base = start.recipe
    recipe = replace(
        base,
        optimiser=settings.optimiser or base.optimiser,
        epochs=settings.epochs or base.epochs,
        batch_size=start.batch_size,
        weight_decay=base.weight_decay if settings.weight_decay is None else settings.weight_decay,
    )
    if num_images is None:
        assert settings.steps is not None
        per_epoch = max(1, settings.steps // recipe.epochs)
    else:
        per_epoch = num_images // start.batch_size
        if per_epoch < 1:
            raise SourceError(
                f"{num_images} images are too few for one batch of {start.batch_size}: give more images, or "
                "a smaller batch (--batch-size)"
            )
    steps = settings.steps or recipe.epochs * per_epoch
    warmup = settings.warmup_epochs
    if warmup is None:
        # A training that is shorter than the recipe's is no warm-up for the most part.
        warmup = min(base.warmup_epochs, steps / per_epoch / 10)
    heads = settings.warm_up_heads
    if heads is None:
        heads = per_epoch if start.fresh_heads and not start.untrained else 0
    heads_lr = recipe.heads_lr * start.batch_size / REFERENCE_BATCH
    return Plan(
        replace(recipe, warmup_epochs=warmup),
        settings.lr or base.peak_lr(start.batch_size),
        steps,
        per_epoch,
        heads,
        heads_lr,
        settings.accumulate,
    )
