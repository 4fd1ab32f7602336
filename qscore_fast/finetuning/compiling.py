"""torch.compile of a backbone in place, tried out before anything is trained."""

from __future__ import annotations

import warnings

import torch
from torch import nn


def compile_backbone(backbone: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """Compile a module in place and run it once, forward and backward; leave it eager where that fails.

    Weights, buffers and gradients are afterwards as they were.

    Args:
        backbone: on its device, in training mode.
        shape: (C, height, width) of an image.

    Returns:
        Why it runs eagerly, or None.
    """
    before = [buffer.clone() for buffer in backbone.buffers()]
    device = next(backbone.parameters()).device
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backbone.compile()
            backbone(torch.zeros(4, *shape, device=device)).sum().backward()
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        cause = getattr(error, "inner_exception", error)  # dynamo wraps what a backend raises
        backbone._compiled_call_impl = None
        return (str(cause).strip() or type(cause).__name__).split("\n")[0]
    finally:
        backbone.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in zip(backbone.buffers(), before, strict=True):
                buffer.copy_(value)
    return None
