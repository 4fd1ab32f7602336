"""QScoreCallback: the regulariser added to somebody else's LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning.lightning_library import lightning
from qscore_fast.finetuning.regulariser import Lambdas, RepresentationRegulariser
from qscore_fast.finetuning.settings import LambdaSchedule


class QScoreCallback(lightning.Callback):
    """``Trainer(callbacks=[QScoreCallback("backbone", features)])``; the module itself stays as it is.

    A forward hook on the named submodule gathers what it returns while ``training_step`` runs, and the
    regulariser of it all is added to the loss that ``training_step`` returns, a tensor or a mapping with
    "loss". Only outputs with a gradient count, so the calls of a moving average or of validation do not.
    ``training_step`` is replaced on the instance from the start of fitting to its end.

    Args:
        backbone: name of the submodule whose outputs are the representations h before the projector, such as
            "backbone" or "model.encoder"; (N, r) or (N, r, 1, 1), one call or several a step.
        features: D. None for all features.
        lambda1, lambda2, lambda_schedule: see ``Settings``; a schedule needs a Trainer that knows its
            steps.
        reduction, eps: as ``q_score_loss``.
        most_calls: with multi-crop, how many calls of a step count, the first ones; None for all. Where one
            call takes the full-size views together, 1 leaves out the small crops.

    It logs ``qscore/loss`` and ``qscore/mean_q`` through the module. alpha and beta are those of all
    processes. Gradient accumulation divides the regulariser as it divides the loss.

    Raises:
        SettingsError: when fitting starts, for a name that is none, a module that optimises by hand; in the
            first step, for a submodule that was not called with a gradient or returns no rows of r.
    """

    def __init__(
        self,
        backbone: str,
        features: DiscriminativeFeatures | Tensor | None,
        lambda1: float = 1e-4,
        lambda2: float = 1e-4,
        *,
        lambda_schedule: LambdaSchedule = "constant",
        reduction: str = "sum",
        eps: float | None = None,
        most_calls: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("lambda1", lambda1), ("lambda2", lambda2)):
            if not value >= 0:
                raise SettingsError(f"{name} is {value}: give a number, 0 or more")
        self.backbone = backbone
        self.most_calls = most_calls
        self.regulariser = RepresentationRegulariser(
            "qscore", features, Lambdas(lambda1, lambda2, lambda_schedule), reduction, eps, "world"
        )
        self._gathered: list[Tensor] | None = None
        self._handle: Any = None
        self._module: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Hook the submodule and stand in front of ``training_step``."""
        try:
            backbone: nn.Module = pl_module.get_submodule(self.backbone)
        except AttributeError:
            there = ", ".join(name for name, _ in pl_module.named_children()) or "nothing"
            raise SettingsError(
                f"{type(pl_module).__name__} has no submodule {self.backbone!r}; it has {there}"
            ) from None
        if not pl_module.automatic_optimization:
            raise SettingsError(
                f"{type(pl_module).__name__} optimises by hand (automatic_optimization is False): add "
                "QScoreLoss to its loss yourself"
            )
        self.regulariser.to(pl_module.device)
        self._handle = backbone.register_forward_hook(self._gather)
        self._module = pl_module
        pl_module.training_step = self._wrapped(trainer, pl_module, pl_module.training_step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the module as it was."""
        self._leave()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The same after a failure."""
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """D of the moment goes into the Trainer's checkpoints."""
        return {"features": self.regulariser.loss.features}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """And comes back."""
        self.regulariser.loss.features = state_dict["features"]

    def _leave(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if self._module is not None:
            self._module.__dict__.pop("training_step", None)
            self._module = None

    def _gather(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._gathered is None or not isinstance(output, Tensor) or not output.requires_grad:
            return
        if self.most_calls is None or len(self._gathered) < self.most_calls:
            self._gathered.append(output.flatten(1) if output.ndim == 4 else output)

    def _wrapped(
        self, trainer: Any, module: Any, training_step: Callable[..., Any]
    ) -> Callable[..., Any]:
        def regularised(*args: Any, **kwargs: Any) -> Any:
            self._gathered = []
            try:
                output = training_step(*args, **kwargs)
                gathered = self._gathered
            finally:
                self._gathered = None
            if output is None:  # the module skips this batch
                return None
            h = self._checked(gathered)
            step = trainer.global_step
            extra = self.regulariser(h, step, self._steps(trainer))
            if extra is None:
                return output
            terms = self.regulariser.terms(h, step, self._steps(trainer))
            module.log("qscore/loss", extra.detach(), batch_size=len(h))
            module.log("qscore/mean_q", terms["mean_q"], batch_size=len(h))
            if isinstance(output, Mapping):
                return {**output, "loss": output["loss"] + extra}
            return output + extra

        return regularised

    def _steps(self, trainer: Any) -> int:
        if self.regulariser.lambdas.schedule == "constant":
            return 1
        steps = trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise SettingsError(
                "the lambdas have a schedule and the Trainer has no end: give it max_steps or max_epochs"
            )
        return int(steps)

    def _checked(self, gathered: list[Tensor]) -> Tensor:
        if not gathered:
            raise SettingsError(
                f"{self.backbone} was not called with a gradient in training_step: name the trained "
                "backbone, and do not freeze it"
            )
        shapes = {tuple(h.shape[1:]) for h in gathered}
        if len(shapes) != 1 or gathered[0].ndim != 2:
            raise SettingsError(
                f"{self.backbone} returns tensors of shape {tuple(gathered[0].shape)}: name a submodule "
                "that returns one representation an image, (N, r)"
            )
        h = torch.cat(gathered)
        features = self.regulariser.loss.features
        if features is not None and features.numel() != h.shape[1]:
            raise SettingsError(
                f"features are of {features.numel()} features and {self.backbone} returns {h.shape[1]}: they "
                "belong to different encoders"
            )
        return h
