"""What stands for an object of a class that is not loaded."""

from __future__ import annotations

from typing import Any


class Stub:
    """An inert record of a pickled object; nothing of its class was imported or run.

    Attributes:
        name: the class or function, dotted, as the file spells it: "argparse.Namespace".
        args: positional arguments; () for a class or function that is only referred to.
        kwargs: keyword arguments.
        fields: names for ``args``, where the file says them (named tuples); otherwise ().
        state: what the object's ``__setstate__`` or ``__dict__`` would have got, or None.
        items_: (key, value) pairs that a mapping would have got.
        entries: values that a list would have got.
    """

    __slots__ = ("args", "entries", "fields", "items_", "kwargs", "name", "state")

    def __init__(
        self,
        name: str,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        fields: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.args = args
        self.kwargs = kwargs or {}
        self.fields = fields
        self.state: Any = None
        self.items_: list[tuple[Any, Any]] = []
        self.entries: list[Any] = []

    def __repr__(self) -> str:
        return f"Stub({self.name})"
