"""Tensors and arrays as a pickle describes them, checked before any memory is taken for them."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qscore_fast.encoders.containers.limits import MAX_DIMENSIONS
from qscore_fast.errors import EncoderError

_NUMBER_CODE = re.compile(r"([<>=|]?)(f[248]|[iu][1248]|b1|\?|c8|c16)")


def brief(value: object) -> str:
    """``value`` for a message; bounded before it is spelt out, for it may be nested or vast."""
    return reprlib.repr(value)[:120]


class CopyBudget:
    """How many bytes may still be copied: what a file asks to be copied over and over is refused."""

    def __init__(self, size: int) -> None:
        self._left = size

    def spend(self, size: int) -> None:
        """Raises EncoderError when the file asks for more than it holds."""
        self._left -= size
        if self._left < 0:
            raise EncoderError("it unpacks to far more than the file holds")


@dataclass(eq=False)
class Storage:
    """A run of ``numel`` numbers of one type; ``read`` gives them as a flat tensor, once."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], Tensor] = field(repr=False)
    _tensor: Tensor | None = field(default=None, repr=False)

    def tensor(self) -> Tensor:
        if self._tensor is None:
            self._tensor = self.read()
        return self._tensor


@dataclass(eq=False)
class StridedTensor:
    """A view of a storage, known to lie within it and to repeat none of its numbers' memory."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def checked(
        cls, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> StridedTensor:
        """Raises EncoderError unless the view is dense and within the storage."""
        if not isinstance(storage, Storage):
            raise EncoderError("it holds a tensor without a storage")
        dtype = dtype or storage.dtype
        length = storage.numel * storage.dtype.itemsize // dtype.itemsize
        size, stride = _whole_numbers(size, "size"), _whole_numbers(stride, "stride")
        (offset,) = _whole_numbers((offset,), "offset")
        if len(size) != len(stride):
            raise EncoderError(f"it holds a tensor of size {size} with stride {stride}")
        numel = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if numel > length or (numel and last >= length):
            raise EncoderError(
                f"it holds a tensor of size {size}, stride {stride} and offset {offset} "
                f"in a storage of only {length} numbers"
            )
        return cls(storage, offset, size, stride, dtype)

    def tensor(self) -> Tensor:
        flat = self.storage.tensor()
        if flat.dtype != self.dtype:
            flat = flat.view(self.dtype)
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.dtype)
        return flat.as_strided(self.size, self.stride, flat.storage_offset() + self.offset)


@dataclass(eq=False)
class Latin1:
    """Bytes that a pickle of protocol 2 spells as text; encoded only where they are wanted."""

    text: str = field(repr=False)

    def encoded(self) -> bytes:
        return self.text.encode("latin-1")


@dataclass(eq=False)
class DType:
    """A NumPy type as pickled: its code ("f4", or "bfloat16"), and its byte order."""

    code: str
    order: str = "="
    plain: bool = True

    def number_type(self) -> np.dtype | None:
        """The NumPy type of numbers that it names (bfloat16 as uint16), or None."""
        if self.code == "bfloat16":
            return np.dtype(np.uint16)
        match = _NUMBER_CODE.fullmatch(self.code)
        if not match or not self.plain:
            return None
        kind = np.dtype(match[2])
        return kind.newbyteorder(">") if (match[1] or self.order) == ">" else kind


@dataclass(eq=False)
class Array:
    """A NumPy array under construction, until its state is known."""

    shape: tuple[int, ...] = ()
    dtype: DType | None = None
    fortran: bool = False
    data: Any = field(default=None, repr=False)

    def set_state(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
        self.shape, self.fortran, self.data = _whole_numbers(shape, "shape"), bool(fortran), data
        if not isinstance(dtype, DType):
            raise EncoderError("it holds an array without a type")
        self.dtype = dtype

    def tensor(self, budget: CopyBudget) -> Tensor | None:
        """A tensor of its own memory, or None when the array does not hold numbers."""
        kind = self.dtype.number_type() if self.dtype else None
        if kind is None or isinstance(self.data, list):
            return None
        size = math.prod(self.shape) * kind.itemsize
        budget.spend(size)
        raw = _raw(self.data, size)
        if raw is None:
            raise EncoderError(f"an array of shape {self.shape} has not the data for it")
        numbers = np.frombuffer(bytearray(raw), kind).astype(kind.newbyteorder("="), copy=False)
        numbers = numbers.reshape(self.shape, order="F" if self.fortran else "C")
        tensor = torch.from_numpy(np.ascontiguousarray(numbers).reshape(self.shape))
        return (
            tensor.view(torch.bfloat16) if self.dtype and self.dtype.code == "bfloat16" else tensor
        )


def _raw(data: Any, size: int) -> bytes | None:
    """``data`` as exactly ``size`` bytes; text is what Python 2 pickled as a byte string."""
    if isinstance(data, Latin1):
        if len(data.text) != size:
            return None
        return data.encoded()
    if isinstance(data, str):
        encoding = "latin-1" if len(data) == size else "utf-8"
        data = data.encode(encoding, "replace")
    return data if isinstance(data, bytes) and len(data) == size else None


def _whole_numbers(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMENSIONS:
        raise EncoderError(f"it holds a tensor whose {what} is {brief(values)}")
    if not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise EncoderError(f"it holds a tensor whose {what} is {brief(values)}")
    return tuple(values)
