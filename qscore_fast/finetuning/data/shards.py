"""ShuffledShards: a source that is read in order, shuffled as well as bounded memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.finetuning.data.requests import BatchRequest, Position, Request, generator_of
from qscore_fast.images import Source, Unit

_ORDER, _BLOCK, _SPARES = 2, 3, 4
UNIT_SIZE = 64
"""Images that a source which can choose puts into a unit."""
LANES = 8
"""Units that are read in turns, so that a block is a mixture of many shards."""


@dataclass
class ShuffledShards:
    """Batches of the samples of shards.

    Every epoch the units come in another random order and are dealt out to the processes. Each process
    reads several of them in turns, gathers a block of samples, and shuffles it; a checkpoint keeps where
    the block began, so that at most what was read of the open units is read again. At the end of an epoch
    the next one follows without a gap: processes may differ by what their units hold.

    Args:
        source: whose units these are. batch_size: of one process. block: samples that are shuffled among
            each other, encoded, in memory.
        seed: of the order. rank, world: of this process.

    Raises:
        SettingsError: fewer units than processes.
    """

    source: Source
    batch_size: int
    block: int = 2048
    seed: int = 0
    rank: int = 0
    world: int = 1
    units: list[Unit] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.units = list(self.source.units(UNIT_SIZE))
        if len(self.units) < self.world:
            raise SettingsError(
                f"{self.source.location} has {len(self.units)} shards for {self.world} processes: give one "
                "shard a process or more, or fewer processes (--devices)"
            )

    def batches(self, position: Position | None = None) -> Iterator[BatchRequest]:
        """The batches from a position on, without end.

        Raises:
            SourceError: an epoch without one readable sample.
        """
        bad: list[tuple[str, str]] = []
        items: list[Request] = []
        for block, at in self._blocks(position, bad):
            for offset in range(at["offset"], len(block)):
                items.append(block[offset])
                if len(items) < self.batch_size:
                    continue
                spares = self._spares(block, at, offset)
                begun = {**at, "offset": offset + 1}
                yield BatchRequest(tuple(items), begun, spares, tuple(bad))
                items.clear()
                bad.clear()

    def _spares(self, block: list[Request], at: Position, offset: int) -> tuple[Request, ...]:
        draw = generator_of(_SPARES, self.seed, at["epoch"], self.rank, at["block"], offset)
        count = min(len(block), max(2, self.batch_size // 16))
        chosen = draw.integers(len(block), size=count).tolist()
        return tuple(
            Request((*block[place].key, number), sample=block[place].sample)
            for number, place in enumerate(chosen, 1)
        )

    def _blocks(
        self, position: Position | None, bad: list[tuple[str, str]]
    ) -> Iterator[tuple[list[Request], Position]]:
        """Shuffled blocks, and where each begins; a resumed one with the offset that was reached."""
        start = position or {"epoch": 0, "block": 0, "lanes": None, "offset": 0}
        epoch, number, places = start["epoch"], start["block"], start["lanes"]
        offset = start["offset"]
        while True:
            lanes = self._lanes(epoch, places)
            found = number > 0
            while True:
                begun = {
                    "epoch": epoch,
                    "block": number,
                    "lanes": [list(lane.place) for lane in lanes],
                    "offset": offset,
                }
                block = self._gather(lanes, epoch, bad)
                if not block:
                    break
                found = True
                order = generator_of(_BLOCK, self.seed, epoch, self.rank, number).permutation(
                    len(block)
                )
                yield [block[place] for place in order], begun
                number, offset = number + 1, 0
            if not found:
                reason = f", the first: {bad[0][1]}" if bad else ""
                raise SourceError(
                    f"none of the samples of {self.source.location} can be read{reason}"
                )
            epoch, number, places = epoch + 1, 0, None

    def _lanes(self, epoch: int, places: list[list[int]] | None) -> list[_Lane]:
        order = generator_of(_ORDER, self.seed, epoch).permutation(len(self.units))
        mine = [self.units[index] for index in order[self.rank :: self.world]]
        count = min(LANES, len(mine))
        return [
            _Lane(self.source, mine[lane::count], *(places[lane] if places else (0, 0)))
            for lane in range(count)
        ]

    def _gather(self, lanes: list[_Lane], epoch: int, bad: list[tuple[str, str]]) -> list[Request]:
        block: list[Request] = []
        open_lanes = deque(lanes)
        while open_lanes and len(block) < self.block:
            lane = open_lanes.popleft()
            found = next(lane, None)
            if found is None:
                continue
            open_lanes.append(lane)
            unit, number, sample = found
            if sample.error is not None:
                bad.append((sample.sample_id, f"{sample.error.stage}: {sample.error}"))
            else:
                block.append(Request((epoch, unit, number), sample=sample))
        return block


class _Lane:
    """The samples of some units, one after the other, from a place on."""

    def __init__(self, source: Source, units: list[Unit], unit: int, sample: int) -> None:
        self._source, self._units = source, units
        self._unit, self._sample = unit, sample
        self._reading: Iterator[Any] | None = None

    @property
    def place(self) -> tuple[int, int]:
        """The unit, and the sample in it, that come next."""
        return self._unit, self._sample

    def __next__(self) -> tuple[int, int, Any]:
        while self._unit < len(self._units):
            unit = self._units[self._unit]
            if self._reading is None:
                self._reading = islice(self._source.read(unit), self._sample, None)
            sample = next(self._reading, None)
            if sample is not None:
                self._sample += 1
                return unit.index, self._sample - 1, sample
            self._unit, self._sample, self._reading = self._unit + 1, 0, None
        raise StopIteration

    def __iter__(self) -> _Lane:
        return self
