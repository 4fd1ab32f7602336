"""What a checkpoint holds beside the encoder in use: heads, the other tower, queue and centre."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.errors import EncoderError

Tower = Literal["online", "ema"]
Head = Literal["projector", "predictor", "prototypes", "classifier"]


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The tensors of a self-supervised checkpoint under names that do not depend on where it came from.

    ``tensors`` maps

    - ``{tower}.backbone.*``: torchvision's names (ResNet) or timm's (ViT, XCiT);
    - ``{tower}.{head}.linear1.weight``, ``.norm1.running_mean``, ``.linear2.weight`` and so on, layers
      counted from 1, norm k after linear k, for the heads projector and predictor;
    - ``{tower}.prototypes.weight``, or ``weight_g`` and ``weight_v`` where it is weight-normalised;
    - ``{tower}.classifier.weight`` and ``.bias``: a linear classifier that was trained along;
    - ``loss_norm.*``: the batch norm without weights between Barlow Twins' projector and its loss;
    - ``queue`` (views, K, d), keys as rows; ``queue_ptr`` (1,); ``center`` (K,)

    to tensors on the CPU (views of the file where that is possible), where tower is "online" (the one
    that gradients train) or "ema" (its moving average: MoCo's key encoder, BYOL's target, DINO's
    teacher).

    Attributes:
        tensors: as above; what the file does not hold is missing.
        activation: "relu" or "gelu", between the layers of the heads.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    activation: Literal["relu", "gelu"] = "relu"

    @property
    def parts(self) -> tuple[str, ...]:
        """What is there: "online.projector", "ema.backbone", "queue" and the like, sorted."""
        names = (name.split(".") for name in self.tensors)
        return tuple(
            sorted({".".join(n[:2]) if n[0] in ("online", "ema") else n[0] for n in names})
        )

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, by their names within it. Empty if the file does not hold it."""
        return {
            key[len(name) + 1 :]: value
            for key, value in self.tensors.items()
            if key.startswith(f"{name}.")
        }

    def head(self, name: Head, tower: Tower = "online") -> nn.Module:
        """A head as a float32 module with the checkpoint's weights, in training mode, to fine-tune.

        Projector and predictor map (B, d_in) to (B, d_out) by linear layers, batch norms and
        activations, without the normalisation that the loss applies. Prototypes map (B, d), which
        they L2-normalise, to (B, K) logits.

        Raises:
            EncoderError: the checkpoint does not hold it.
        """
        state = self.part(f"{tower}.{name}")
        if not state:
            there = ", ".join(self.parts) or "nothing"
            raise EncoderError(f"the checkpoint has no {tower}.{name}; beside the encoder: {there}")
        if name == "prototypes":
            return Prototypes(state)
        if name == "classifier":
            return _linear(state)
        return mlp(state, nn.GELU if self.activation == "gelu" else nn.ReLU)


class Prototypes(nn.Module):
    """SwAV's prototypes or DINO's last layer: cosine (or weight-normalised) logits of (B, d) inputs.

    Attributes:
        weight_v: (K, d) directions; ``weight_g``: (K, 1) lengths, or None where the weight is used as it
            is; ``bias``: (K,) or None.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        weight = state["weight_v"] if "weight_v" in state else state["weight"]
        self.weight_v = nn.Parameter(weight.float().clone())
        self.weight_g = _parameter(state.get("weight_g"))
        self.bias = _parameter(state.get("bias"))

    @property
    def weight(self) -> Tensor:
        """The weight (K, d) that is applied."""
        if self.weight_g is None:
            return self.weight_v
        return self.weight_g * F.normalize(self.weight_v, dim=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, d), of any length, to logits (B, K)."""
        return F.linear(F.normalize(z, dim=-1), self.weight, self.bias)


def mlp(state: Mapping[str, Tensor], activation: type[nn.Module]) -> nn.Sequential:
    """``linear1, norm1, activation, linear2, ...`` from a head's tensors, modules of the same names."""
    layers: dict[str, nn.Module] = {}
    count = max(int(name.split(".")[0][len("linear") :]) for name in state if "linear" in name)
    for index in range(1, count + 1):
        layers[f"linear{index}"] = _linear(_within(state, f"linear{index}."))
        norm = _within(state, f"norm{index}.")
        if norm:
            layers[f"norm{index}"] = batch_norm(norm)
        if index < count:
            layers[f"activation{index}"] = activation()
    return nn.Sequential(OrderedDict(layers))


def batch_norm(state: Mapping[str, Tensor]) -> nn.BatchNorm1d:
    """A batch norm with these tensors; a missing weight or bias stays 1 or 0 and is not trained."""
    norm = nn.BatchNorm1d(state["running_mean"].numel())
    with torch.no_grad():
        for name, own in [*norm.named_parameters(), *norm.named_buffers()]:
            if name in state:
                own.copy_(_of_shape(state[name], own.shape, name))
            elif name in ("weight", "bias"):
                own.requires_grad_(False)
    return norm


def _linear(state: Mapping[str, Tensor]) -> nn.Linear:
    weight = state.get("weight")
    if weight is None or weight.ndim != 2 or not state.keys() <= {"weight", "bias"}:
        raise EncoderError(f"not a linear layer: it has {', '.join(state) or 'nothing'}")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in state, device="meta")
    own = {
        name: _of_shape(state[name], value.shape, name).float().clone()
        for name, value in layer.state_dict().items()
    }
    layer.load_state_dict(own, assign=True)
    return layer.requires_grad_()


def _of_shape(tensor: Tensor, shape: torch.Size, name: str) -> Tensor:
    if tensor.shape != shape:
        raise EncoderError(f"the head's {name} is {tuple(tensor.shape)}, not {tuple(shape)}")
    return tensor


def _parameter(value: Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value.float().clone())


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
