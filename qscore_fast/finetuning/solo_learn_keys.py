"""solo-learn's keys, for what came from it and fits no official layout: its stems, its heads' biases."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.errors import EncoderError
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.official_keys import Content, numbered, tensors

_METHODS = {
    "simclr": "simclr", "swav": "swav", "moco_v2": "mocov2plus", "moco_v3": "mocov3", "byol": "byol",
    "dino": "dino", "simsiam": "simsiam", "vicreg": "vicreg", "barlow_twins": "barlow_twins",
}  # fmt: skip


def solo_learn(objective: Objective, encoder: Encoder) -> Content:
    """vturrisi/solo-learn, solo/methods: a Lightning checkpoint's state and the name of the method.

    Its files have a linear classifier that is trained along with labels; it is written as it was read.

    Raises:
        EncoderError: the encoder did not come from such a file.
    """
    classifier = encoder.training_state.part("online.classifier") if encoder.training_state else {}
    if encoder.source != "solo-learn" or not classifier or objective.system not in _METHODS:
        raise EncoderError(f"{encoder.name} is none of solo-learn's checkpoints")
    of: Any = objective
    state: dict[str, Tensor] = {
        **tensors(of.backbone, "backbone."),
        **{f"classifier.{name}": value.clone() for name, value in classifier.items()},
    }
    if objective.system == "dino":
        state |= _dino_head(of.projector, of.prototypes, "head.")
        state |= _dino_head(of.ema_projector, of.ema_prototypes, "momentum_head.")
        state |= tensors(of.ema_backbone, "momentum_backbone.")
        state["dino_loss_func.center"] = of.center.detach().cpu()[None].clone()
    else:
        state |= numbered(of.projector, "projector.")
        if hasattr(of, "predictor"):
            state |= numbered(of.predictor, "predictor.")
        if hasattr(of, "ema_backbone"):
            state |= tensors(of.ema_backbone, "momentum_backbone.")
            state |= numbered(of.ema_projector, "momentum_projector.")
    if objective.system == "moco_v2":
        # One queue a view, keys as columns; the views' keys are the same kind of thing.
        columns = of.queue.detach().cpu().T
        state["queue"] = columns.repeat(2, 1, 1)
        state["queue_ptr"] = of.queue_ptr.detach().cpu().clone()
    if objective.system == "swav":
        state["prototypes.weight"] = of.prototypes.weight.detach().cpu().clone()
        if of.queue is not None:
            state["queue"] = of.queue.detach().cpu().clone()
    return {"state_dict": state, "hyper_parameters": {"method": _METHODS[objective.system]}}


def _dino_head(projector: nn.Module, prototypes: nn.Module, prefix: str) -> dict[str, Tensor]:
    last = {f"{prefix}last_layer.{name}": value for name, value in tensors(prototypes).items()}
    return {**numbered(projector, f"{prefix}mlp."), **last}
