"""``finetune``: an encoder trained further with its own objective and a regulariser."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qscore_fast.allocator import freed_memory_kept
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning import record
from qscore_fast.finetuning.checkpoint import CheckpointFolder, checked_processes
from qscore_fast.finetuning.data.loader import ViewLoader
from qscore_fast.finetuning.fine_tune_run import CHECKPOINTS, FineTuneRun, trained_encoder
from qscore_fast.finetuning.keeper import Keeper, Progress
from qscore_fast.finetuning.module import FineTuningModule
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.planning import count_images, make_plan
from qscore_fast.finetuning.processes import Processes, trainer
from qscore_fast.finetuning.regulariser import Lambdas, RepresentationRegulariser
from qscore_fast.finetuning.settings import Settings
from qscore_fast.finetuning.starting import Start, starting
from qscore_fast.finetuning.watching import TrainingLog, draw_curves
from qscore_fast.images import Source, open_source
from qscore_fast.scoring import score
from qscore_fast.scoring.finalise import load_features

AUTO = "auto"

Features = DiscriminativeFeatures | str | os.PathLike[str] | None
Note = Callable[[str], None]


def finetune(
    encoder: Encoder | nn.Module | str | os.PathLike[str],
    source: Source | str | os.PathLike[str],
    features: Features,
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    system: str | None = None,
    device: str | None = None,
    devices: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    note: Note | None = None,
) -> FineTuneRun:
    """Train an encoder further, or go on where a call with the same settings was stopped.

    Everything that is asked for is checked before anything is trained. The training can be stopped at any
    moment, also by a power cut: at most ``settings.save_every`` steps are done again, and on a CPU the
    losses that follow are the same to the bit.

    Args:
        encoder: a checkpoint of a self-supervised system, or an encoder of ``load_encoder``. Heads, other
            tower, queue and centre are taken from it where it holds them.
        source: images, or what ``open_source`` takes. Labels are not used.
        features: D: an object, a features.npz or the folder of a run with this encoder; "auto": from a
            scoring pass over ``source``, kept in ``out``. May be None where nothing needs D: the
            regularisers "none" and "lasso".
        out: the folder of the training; made if missing.
        settings: of the training; the paper's by default.
        system: of the encoder, where it does not tell.
        device: "cpu" or "cuda"; by default a GPU if there is one.
        devices: processes on this machine, each with a GPU of its own. Under torchrun its number counts.
        overwrite: delete a training that is in ``out`` instead of going on with it.
        progress: called with steps made, all steps, and the values of every logged step.
        note: called with what a user should know, one sentence each.

    Returns:
        The finished training.

    Raises:
        TrainingStopped: NaN or collapse; the last good checkpoint is kept.
        QScoreError: or one of its kinds, for anything that the caller can mend.
    """
    settings = settings or Settings()
    say = note or (lambda _: None)
    folder, processes = Path(out), Processes.of(device, devices)
    start = _loaded(encoder, system)
    images = source if not isinstance(source, str | os.PathLike) else open_source(source)
    begun = starting(start, system, settings)
    if overwrite and processes.is_first:
        record.clear(folder)
    plan = make_plan(settings, begun, count_images(images, settings, folder, say))
    loader = _loader(images, begun, settings, plan, processes)
    chosen = _features(features, start, images, folder, settings, processes, say)
    asked = record.describe(settings, plan, start, begun.system, images, chosen)
    about = {"encoder_name": start.name, "source": images.location}
    record.agree(folder, asked, about, write=processes.is_first)
    checkpoints = CheckpointFolder(folder / CHECKPOINTS, settings.keep)
    checkpoint = checkpoints.latest()
    regulariser = RepresentationRegulariser(
        settings.regulariser,
        chosen,
        Lambdas(settings.lambda1, settings.lambda2, settings.lambda_schedule),
        settings.reduction,
        settings.eps,
        "world",
    )
    module = FineTuningModule(
        begun.objective,
        regulariser,
        plan,
        transform=begun.transform,
        channels_last=settings.channels_last,
    )
    position = None
    if checkpoint is not None:
        state = checked_processes(checkpoint, processes.world)[processes.rank]
        position = state["position"]
        begun.objective.load_state_dict(checkpoint.objective)
        regulariser.load_state_dict(checkpoint.regulariser)
        module.done = checkpoint.step
        if checkpoint.step < plan.all_steps:
            say(f"going on after step {checkpoint.step:,} of {plan.all_steps:,}")
    for line in begun.notes(plan):
        say(line)
    if module.done < plan.all_steps:
        log = None
        if processes.is_first:
            log = TrainingLog(folder, module.done, tensorboard=settings.tensorboard)
        refresh = None
        if settings.refresh_features:
            refresh = _Refresh(images, start, folder, processes, chosen)
        side = begun.transform.sides[0]
        shape = (begun.transform.channels, side, side) if settings.compile else None
        keeper = Keeper(settings, checkpoints, log, checkpoint, refresh, progress, shape, say)
        left = (plan.all_steps - module.done) * plan.accumulate
        try:
            with freed_memory_kept(), _quiet_lightning(), _keyboard_interrupts():
                trainer(settings, processes, plan.all_steps - module.done, [keeper], say).fit(
                    module, loader.after(position, left)
                )
        finally:
            if log is not None:
                log.close()
                draw_curves(folder)
    return FineTuneRun(folder, start, begun.objective)


def _loaded(encoder: Any, system: str | None) -> Encoder:
    if isinstance(encoder, Encoder):
        if system is not None and encoder.system not in (None, system):
            raise SettingsError(
                f"{encoder.name} was trained with {encoder.system}, not with {system}: leave system "
                "(--system) out"
            )
        return encoder
    return load_encoder(encoder, system, device="cpu")


def _loader(
    images: Source, begun: Start, settings: Settings, plan: Plan, processes: Processes
) -> ViewLoader:
    return ViewLoader(
        images,
        begun.transform,
        begun.mode,
        begun.batch_size,
        parts=plan.accumulate,
        seed=settings.seed,
        rank=processes.rank,
        world=processes.world,
        workers=settings.workers,
        shuffle_images=settings.shuffle_images,
        cropped=processes.kind == "cuda"
        if settings.views_on_device is None
        else settings.views_on_device,
    )


def _features(
    features: Features,
    encoder: Encoder,
    images: Source,
    folder: Path,
    settings: Settings,
    processes: Processes,
    say: Note,
) -> DiscriminativeFeatures | None:
    if features is None:
        if settings.regulariser == "qscore":
            raise SettingsError(
                "the regulariser needs the discriminative features D: give features (--features): a "
                "features.npz, the folder of a run with this encoder, or auto"
            )
        return None
    if not isinstance(features, str) or features != AUTO:
        return load_features(features, encoder.fingerprint, encoder.num_features)
    return discovered(encoder, images, folder, processes.device, say)


def discovered(
    encoder: Encoder, images: Source, folder: Path, device: str, say: Note
) -> DiscriminativeFeatures:
    """D of an encoder by a scoring pass over the images, which is kept in ``folder`` as a run."""
    say("features: scoring the images with the encoder as it is")
    # The encoder stays where it is.
    scoring = replace(encoder, module=copy.deepcopy(encoder.module))
    run = score(images, scoring, folder / "features", device=device)
    return load_features(run.features, encoder.fingerprint, encoder.num_features)


class _Refresh:
    """D of the encoder as it is in the middle of a training; all processes share the work."""

    def __init__(
        self,
        images: Source,
        encoder: Encoder,
        folder: Path,
        processes: Processes,
        features: DiscriminativeFeatures | None,
    ) -> None:
        self.images, self.encoder, self.folder = images, encoder, folder
        self.processes, self.features = processes, features

    def __call__(self, module: FineTuningModule, step: int) -> DiscriminativeFeatures:
        if self.features is None:
            raise QScoreError("there is no D to make anew: give features (--features)")
        if self.processes.world > 1:
            for buffer in module.objective.backbone.buffers():
                torch.distributed.broadcast(buffer, 0)
        current = trained_encoder(self.encoder, module.objective, tower="online")
        run = score(
            self.images,
            current,
            self.folder / "features" / f"step-{step:09d}",
            device=self.processes.device,
            eps=self.features.eps,
            lower=self.features.lower,
            upper=self.features.upper,
            two_sided=self.features.two_sided or None,
            activation_eps=min(2.0, self.features.eps),
        )
        return run.features


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without what Lightning says to people who built their own Trainer."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _keyboard_interrupts() -> Iterator[None]:
    """Ctrl-C leaves as KeyboardInterrupt, where Lightning would end the process."""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from end
        raise
