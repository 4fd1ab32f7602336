"""Units that arrive one at a time, through an encoder whose lane does not run empty between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from threading import Lock

from qscore_fast.scoring.encode_unit import UnitEncoder
from qscore_fast.scoring.part import PartRows
from qscore_fast.scoring.prefetch import Decoded
from qscore_fast.scoring.unit_rows import Failure

Images = Generator[Decoded | None, None, None]
"""Of one unit, and None after the last."""
Encoded = tuple[PartRows, dict[str, float]]
"""A unit's rows, and its seconds by stage."""


@dataclass(eq=False)
class _Turn:
    """A unit that somebody waits for."""

    index: int
    first: Decoded | None
    images: Images
    result: Future[Encoded] = field(default_factory=Future)


class UnitStream:
    """Encodes the units of several callers in the order in which they come, in a thread of its own: where
    one is waiting, its first batches follow on the last ones of the unit before.
    """

    def __init__(self, unit_encoder: UnitEncoder) -> None:
        self._unit_encoder = unit_encoder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qscore-encode")
        self._waiting: deque[_Turn] = deque()
        self._begun: dict[int, _Turn] = {}
        self._encoded: Iterator[Encoded] = iter(())
        self._news: dict[int, tuple[int, list[Failure]]] = {}
        self._lock = Lock()

    def encode(self, index: int, images: Images) -> Encoded:
        """Wait for a unit's turn and its rows; an error while it or another one is encoded is raised for
        every unit that waits.

        Args:
            index: the unit's.
            images: closed here, when they are all taken or of no more use.
        """
        # Decoding begins here, while the unit before is encoded.
        turn = _Turn(index, next(images), images)
        self._waiting.append(turn)
        self._thread.submit(self._advance)
        return turn.result.result()

    def news(self) -> dict[int, tuple[int, list[Failure]]]:
        """By unit: how many images more are done since this was asked last, and which of them have failed."""
        with self._lock:
            news, self._news = self._news, {}
        return news

    def _advance(self) -> None:
        """Go on until one more unit is complete."""
        if not self._begun and not self._waiting:
            return  # an error took the unit that this was for
        try:
            while (encoded := next(self._encoded, None)) is None:
                self._encoded = self._unit_encoder.encode(self._images(), self._hear)
        except BaseException as error:
            self._encoded = iter(())
            while self._begun or self._waiting:
                turn = self._begun.popitem()[1] if self._begun else self._waiting.popleft()
                turn.images.close()
                turn.result.set_exception(error)
        else:
            self._begun.pop(min(self._begun)).result.set_result(encoded)

    def _images(self) -> Iterator[Decoded | None]:
        """Of all units that are there by the time that the one before has ended."""
        for number in count():
            if not self._waiting:
                return
            turn = self._begun[number] = self._waiting.popleft()
            decoded = turn.first
            while decoded is not None:
                yield decoded
                decoded = next(turn.images)
            turn.images.close()
            yield None

    def _hear(self, number: int, done: int, failures: list[Failure]) -> None:
        index = self._begun[number].index
        with self._lock:
            before, failed = self._news.get(index, (0, []))
            self._news[index] = before + done, failed + failures
