"""Keeper: the callback that logs a training, watches it, and keeps its state."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning.checkpoint import (
    Checkpoint,
    CheckpointFolder,
    checked_processes,
    generators_state,
    of_all_processes,
    restore_buffers,
    set_generators,
)
from qscore_fast.finetuning.compiling import compile_backbone
from qscore_fast.finetuning.data.loader import ViewBatch
from qscore_fast.finetuning.data.requests import seed_of
from qscore_fast.finetuning.lightning_library import lightning
from qscore_fast.finetuning.module import FineTuningModule
from qscore_fast.finetuning.settings import Settings
from qscore_fast.finetuning.watching import Health, TrainingLog, TrainingStopped

Refresh = Callable[[FineTuningModule, int], DiscriminativeFeatures]
Progress = Callable[[int, int, dict[str, Any]], None]


class Keeper(lightning.Callback):
    """Logs, watches, saves; and puts a training back where its checkpoint left it.

    Args:
        settings: how often.
        folder: of the checkpoints.
        log: of process 0; None elsewhere.
        start: the checkpoint to go on from, or None.
        refresh: makes D anew from a training and a step; None keeps D.
        progress: called with the steps made, those of the whole training and the values of each logged step.
        compiled: (C, height, width) of the views of a backbone that is to be compiled; None runs it eagerly.
        note: called where compiling fails.
    """

    def __init__(
        self,
        settings: Settings,
        folder: CheckpointFolder,
        log: TrainingLog | None,
        start: Checkpoint | None = None,
        refresh: Refresh | None = None,
        progress: Progress | None = None,
        compiled: tuple[int, int, int] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.training_log = log
        self.start = start
        self.refresh = refresh
        self.progress = progress
        self.compiled = compiled
        self.note = note
        watch = start.watch if start else {}
        self.health = Health(settings.collapse_below, watch.get("first_std"))
        self.num_bad = 0
        self._position: dict[str, Any] = {}
        self._written = start.step if start else 0
        self._since = 0.0
        self._images = 0
        self._waited = 0.0
        self._waiting_from: float | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the state, or seed the generators of a new training."""
        world, rank = trainer.world_size, trainer.global_rank
        if self.compiled is not None:
            reason = compile_backbone(pl_module.objective.backbone, self.compiled)
            if reason is not None and self.note is not None:
                self.note(f"torch.compile failed, running eagerly instead ({reason})")
        if self.start is None:
            seed = seed_of(self.settings.seed, rank)
            torch.manual_seed(seed)
        else:
            own = checked_processes(self.start, world)[rank]
            trainer.optimizers[0].load_state_dict(self.start.optimiser)
            self.num_bad = int(own["num_bad"])
            restore_buffers(pl_module.objective, own["buffers"])
            set_generators(own["rng"])
        self._since = self._waiting_from = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the waiting, and make D anew at the beginning of an epoch that is due."""
        if self._waiting_from is not None:
            self._waited += time.perf_counter() - self._waiting_from
        module: FineTuningModule = pl_module
        position = module.plan.position(module.done)
        every = self.settings.refresh_features * module.plan.steps_per_epoch
        due = every and position.step and position.step % every == 0
        first_part = batch_idx % module.plan.accumulate == 0
        if self.refresh and due and first_part and not module.plan.warms_up(module.done):
            features = self.refresh(module, position.step)
            loss = module.regulariser.loss
            assert isinstance(loss.features, Tensor)
            loss.features.copy_(features.mask)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimiser step: a line of the log, a look at its health, a checkpoint."""
        module: FineTuningModule = pl_module
        self._waiting_from = time.perf_counter()
        if isinstance(batch, ViewBatch):
            self._position = batch.position
            self._images += len(batch.views[0]) * trainer.world_size
            for sample_id, reason in batch.bad:
                self.num_bad += 1
                if self.training_log is not None:
                    self.training_log.bad(sample_id, reason)
        if (batch_idx + 1) % module.plan.accumulate:
            return
        done, settings = module.done, self.settings
        last = done == module.plan.all_steps
        saves = last or done % settings.save_every == 0
        monitors = last or done % settings.monitor_every == 0 or self.health.first_std is None
        if not (saves or monitors or done % settings.log_every == 0):
            return
        record = module.last
        assert record is not None
        measured = self.health.measures(record.h) if monitors else {}
        finite = bool(module.finite) and (not saves or _parameters_finite(module))
        losses = torch.stack([record.loss, record.ssl]).tolist()
        everyone = _of_everyone((self.health.reason(finite, measured), self.num_bad, losses))
        # A reason of any process is one for all; otherwise the others would wait for it for ever.
        reasons = [found for found, *_ in everyone if found]
        values = self._values(module, everyone)
        values.update({k: v for k, v in measured.items() if k != "collapsed"})
        if self.training_log is not None:
            self.training_log.write(done, {k: _plain(v) for k, v in values.items()})
        if self.progress is not None:
            self.progress(done, module.plan.all_steps, values)
        if reasons:
            kept = f"the last good checkpoint is that of step {self._written}"
            raise TrainingStopped(
                f"stopped at step {done}: {reasons[0]}; "
                + (kept if self._written else "no checkpoint had been written yet")
            )
        if saves:
            self._save(trainer, module)
        self._waiting_from = time.perf_counter()

    def _values(self, module: FineTuningModule, everyone: list[_Said]) -> dict[str, Any]:
        record, plan = module.last, module.plan
        assert record is not None
        before = module.done - 1
        position = plan.position(before)
        lambda1, lambda2 = module.regulariser.lambdas.at(position.step, plan.steps)
        terms = module.regulariser.terms(record.h, position.step, plan.steps)
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rate, waiting = self._images / seconds, self._waited / seconds
        self._since, self._images, self._waited = now, 0, 0.0
        return {
            "epoch": position.epoch,
            "phase": "heads" if plan.warms_up(before) else "all",
            "loss": statistics.fmean(losses[0] for _, _, losses in everyone),
            "ssl": statistics.fmean(losses[1] for _, _, losses in everyone),
            **{name: float(value) for name, value in terms.items()},
            **{f"objective_{name}": float(value) for name, value in record.terms.items()},
            "lr": plan.lr(before),
            "lambda1": lambda1,
            "lambda2": lambda2,
            "bad_images": sum(count for _, count, _ in everyone),
            "images_per_second": rate,
            "waiting_share": min(1.0, waiting),
        }

    def _save(self, trainer: Any, module: FineTuningModule) -> None:
        own = {
            "position": self._position,
            "rng": generators_state(),
            "num_bad": self.num_bad,
        }
        processes = of_all_processes(own, module.objective)
        if trainer.global_rank == 0:
            if self.training_log is not None:
                self.training_log.sync()
            self.folder.write(
                Checkpoint(
                    step=module.done,
                    objective=_state(module.objective),
                    regulariser=_state(module.regulariser),
                    optimiser=trainer.optimizers[0].state_dict(),
                    processes=processes,
                    watch={"first_std": self.health.first_std},
                )
            )
        self._written = module.done


def _state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in module.state_dict().items()}


def _parameters_finite(module: FineTuningModule) -> bool:
    """Whether what a checkpoint would keep is finite: a loss may be, and its gradient not."""
    norms = torch._foreach_norm([p.detach() for p in module.objective.parameters()])
    return bool(torch.isfinite(torch.stack([norm.float() for norm in norms])).all())


_Said = tuple[str | None, int, list[float]]
"""Why to stop, if there is a reason; bad images; the whole loss and the objective's."""


def _of_everyone(own: _Said) -> list[_Said]:
    """The same of every process, in their order."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [own]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
