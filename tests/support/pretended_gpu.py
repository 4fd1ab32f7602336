"""Tensors that say they are on a GPU and lie on the CPU, for machines that have none.

What PyTorch refuses on a GPU (operands on two devices, NumPy of a GPU's tensor) is refused here, and what
makes the host wait is counted. Speed, memory, streams and the kernels themselves are a GPU's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GPU = torch.device("cuda:0")
FREE, ALL = 100 << 30, 140 << 30

_aten = torch.ops.aten
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default)
_tolist = Tensor.tolist
_Generator = torch.Generator


class OnGPU(Tensor):
    """A tensor of the pretended GPU; ``inner`` holds its values."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device=GPU, strides=inner.stride(),
            storage_offset=inner.storage_offset(),
        )  # fmt: skip

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGPU({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{op} ran outside of pretended_gpu()")


class PretendedGPU(TorchDispatchMode):
    """Attributes: waits: how often the host waited for a value of the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors: list[Tensor] = []
        tree_map(lambda x: tensors.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
        there = [x for x in tensors if isinstance(x, OnGPU)]
        if op is _aten.copy_.default:
            self._copied(args[0], args[1])
            _values(args[0]).copy_(_values(args[1]))
            return args[0]
        if op is _aten._to_copy.default:
            return self._moved(args[0], kwargs)
        self._check(op, args, tensors, there)
        asked = kwargs.get("device")
        made_there = asked is not None and torch.device(asked).type == "cuda"
        if made_there:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        found = op(*tree_map(_values, args), **tree_map(_values, kwargs))
        if not made_there and (not there or asked is not None):
            return found
        known = {id(x.inner): x for x in there}  # in place, and out=
        return tree_map(
            lambda x: known.get(id(x)) if id(x) in known else OnGPU(x) if isinstance(x, Tensor) else x,
            found,
        )  # fmt: skip

    def _check(self, op: Any, args: Any, tensors: list[Tensor], there: list[OnGPU]) -> None:
        here = [x for x in tensors if not isinstance(x, OnGPU) and x.dim()]
        # The one thing that may be mixed: an index from the host into a tensor of the GPU.
        index = op in _INDEXING and isinstance(args[0], OnGPU)
        if there and here and not index:
            shapes = [tuple(x.shape) for x in here]
            raise RuntimeError(f"{op}: tensors on a GPU and, of shape {shapes}, on the CPU")
        booleans = op in _INDEXING and any(x.dtype == torch.bool for x in tensors[1:])
        if there and (booleans or "nonzero" in str(op) or op is _aten._local_scalar_dense.default):
            self.waits += 1

    def _moved(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        device = kwargs.pop("device", None)
        kwargs = {k: v for k, v in kwargs.items() if k not in ("non_blocking", "pin_memory")}
        found = _aten._to_copy.default(_values(source), **kwargs)
        goes = isinstance(source, OnGPU) if device is None else torch.device(device).type == "cuda"
        target = OnGPU(found) if goes else found
        self._copied(target, source)
        return target

    def _copied(self, target: Tensor, source: Tensor) -> None:
        self.waits += isinstance(source, OnGPU) and not isinstance(target, OnGPU)


class _Stream:
    """A stream, or an event, that is always done."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: _Stream()


class _GeneratorAnywhere(_Generator):
    def __new__(cls, device: Any = "cpu") -> Any:
        return _Generator.__new__(_Generator)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """PyTorch with one GPU, ``cuda:0``, that is none."""
    mode = PretendedGPU()

    def tolist(self: Tensor) -> Any:
        mode.waits += isinstance(self, OnGPU)
        return _tolist(_values(self))

    replaced: list[tuple[Any, str, Any]] = [
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "mem_get_info", lambda *_: (FREE, ALL)),
        (torch.cuda, "memory_reserved", lambda *_: 0),
        (torch.cuda, "memory_allocated", lambda *_: 0),
        (torch.cuda, "synchronize", lambda *_: None),
        (torch.cuda, "device", lambda _: nullcontext()),
        (torch.cuda, "stream", lambda _: nullcontext()),
        (torch.cuda, "current_stream", _Stream),
        (torch.cuda, "Stream", _Stream),
        (torch.cuda, "Event", _Stream),
        (torch, "Generator", _GeneratorAnywhere),
        (Tensor, "pin_memory", lambda self, *_: self),
        (Tensor, "record_stream", lambda *_: None),
        (Tensor, "tolist", tolist),
    ]
    torch._C._ensureCUDADeviceGuardSet()
    with ExitStack() as stack:
        for place, name, value in replaced:
            stack.enter_context(patch.object(place, name, value))
        yield stack.enter_context(mode)


def _values(x: Any) -> Any:
    return x.inner if isinstance(x, OnGPU) else x
