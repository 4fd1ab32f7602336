"""FineTuningModule: an objective and the regulariser as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.data.loader import ViewBatch
from qscore_fast.finetuning.lightning_library import lightning
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.optimisers import build_optimiser, set_step
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.regulariser import RepresentationRegulariser
from qscore_fast.finetuning.views import ViewTransform


@dataclass
class StepRecord:
    """What an optimiser step saw; tensors stay where they are until somebody asks.

    Attributes:
        loss, ssl: the whole loss and the objective's, means over the parts of the step.
        h: (V N, r), of the last part, detached.
        terms: the objective's own.
    """

    loss: Tensor
    ssl: Tensor
    h: Tensor
    terms: dict[str, Tensor]


class FineTuningModule(lightning.LightningModule):
    """Trains with ``objective(views).loss + regulariser(h)``, under any Trainer.

    A batch is a ``ViewBatch`` or a sequence of views, each (N, C, height, width). Gradient accumulation is
    the Trainer's, and must be ``plan.accumulate``. Its state dict, with the optimiser's, is the whole state.

    Args:
        objective: its trained parameters are those with ``requires_grad``.
        regulariser: of h.
        plan: steps and rates.
        transform: finishes views that come as crops.
        channels_last: memory order of the views.

    Attributes:
        done: optimiser steps that were made, those of the heads alone included.
        finite: (), bool: whether all losses so far were finite.
        last: the record of the last step.
    """

    finite: Tensor

    def __init__(
        self,
        objective: Objective,
        regulariser: RepresentationRegulariser,
        plan: Plan,
        *,
        transform: ViewTransform | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.regulariser = regulariser
        self.plan = plan
        self.transform = transform
        self.channels_last = channels_last
        self.done = 0
        self.last: StepRecord | None = None
        self._part = 0
        self._sums: list[Tensor] = []
        self._norms: list[tuple[nn.Module, float | None]] = []
        self.register_buffer("finite", torch.ones((), dtype=torch.bool), persistent=False)
        if channels_last:
            objective.to(memory_format=torch.channels_last)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The batch on the device."""
        if isinstance(batch, ViewBatch):
            return batch.to(device)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Views that came as crops are finished here, where autocast does not reach."""
        if isinstance(batch, ViewBatch) and batch.draws is not None:
            assert self.transform is not None
            return batch.finished(self.transform)
        return batch

    def training_step(self, batch: ViewBatch | Sequence[Tensor], batch_idx: int = 0) -> Tensor:
        """The loss of a batch, ()."""
        views = batch.views if isinstance(batch, ViewBatch) else list(batch)
        if self.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        position = self.plan.position(self.done)
        if self._part == 0:
            self._sums = []
            self.objective.before_step(position)
        warms_up = self.plan.warms_up(self.done)
        self._hold_statistics(warms_up)
        output = self.objective(views)
        h = output.representations
        extra = None if warms_up else self.regulariser(h, position.step, self.plan.steps)
        loss: Tensor = output.loss if extra is None else output.loss + extra
        self._sums.append(torch.stack([loss.detach().float(), output.loss.detach().float()]))
        self.finite = self.finite & torch.isfinite(self._sums[-1]).all()
        self._part = (self._part + 1) % self.plan.accumulate
        if self._part == 0:
            both = torch.stack(self._sums).mean(0)
            self.last = StepRecord(both[0], both[1], h.detach(), dict(output.terms))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimiser; its rates are set before every step."""
        return build_optimiser(self.objective, self.plan)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients that are dropped: a frozen backbone's, and those that the objective drops."""
        if self.plan.warms_up(self.done):
            for parameter in self.objective.backbone.parameters():
                parameter.grad = None
        self.objective.before_update(self.plan.position(self.done))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """A step at the rate of the schedule, and what the objective does after it."""
        set_step(optimizer, self.plan, self.done)
        optimizer.step(closure=optimizer_closure)
        self.objective.after_step(self.plan.position(self.done))
        self.done += 1
        if self.done == self.plan.warm_up_heads:
            # The momentum of the heads' own rate would go on at the other one.
            getattr(optimizer, "optimizer", optimizer).state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of Lightning: the step goes along."""
        checkpoint["qscore_fast_step"] = self.done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of Lightning: the step comes back."""
        self.done = int(checkpoint["qscore_fast_step"])

    def on_fit_start(self) -> None:
        """Refuse a Trainer that accumulates otherwise than the plan."""
        found = self.trainer.accumulate_grad_batches
        if found != self.plan.accumulate:
            raise SettingsError(
                f"the Trainer accumulates {found} batches and the plan {self.plan.accumulate}: give both "
                "the same number"
            )

    def _hold_statistics(self, hold: bool) -> None:
        """Keep the running statistics of a frozen backbone as they are, or let them go again."""
        if hold == bool(self._norms):
            return
        if hold:
            for layer in self.objective.backbone.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    self._norms.append((layer, layer.momentum))
                    layer.momentum = 0.0
            return
        for layer, momentum in self._norms:
            layer.momentum = momentum  # type: ignore[assignment]
        self._norms = []
