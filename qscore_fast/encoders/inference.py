"""Running a frozen module fast: lower precision, memory order, compilation, folded batch norm."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from qscore_fast.encoders.batch_norm_folding import fold_batch_norm as fold
from qscore_fast.errors import EncoderError, SettingsError

Precision = Literal["float32", "bfloat16", "float16", "bfloat16-autocast", "float16-autocast"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def fast_module(
    module: nn.Module,
    images: Tensor,
    precision: Precision,
    *,
    channels_last: bool,
    compile: bool,
    fold_batch_norm: bool,
    name: str,
) -> tuple[nn.Module, list[str], list[str]]:
    """What ``Encoder.optimised`` puts in place of its module; tried out on ``images``.

    Args:
        module: stays as it is; the result shares its weights only where they do not change.
        images: two images (2, C, height, width) on the module's device.
        name: what errors and warnings call the module.

    Returns:
        The module, the parts of the encoder's ``precision``, and notes.
    """
    if precision not in PRECISIONS:
        raise SettingsError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    parts: list[str] = [precision]
    notes: list[str] = []
    if channels_last and not any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
        channels_last = False
        notes.append("channels-last has no effect: there is no convolution")
    dtype = None if precision == "float32" else getattr(torch, precision.removesuffix("-autocast"))
    autocast = precision.endswith("-autocast")
    if fold_batch_norm or channels_last or (dtype is not None and not autocast):
        module = _copied(module, name)
        if fold_batch_norm:
            count, reason = fold(module)
            parts += ["folded"] if count else []
            notes += [reason] if reason else []
        if channels_last:
            module.to(memory_format=torch.channels_last)
            parts.append("channels-last")
        if dtype is not None and not autocast:
            module.to(dtype)

    if dtype is None and not channels_last:
        fast = module
    else:
        fast = _Converted(module, dtype, autocast, channels_last)
        _try_out(fast, images, precision, name)
    if compile:
        compiled = CompiledModule(fast, name)
        with torch.inference_mode():
            compiled(images)
        if compiled.failure is None:
            fast = compiled
            parts.append("compiled")
        else:
            notes.append(compiled.failure)
    return fast, parts, notes


class CompiledModule(nn.Module):
    """``torch.compile`` of a module, once for all batch sizes, with the module itself to fall back on.

    Where compilation fails and the module does not, one RuntimeWarning says so and the module runs
    eagerly from then on.

    Attributes:
        module: the module.
        failure: why it runs eagerly, or None.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name
        self.failure: str | None = None
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Compiled code stays behind: another process compiles anew."""
        return {**self.__dict__, "_compiled": None}

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, height, width) to what the module returns."""
        if self.failure is not None:
            return self.module(images)
        # Compiled code is tied to the kind of tensor, so it always gets a plain copy; and as a batch
        # of 1 would be compiled for itself, such an image goes in twice.
        batch = torch.cat([images, images]) if len(images) == 1 else images.clone()
        torch._dynamo.maybe_mark_dynamic(batch, 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._compiled is None:
                    self._compiled = torch.compile(self.module)
                return self._compiled(batch)[: len(images)]
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:
            h = self.module(images)  # what is the module's own fault is raised here, as it is
            cause = getattr(error, "inner_exception", error)  # dynamo wraps what a backend raises
            reason = (str(cause).strip() or type(cause).__name__).split("\n")[0]
            self.failure = f"torch.compile failed, running eagerly instead ({reason})"
            self._compiled = None
        warnings.warn(f"{self.name}: {self.failure}", RuntimeWarning, stacklevel=2)
        return h


class _Converted(nn.Module):
    """Runs a module at a precision and in a memory order; returns float32."""

    def __init__(
        self, module: nn.Module, dtype: torch.dtype | None, autocast: bool, channels_last: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype
        self.autocast = autocast
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, height, width), float32, to features in float32."""
        dtype = images.dtype if self.autocast or self.dtype is None else self.dtype
        images = images.to(dtype=dtype, memory_format=self.memory_format)
        with torch.autocast(images.device.type, self.dtype) if self.autocast else nullcontext():
            h = self.module(images)
        return h.float() if isinstance(h, Tensor) else h


def bare_network(module: nn.Module) -> nn.Module:
    """The network itself, from what ``fast_module`` made of it."""
    while isinstance(module, CompiledModule | _Converted):
        module = module.module
    return module


def _copied(module: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(module).eval()
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise EncoderError(
            f"{name} cannot be copied, and its weights would have to change: {reason}"
        ) from error


def _try_out(module: nn.Module, images: Tensor, precision: str, name: str) -> None:
    """Run it once, so that an operation that the device lacks shows at once, and clearly."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.inference_mode(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module(images)
        for warning in caught:
            # PyTorch switches autocast off where the device lacks the dtype, and only warns.
            if "autocast" in str(warning.message).lower():
                raise EncoderError(str(warning.message).strip().split("\n")[0])
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise EncoderError(
            f"{name} cannot run in {precision} on {images.device}: {reason}; take another precision"
        ) from error
    finally:
        for layer in training:
            layer.training = True
