"""Which implementation runs: native C++ on the CPU, Triton on CUDA and ROCm, plain PyTorch elsewhere.

The choice follows the device of the tensor. ``use_backend`` or the environment variable
``QSCORE_FAST_BACKEND`` asks for one by name; what was asked for by name is used or refused, never
replaced.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

ENVIRONMENT_VARIABLE = "QSCORE_FAST_BACKEND"
BACKENDS = ("auto", "native", "triton", "reference")

_native: ModuleType | None = None
_native_missing = ""
try:
    _native = importlib.import_module("qscore_fast.kernels.cpu")
except ImportError as error:
    _native_missing = f"the native module is not built ({error}); reinstall with a C++ compiler"


def _checked(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(
            f"{source} names the backend {name!r}; choose one of {', '.join(BACKENDS)}"
        )
    return name


_requested = _checked(os.environ.get(ENVIRONMENT_VARIABLE, "auto"), ENVIRONMENT_VARIABLE)


@contextmanager
def _restored(previous: str) -> Iterator[None]:
    global _requested
    try:
        yield
    finally:
        _requested = previous


def use_backend(name: str) -> Any:
    """Use one backend by name for the whole process: ``"auto"``, ``"native"``, ``"triton"``, ``"reference"``.

    Takes effect at once; as a context manager it is undone at the end of the block. A tensor on a device
    that the backend cannot serve raises RuntimeError when the function is called. Raises ValueError for an
    unknown name.
    """
    global _requested
    previous = _requested
    _requested = _checked(name, "use_backend")
    return _restored(previous)


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def runs_reference(device_type: str) -> bool:
    """Whether the plain PyTorch equations serve this device, so that no custom op is called."""
    if _requested == "auto":
        return device_type not in ("cpu", "cuda", "meta") or (
            device_type == "cpu" and _native is None
        )
    return _requested == "reference"


def native_kernels() -> ModuleType | None:
    """The native kernels, for work that has no tensor; None where they are not built or not wanted."""
    return _native if _requested in ("auto", "native") else None


def kernels_for(device_type: str) -> ModuleType:
    """The module of kernels for tensors on ``device_type`` ("cpu" or "cuda").

    Raises RuntimeError where the backend that was asked for, or the device needs, cannot run.
    """
    name = _requested
    if name == "auto":
        name = "triton" if device_type == "cuda" else "native"
    if name == "native":
        if device_type != "cpu":
            raise RuntimeError(
                f"backend 'native' computes on the CPU; this tensor is on {device_type}"
            )
        if _native is None:
            raise RuntimeError(f"backend 'native' cannot run: {_native_missing}")
        return _native
    if name == "triton" and (device_type == "cuda" or _interpreting()):
        try:
            from qscore_fast.kernels import triton
        except ImportError as error:
            raise RuntimeError(
                f"backend 'triton' cannot run: {error}; install triton, or choose 'reference' with "
                f"qscore_fast.use_backend or {ENVIRONMENT_VARIABLE}"
            ) from error
        return triton
    raise RuntimeError(
        f"backend {name!r} has no kernels for a tensor on {device_type}; move the tensor to a GPU, "
        "or set TRITON_INTERPRET=1 before the first call to interpret the Triton kernels"
    )


@dataclass(frozen=True)
class BackendInfo:
    """What runs where, and why. ``str()`` gives one line a device."""

    requested: str  # "auto" or the name that was asked for
    cpu: str  # "native (avx2)", "reference", "triton (interpreted)", "none"
    cpu_reason: str
    cuda: str
    cuda_reason: str
    threads: int
    torch: str
    triton: str | None

    def __str__(self) -> str:
        return "\n".join(
            (
                f"CPU:   {self.cpu}, {self.threads} threads ({self.cpu_reason})",
                f"CUDA:  {self.cuda} ({self.cuda_reason})",
                f"torch {self.torch}, triton {self.triton or 'not installed'}",
            )
        )


def _describe(device_type: str, why: str) -> tuple[str, str]:
    if runs_reference(device_type):
        return "reference", why if _requested != "auto" else _native_missing
    try:
        module = kernels_for(device_type)
    except RuntimeError as error:
        return "none", str(error)
    if module is _native:
        return f"native ({_native.current_target()})", why
    return "triton (interpreted)" if _interpreting() else "triton", why


def backend_info() -> BackendInfo:
    """Say which backend is in use on the CPU and on CUDA devices, and why."""
    why = "chosen by device" if _requested == "auto" else f"{_requested!r} was asked for"
    cpu, cpu_reason = _describe("cpu", why)
    if torch.cuda.is_available():
        cuda, cuda_reason = _describe("cuda", why)
    else:
        cuda, cuda_reason = "none", "torch sees no CUDA or ROCm device"
    version = None
    if importlib.util.find_spec("triton"):
        import triton

        version = triton.__version__
    return BackendInfo(
        requested=_requested,
        cpu=cpu,
        cpu_reason=cpu_reason,
        cuda=cuda,
        cuda_reason=cuda_reason,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        triton=version,
    )


def backend_on(device_type: str) -> str:
    """The kernels that serve a device, as ``backend_info`` names them: "reference" but on CPU and CUDA."""
    info = backend_info()
    return {"cpu": info.cpu, "cuda": info.cuda}.get(device_type, "reference")
