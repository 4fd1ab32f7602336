"""Progress within units that others encode, of which each may be lost and begun again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qscore_fast.scoring.encode_unit import OnImages
from qscore_fast.scoring.unit_rows import Failure


@dataclass
class _Known:
    """Images of a unit that were told of: ``done`` of them, ``failed`` by name; and how many it has done
    since it was begun last.
    """

    done: int = 0
    failed: set[str] = field(default_factory=set)
    this_time: int = 0


class UnitReports:
    """Passes on what is heard of units, each image once.

    Args:
        on_images: hears of it.
    """

    def __init__(self, on_images: OnImages) -> None:
        self._on_images = on_images
        self._known: dict[int, _Known] = {}

    def begin(self, index: int) -> None:
        """A unit is begun, or begun again."""
        self._known.setdefault(index, _Known()).this_time = 0

    def add(self, index: int, done: int, failures: Sequence[Failure]) -> None:
        """So many images more of the unit are done, and some of them have failed."""
        known = self._known[index]
        known.this_time += done
        self._tell(known, known.this_time, failures)

    def finish(self, index: int, done: int, failures: Sequence[Failure]) -> None:
        """The unit is complete, with so many images and these failures in all."""
        self._tell(self._known.pop(index), done, failures)

    def _tell(self, known: _Known, done: int, failures: Sequence[Failure]) -> None:
        more = max(done - known.done, 0)
        new = [failure for failure in failures if failure["sample_id"] not in known.failed]
        known.done += more
        known.failed.update(failure["sample_id"] for failure in new)
        if more or new:
            self._on_images(more, new)
