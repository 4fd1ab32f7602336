"""What an encoder's checkpoint brings to an objective, and what has to be made."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.networks import timm_state
from qscore_fast.encoders.training_state import Head, Tower, TrainingState
from qscore_fast.encoders.weights import checked_state
from qscore_fast.errors import EncoderError
from qscore_fast.finetuning.objectives.heads import widths_of
from qscore_fast.finetuning.objectives.moving_average import frozen_copy

_TOWERS: tuple[Tower, Tower] = ("online", "ema")


class Parts:
    """The parts of one objective, from the checkpoint where it has them.

    A tower that the checkpoint lacks is a copy of the other one, as at the start of the official
    training.

    Attributes:
        num_features: r.
        fresh: what was made, in the order of making: "online.projector", "queue" and so on.
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.precision != "float32":
            raise EncoderError(
                f"{encoder.name} runs as {encoder.precision}, which cannot be trained: give the encoder "
                "as it was loaded"
            )
        self._encoder = encoder
        self._state = encoder.training_state or TrainingState({})
        self.num_features = encoder.num_features
        self.fresh: list[str] = []

    def backbone(self) -> nn.Module:
        """A copy of the online backbone that trains."""
        return self._backbone("online").requires_grad_(True)

    def ema_backbone(self) -> nn.Module:
        """A copy of the other tower's backbone that the optimiser leaves alone."""
        return self._backbone("ema").requires_grad_(False)

    def head(self, name: Head, make: Callable[[], nn.Module], inputs: int) -> nn.Module:
        """The online head of the checkpoint, or ``make()``.

        Args:
            name: "projector", "predictor" or "prototypes".
            make: a fresh one.
            inputs: the length of what it will be given.

        Raises:
            EncoderError: the checkpoint's takes vectors of another length.
        """
        tower = next((t for t in _TOWERS if self._state.part(f"{t}.{name}")), None)
        if tower is None:
            self.fresh.append(f"online.{name}")
            return make()
        head = _exact(self._state.head(name, tower))
        if widths_of(head)[0] != inputs:
            raise EncoderError(
                f"the checkpoint's {name} takes vectors of {widths_of(head)[0]} numbers, but is given "
                f"{inputs}: it does not belong to this encoder"
            )
        return head

    def ema_head(self, name: Head, online: nn.Module) -> nn.Module:
        """The other tower's head: the checkpoint's, or a copy of the online one."""
        if not self._state.part(f"ema.{name}"):
            return frozen_copy(online)
        return _exact(self._state.head(name, "ema")).requires_grad_(False)

    def tensor(self, name: str, needs: Head) -> Tensor | None:
        """A float32 copy of "queue" or "center", or the "queue_ptr".

        None if the checkpoint lacks it or lacks the head ``needs``, without which it means nothing.
        """
        value = self._state.tensors.get(name)
        if value is None or f"online.{needs}" in self.fresh:
            return None
        return (value.float() if value.is_floating_point() else value).clone()

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of another part, such as "loss_norm"; empty if the checkpoint lacks it."""
        return self._state.part(name)

    def _backbone(self, tower: Tower) -> nn.Module:
        module = copy.deepcopy(self._encoder.module).float().train()
        if tower == (self._encoder.tower or "online"):
            return module
        state = timm_state(self._state.part(f"{tower}.backbone"))
        if state:
            module.load_state_dict(checked_state(state, module))
        return module


def _exact(head: nn.Module) -> nn.Module:
    """Batch norms that the checkpoint gives neither weight nor bias have none."""
    for name, norm in list(head.named_modules()):
        if isinstance(norm, nn.BatchNorm1d) and not any(p.requires_grad for p in norm.parameters()):
            bare = nn.BatchNorm1d(norm.num_features, eps=norm.eps, affine=False)
            bare.load_state_dict(
                {k: v for k, v in norm.state_dict().items() if "running" in k or "num" in k}
            )
            head.set_submodule(name, bare)
    return head
