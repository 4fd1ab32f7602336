"""Reads a pickle into plain data without importing, calling or allocating what the file asks for.

The opcodes are those of ``pickletools`` (protocols 0 to 5). Where Python's unpickler would look a
global up, this one asks the allow-list; where it would call one, a builder or a Stub answers.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from qscore_fast.encoders.containers.allowlist import Global, find_global
from qscore_fast.encoders.containers.builders import BUILT, build, hashable
from qscore_fast.encoders.containers.limits import (
    MAX_INT_BYTES,
    MAX_LINE_BYTES,
    MAX_OPCODES,
    MAX_TUPLE_KEYS,
)
from qscore_fast.encoders.containers.stub import Stub
from qscore_fast.encoders.containers.values import Array, CopyBudget, DType
from qscore_fast.errors import EncoderError

PersistentLoad = Callable[[Any], Any]
_CHUNK = 2**16
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error)


class Unpickler:
    """One run over a buffer that may hold several pickles, one after another."""

    def __init__(
        self,
        data: memoryview,
        budget: CopyBudget,
        persistent_load: PersistentLoad | None = None,
    ) -> None:
        self.position = 0
        self._data = data
        self._budget = budget
        self._persistent_load = persistent_load
        self._opcodes_left = MAX_OPCODES
        self._tuple_keys_left = MAX_TUPLE_KEYS
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle's object, which may hold Global, Array and StridedTensor objects.

        Raises:
            EncoderError: the pickle is damaged, too large, or names what is not allowed.
        """
        self._stack, self._marked, self._memo = [], [], {}
        try:
            while True:
                opcode = self._take(1)
                self._opcodes_left -= 1
                if self._opcodes_left < 0:
                    raise EncoderError(f"its pickle has more than {MAX_OPCODES:,} steps")
                if opcode == b".":
                    return self._stack.pop()
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise EncoderError(f"its pickle has the opcode {opcode!r}, which is not read")
                action(self)
        except EncoderError:
            raise
        except _DAMAGE as error:
            reason = f"{type(error).__name__}: {error}"
            raise EncoderError(f"its pickle is damaged ({reason:.120})") from error

    # Bytes.

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > len(self._data):
            raise EncoderError("its pickle ends too early: the file is truncated or damaged")
        raw = bytes(self._data[self.position : end])
        self.position = end
        return raw

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self, limit: int = MAX_LINE_BYTES) -> bytes:
        start = self.position
        for chunk in range(start, min(start + limit, len(self._data)), _CHUNK):
            found = bytes(self._data[chunk : chunk + _CHUNK]).find(b"\n")
            if found >= 0 and chunk + found - start <= limit:
                line = self._take(chunk + found - start)
                self.position += 1
                return line
        raise EncoderError("its pickle holds a line without an end")

    # The stack.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        values = self._stack
        self._stack = self._marked.pop()
        return values

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def pop_to_mark(self) -> None:
        self._pop_mark()

    def duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: int | None = None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    # Scalars.

    def integer_line(self) -> None:
        line = self._line().rstrip(b"L")
        if line in (b"00", b"01"):
            self.push(line == b"01")
        else:
            self._push_integer(int(line) if len(line) <= 2 * MAX_INT_BYTES else None)

    def long(self, layout: str) -> None:
        size = self._number(layout)
        small = 0 <= size <= MAX_INT_BYTES
        self._push_integer(
            int.from_bytes(self._take(size), "little", signed=True) if small else None
        )

    def _push_integer(self, value: int | None) -> None:
        if value is None:
            raise EncoderError(f"its pickle holds an integer of more than {MAX_INT_BYTES} bytes")
        self.push(value)

    def text(self, layout: str) -> None:
        self.push(self._take(self._number(layout)).decode("utf-8", "surrogatepass"))

    def byte_string(self, raw: bytes) -> None:
        """A string of Python 2: text where it is UTF-8, bytes otherwise."""
        try:
            self.push(raw.decode("utf-8"))
        except UnicodeDecodeError:
            self.push(raw)

    def string_line(self) -> None:
        line = self._line(len(self._data)).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
            raise EncoderError("its pickle is damaged (a string without quotes)")
        self.byte_string(codecs.escape_decode(line[1:-1])[0])

    # Collections.

    def tuple_from_mark(self) -> None:
        values = tuple(self._pop_mark())
        self.push(values)

    def tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Stub):
            target.entries.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise EncoderError(f"its pickle appends to a {type(target).__name__}")

    def set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if len(values) % 2:
            raise EncoderError("its pickle is damaged (a key without a value)")
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Stub):
            target.items_.extend(pairs)
        elif isinstance(target, dict):
            target.update((self._key(key), value) for key, value in pairs)
        else:
            raise EncoderError(f"its pickle sets items of a {type(target).__name__}")

    def add_items(self) -> None:
        values = self._pop_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise EncoderError(f"its pickle adds elements to a {type(target).__name__}")
        target.update(self._key(value) for value in values)

    def _key(self, key: Any) -> Any:
        if isinstance(key, tuple):
            self._tuple_keys_left -= 1
            if self._tuple_keys_left < 0:
                raise EncoderError(f"its pickle has more than {MAX_TUPLE_KEYS:,} tuples for keys")
        return hashable(key)

    def dict_from_mark(self) -> None:
        values = self._pop_mark()
        self.push({})
        self.set_items(values)

    # Names and objects.

    def global_line(self) -> Global:
        module, name = self._line().decode(), self._line().decode()
        return find_global(module, name, BUILT)

    def stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self.push(find_global(module, name, BUILT))

    def persistent(self, identifier: Any) -> None:
        if self._persistent_load is None:
            raise EncoderError("its pickle refers to data outside itself")
        self.push(self._persistent_load(identifier))

    def reduce(self, kwargs: dict[str, Any] | None = None) -> None:
        args, function = self._pop(), self._pop()
        self._call(function, args, kwargs)

    def _call(self, function: Any, args: Any, kwargs: Any = None) -> None:
        if type(args) is not tuple or not isinstance(kwargs or {}, dict):
            raise EncoderError("its pickle is damaged (a call without arguments)")
        if not isinstance(function, Global):
            raise EncoderError("its pickle calls an object; refused, nothing was executed")
        if function.kind == "value" or (kwargs and function.kind == "built"):
            raise EncoderError(f"its pickle calls {function.name}; refused, nothing was executed")
        if function.kind == "built":
            self.push(build(function, args, self._budget))
        else:
            self.push(Stub(function.name, args, kwargs, function.fields))

    def object_from_mark(self) -> None:
        function, *args = self._pop_mark()
        self._call(function, tuple(args))

    def instance_from_mark(self) -> None:
        function = self.global_line()
        self._call(function, tuple(self._pop_mark()))

    def build_state(self) -> None:
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Stub):
            if target.state is not None:
                raise EncoderError(f"its pickle sets the state of a {target.name} twice")
            target.state = state
        elif isinstance(target, Array):
            _version, shape, dtype, fortran, data = state
            target.set_state(shape, dtype, fortran, data)
        elif isinstance(target, DType):
            if state[1] not in ("<", ">", "=", "|"):
                raise EncoderError("its pickle is damaged (a byte order)")
            target.order = state[1].replace("|", "=")
            target.plain = state[2] is None and state[3] is None
        elif isinstance(target, dict) and isinstance(state, dict) and state.keys() <= {"_metadata"}:
            pass  # a state_dict's version numbers, which are an attribute of its OrderedDict
        else:
            raise EncoderError(f"its pickle sets the attributes of a {type(target).__name__}")


def _frame(machine: Unpickler) -> None:
    """A frame only announces its size; nothing is taken for it beforehand."""
    machine._number("<Q")


_ACTIONS: dict[bytes, Callable[[Unpickler], None]] = {
    b"\x80": lambda m: _protocol(m._take(1)[0]),
    b"\x95": _frame,
    b"(": Unpickler.mark,
    b"0": Unpickler.pop,
    b"1": Unpickler.pop_to_mark,
    b"2": Unpickler.duplicate,
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": Unpickler.integer_line,
    b"L": Unpickler.integer_line,
    b"J": lambda m: m.push(m._number("<i")),
    b"K": lambda m: m.push(m._number("<B")),
    b"M": lambda m: m.push(m._number("<H")),
    b"\x8a": lambda m: m.long("<B"),
    b"\x8b": lambda m: m.long("<i"),
    b"F": lambda m: m.push(float(m._line())),
    b"G": lambda m: m.push(m._number(">d")),
    b"V": lambda m: m.push(m._line(len(m._data)).decode("raw-unicode-escape")),
    b"X": lambda m: m.text("<I"),
    b"\x8c": lambda m: m.text("<B"),
    b"\x8d": lambda m: m.text("<Q"),
    b"S": Unpickler.string_line,
    b"T": lambda m: m.byte_string(m._take(m._number("<i"))),
    b"U": lambda m: m.byte_string(m._take(m._number("<B"))),
    b"B": lambda m: m.push(m._take(m._number("<I"))),
    b"C": lambda m: m.push(m._take(m._number("<B"))),
    b"\x8e": lambda m: m.push(m._take(m._number("<Q"))),
    b"\x96": lambda m: m.push(m._take(m._number("<Q"))),
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"\x8f": lambda m: m.push(set()),
    b"t": Unpickler.tuple_from_mark,
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"l": lambda m: m.push(m._pop_mark()),
    b"d": Unpickler.dict_from_mark,
    b"a": lambda m: m.append([m._pop()]),
    b"e": lambda m: m.append(m._pop_mark()),
    b"s": lambda m: m.set_items([m._pop(), m._pop()][::-1]),
    b"u": lambda m: m.set_items(m._pop_mark()),
    b"\x90": Unpickler.add_items,
    b"\x91": lambda m: m.push(frozenset(map(m._key, m._pop_mark()))),
    b"p": lambda m: m.put(int(m._line(20))),
    b"q": lambda m: m.put(m._number("<B")),
    b"r": lambda m: m.put(m._number("<I")),
    b"\x94": Unpickler.put,
    b"g": lambda m: m.get(int(m._line(20))),
    b"h": lambda m: m.get(m._number("<B")),
    b"j": lambda m: m.get(m._number("<I")),
    b"c": lambda m: m.push(m.global_line()),
    b"\x93": Unpickler.stack_global,
    b"P": lambda m: m.persistent(m._line().decode()),
    b"Q": lambda m: m.persistent(m._pop()),
    b"R": Unpickler.reduce,
    b"\x81": Unpickler.reduce,
    b"\x92": lambda m: m.reduce(m._pop()),
    b"b": Unpickler.build_state,
    b"o": Unpickler.object_from_mark,
    b"i": Unpickler.instance_from_mark,
}


def _protocol(version: int) -> None:
    if version > 5:
        raise EncoderError(f"its pickle is of protocol {version}; 0 to 5 are read")
