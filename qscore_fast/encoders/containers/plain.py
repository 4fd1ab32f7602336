"""Turns what an unpickler made into plain data, and bounds how deep and how large it is."""

from __future__ import annotations

from typing import Any

from qscore_fast.encoders.containers.allowlist import Global
from qscore_fast.encoders.containers.limits import MAX_DEPTH, MAX_ITEMS
from qscore_fast.encoders.containers.stub import Stub
from qscore_fast.encoders.containers.values import Array, CopyBudget, DType, Latin1, StridedTensor
from qscore_fast.errors import EncoderError


def to_plain(root: Any, budget: CopyBudget) -> tuple[Any, tuple[str, ...]]:
    """``root`` as dict, list, tuple, set, scalars, dense tensors and Stub, and the Stubs' names.

    Objects that were shared stay shared. A cycle is cut where it leads through a Stub (a
    configuration that knows its parent).

    Raises:
        EncoderError: it is nested too deeply, too large once shared objects are counted where they
            stand, or a collection holds itself.
    """
    walk = _Walk(budget)
    content, _ = walk.turn(root)
    return content, tuple(sorted(walk.names))


class _Walk:
    def __init__(self, budget: CopyBudget) -> None:
        self.names: set[str] = set()
        self._budget = budget
        self._done: dict[int, tuple[Any, int]] = {}
        self._path: list[Any] = []

    def turn(self, value: Any) -> tuple[Any, int]:
        """The plain value, and how many items it has when shared ones are counted each time."""
        if value is None or isinstance(value, str | bytes | bool | int | float | complex):
            return value, 1
        if id(value) in self._done:
            return self._done[id(value)]
        if isinstance(value, dict | list | tuple | set | frozenset | Stub):
            if any(value is open_value for open_value in self._path):
                return self._cut(value), 1
            if len(self._path) >= MAX_DEPTH:
                raise EncoderError(f"its content is nested more than {MAX_DEPTH} deep")
            self._path.append(value)
            result = self._collection(value)
            self._path.pop()
            if result[1] > MAX_ITEMS:
                raise EncoderError(f"its content has more than {MAX_ITEMS:,} items")
        else:
            result = self._leaf(value), 1
        self._done[id(value)] = result
        return result

    def _collection(self, value: Any) -> tuple[Any, int]:
        if isinstance(value, Stub):
            return self._stub(value)
        if isinstance(value, dict):
            values, items = self._all(list(value.values()))
            return dict(zip(map(self._key, value), values, strict=True)), items
        if isinstance(value, set | frozenset):
            return type(value)(map(self._key, value)), len(value) + 1
        values, items = self._all(value)
        return (tuple(values) if isinstance(value, tuple) else values), items

    def _all(self, values: list[Any] | tuple[Any, ...]) -> tuple[list[Any], int]:
        turned, total = [], 1
        for value in values:
            plain, items = self.turn(value)
            turned.append(plain)
            total += items
        return turned, total

    def _stub(self, value: Stub) -> tuple[Stub, int]:
        self.names.add(value.name)
        stub = Stub(value.name, fields=value.fields)
        args, items = self._all(value.args)
        stub.args = tuple(args)
        kwargs, more = self._all(list(value.kwargs.values()))
        stub.kwargs = dict(zip(map(str, value.kwargs), kwargs, strict=True))
        stub.state, state_items = self.turn(value.state)
        keys, key_items = self._all([self._key(key) for key, _ in value.items_])
        values, value_items = self._all([entry for _, entry in value.items_])
        stub.items_ = list(zip(keys, values, strict=True))
        stub.entries, entries = self._all(value.entries)
        return stub, items + more + state_items + key_items + value_items + entries

    def _key(self, key: Any) -> Any:
        """A key: a class that is one becomes its name, an object a Stub of its own."""
        if isinstance(key, Global):
            return key.name
        if isinstance(key, tuple):
            return tuple(map(self._key, key))
        return Stub(key.name) if isinstance(key, Stub) else key

    def _leaf(self, value: Any) -> Any:
        if isinstance(value, StridedTensor):
            return value.tensor()
        if isinstance(value, Global):
            self.names.add(value.name)
            return Stub(value.name)
        if isinstance(value, Latin1):
            self._budget.spend(len(value.text))
            return value.encoded()
        if isinstance(value, DType):
            return f"{value.order.strip('=')}{value.code}"
        if isinstance(value, Array):
            tensor = value.tensor(self._budget)
            if tensor is None:
                self.names.add("numpy.ndarray")
                return Stub("numpy.ndarray", (value.shape, value.dtype and value.dtype.code))
            return tensor
        raise EncoderError(f"its pickle holds a {type(value).__name__} that nothing refers to")

    def _cut(self, value: Any) -> Stub:
        start = next(i for i, open_value in enumerate(self._path) if open_value is value)
        for step in self._path[start:]:
            if isinstance(step, Stub):
                return Stub(step.name)
        raise EncoderError(f"a {type(value).__name__} in its content holds itself")
