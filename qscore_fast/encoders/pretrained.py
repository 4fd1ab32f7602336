"""Weights that come from elsewhere, or from a fixed random seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from qscore_fast.errors import EncoderError

RANDOM_SEED = 0


@contextmanager
def random_weights(fixed: bool) -> Iterator[None]:
    """Seed PyTorch's CPU generator inside the block, and restore it, if ``fixed``.

    The same random weights each time, so that a run with them can be continued.
    """
    if not fixed:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield


def unavailable(name: str, error: Exception, pretrained: bool) -> EncoderError:
    """The error for a model that could not be made."""
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    if not pretrained:
        return EncoderError(f"cannot make {name}: {reason}")
    return EncoderError(
        f"cannot get the pretrained weights of {name}: {reason} - check the network, or take random "
        "weights with pretrained=False (--no-pretrained)"
    )
