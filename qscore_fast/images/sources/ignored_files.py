"""Files that a listing passes over, counted by the endings of their names."""

from __future__ import annotations

import os
from collections import Counter

_MAX_ENDINGS = 1000
_MAX_LENGTH = 12
_SHOWN = 5
_OTHER = "other endings"


class IgnoredFiles:
    """Counts of files of other kinds."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, name: bytes) -> None:
        """Count a file, by its name or path with ``/`` separators."""
        ending = os.path.splitext(name)[1].lower()
        text = (
            ending.decode("utf-8", "backslashreplace") if len(ending) > 1 else "without an ending"
        )
        fits = len(ending) <= _MAX_LENGTH and text.isprintable()
        if not fits or (text not in self._counts and len(self._counts) >= _MAX_ENDINGS):
            text = _OTHER
        self._counts[text] += 1

    def notes(self) -> dict[str, int]:
        """How many there are, and how many of the most frequent endings, as notes of a source."""
        shown = {f"of them {ending}": count for ending, count in self._most_frequent()}
        return {"files of other kinds ignored": len(self), **shown}

    def __str__(self) -> str:
        """Such as "6 other files: 4 .heic, 2 .txt"."""
        endings = ", ".join(f"{count:,} {ending}" for ending, count in self._most_frequent())
        total = f"{len(self):,} other file{'' if len(self) == 1 else 's'}"
        return f"{total}: {endings}" if endings else total

    def _most_frequent(self) -> list[tuple[str, int]]:
        by_count = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        shown = by_count[:_SHOWN]
        rest = len(self) - sum(count for _, count in shown)
        return [*shown, ("less frequent endings", rest)] if rest else shown
