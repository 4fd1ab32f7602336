"""The kernels under test: those of every backend, the native ones for each instruction set."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from coverage_pause import coverage_paused

try:
    from qscore_fast.kernels import cpu as native

    TARGETS = tuple(native.targets())
except ImportError:  # a source tree on a GPU machine; elsewhere test_backends fails
    TARGETS = ()
BACKENDS = ("triton", *(f"native-{target}" for target in TARGETS))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this processor, in use for a test."""
    before = native.current_target()
    native.use_target(request.param)
    yield request.param
    native.use_target(before)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put the kernels of one backend into the test module's ``kernels``."""
    name, _, target = request.param.partition("-")
    module = importlib.import_module(f"qscore_fast.kernels.{'cpu' if name == 'native' else name}")
    monkeypatch.setattr(request.module, "kernels", module)
    if name == "triton":
        with coverage_paused():
            yield name
        return
    before = module.current_target()
    module.use_target(target)
    yield name
    module.use_target(before)


@pytest.fixture
def device(backend: str) -> torch.device:
    on_gpu = backend == "triton" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")
