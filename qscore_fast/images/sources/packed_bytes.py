"""Many short byte strings in two blocks of memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator


class PackedBytes:
    """Byte strings in order, at 8 bytes beyond their length each. Grows at the end only; pickles."""

    __slots__ = ("_content", "_ends")

    def __init__(self, items: Iterable[bytes] = ()) -> None:
        self._content = bytearray()
        self._ends = array("Q")
        for item in items:
            self.append(item)

    def append(self, item: bytes) -> None:
        """Add one at the end."""
        self._content += item
        self._ends.append(len(self._content))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        return bytes(self._content[self._ends[index - 1] if index else 0 : self._ends[index]])

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self._ends:
            yield bytes(self._content[start:end])
            start = end
