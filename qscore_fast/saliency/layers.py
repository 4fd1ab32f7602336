"""The layers of a network while it runs: their activations, by name. No hook outlives its block."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.inference import CompiledModule, bare_network


def hookable(encoder: Encoder) -> Encoder:
    """The encoder without compilation: compiled code calls no hook."""
    module = encoder.module
    return replace(encoder, module=module.module) if isinstance(module, CompiledModule) else encoder


@contextmanager
def recorded_outputs(encoder: Encoder) -> Iterator[dict[str, Tensor]]:
    """Every layer's output of its last call, in the order of those calls, but the representation's own."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensor = first_tensor(output)
            found.pop(name, None)
            if tensor is not None:
                found[name] = tensor

        return hook

    with ExitStack() as stack:
        for name, layer in bare_network(encoder.module).named_modules():
            if name:
                stack.callback(layer.register_forward_hook(keep(name)).remove)
        yield found


@contextmanager
def kept_output(encoder: Encoder, layer: str) -> Iterator[list[Tensor]]:
    """The output of one layer, that of its last call, as the only element once the encoder ran."""
    kept: list[Tensor] = []

    def hook(module: nn.Module, arguments: Any, output: Any) -> None:
        tensor = first_tensor(output)
        kept[:] = [] if tensor is None else [tensor]

    handle = bare_network(encoder.module).get_submodule(layer).register_forward_hook(hook)
    try:
        yield kept
    finally:
        handle.remove()


@contextmanager
def output_as_leaf(encoder: Encoder, layer: str) -> Iterator[list[Tensor]]:
    """The output of one layer made a leaf of the graph, from where on gradients are recorded, not before."""
    leaves: list[Tensor] = []

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return output
        torch.set_grad_enabled(True)
        leaf = tensor.detach().requires_grad_()
        leaves[:] = [leaf]
        # A copy, since what follows may work in place, which a leaf forbids.
        return _replaced(output, leaf.clone())

    handle = bare_network(encoder.module).get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.no_grad():
            yield leaves
    finally:
        handle.remove()


def first_tensor(output: Any) -> Tensor | None:
    """The output itself, or the first tensor of a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, tuple | list):
        return next((value for value in output if isinstance(value, Tensor)), None)
    return None


def _replaced(output: Any, tensor: Tensor) -> Any:
    """``output`` with its first tensor replaced."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, dict):
        name = next(name for name, value in output.items() if isinstance(value, Tensor))
        return {**output, name: tensor}
    place = next(i for i, value in enumerate(output) if isinstance(value, Tensor))
    values = [*output[:place], tensor, *output[place + 1 :]]
    return type(output)(*values) if hasattr(output, "_fields") else type(output)(values)


class LayerCache:
    """What was found out about a network for images of one size, while the network lives."""

    def __init__(self) -> None:
        self._found: weakref.WeakKeyDictionary[nn.Module, dict[Any, Any]] = (
            weakref.WeakKeyDictionary()
        )

    def of(self, encoder: Encoder) -> dict[Any, Any]:
        """The entries of this encoder's module."""
        return self._found.setdefault(encoder.module, {})
