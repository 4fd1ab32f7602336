"""A part of a source: some classes, the first samples, or a random share."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.images.daemon_pool import DaemonPool
from qscore_fast.images.sources.heads import heads, known_classes
from qscore_fast.images.sources.source import Sample, Source, Unit, manifest_hash

_COUNTED_AT_ONCE = 8
_PATIENCE = 1.0  # seconds for counts that nobody waits for any more
_NAMES_SHOWN = 10


@dataclass(frozen=True)
class Subset:
    """The samples of ``source`` that are in ``classes``, drawn by ``share``, and among the first ``limit``.

    The units stay those of the source. Nothing has to be read to list them, with two exceptions: for
    ``limit`` samples are counted until there are enough, and for ``classes`` of a source whose labels are
    not known beforehand (WebDataset) they are looked for until the first one is found. Both go by the
    headers of tars, the metadata of Parquet files and the names in folders; no image is read.

    A sample with an error is kept unless its label is known and another one; it counts as a sample.

    Args:
        source: any other source.
        classes: labels to keep; None for all. Compared as text.
        limit: how many samples at most, in the source's order.
        share: above 0 and up to 1: the share of the samples to keep, drawn by a hash of the sample id, so
            that it is the same each time and the samples of a smaller share are among those of a larger.

    Raises:
        SettingsError: a number out of range, or classes for a source without labels.
        SourceError: no sample has one of the classes, or nothing is left of the first samples.

    Attributes:
        unmatched: those of ``classes`` that no sample has; empty where the labels of the source are not
            known beforehand.
    """

    source: Source
    classes: Collection[str] | None = None
    limit: int | None = None
    share: float | None = None
    unmatched: tuple[str, ...] = field(init=False, repr=False)
    _kept: frozenset[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.limit is not None and (isinstance(self.limit, bool) or self.limit < 1):
            raise SettingsError(f"limit must be a whole number, 1 or more; got {self.limit!r}")
        if self.share is not None and not 0 < self.share <= 1:
            raise SettingsError(f"share must be above 0 and at most 1; got {self.share!r}")
        if self.classes is not None and not self.source.has_labels:
            raise SettingsError(f"{self.source.location} has no labels to choose classes by")
        kept = None if self.classes is None else frozenset(map(str, self.classes))
        object.__setattr__(self, "_kept", kept)
        known = None if kept is None else known_classes(self.source)
        unmatched = () if kept is None or known is None else tuple(sorted(kept - known))
        if kept is not None and known is not None and len(unmatched) == len(kept):
            raise SourceError(self._no_match(known))
        object.__setattr__(self, "unmatched", unmatched)

    @property
    def kind(self) -> str:
        """That of the source."""
        return self.source.kind

    @property
    def location(self) -> str:
        """That of the source."""
        return self.source.location

    @property
    def has_labels(self) -> bool:
        """As the source."""
        return self.source.has_labels

    @property
    def num_samples(self) -> int | None:
        """Not known before everything was read."""
        return None

    @property
    def notes(self) -> dict[str, int]:
        """Those of the source, and which classes have no sample."""
        if not self.unmatched:
            return self.source.notes
        missing = f"classes without an image: {names(self.unmatched)}"
        return {**self.source.notes, missing: len(self.unmatched)}

    @property
    def manifest_hash(self) -> str:
        """Over the source's and the choice."""
        classes = "" if self._kept is None else "\0".join(sorted(self._kept))
        choice = f"{classes}\n{self.limit}\n{self.share}"
        return manifest_hash([(self.source.manifest_hash, 0), (choice, 0)])

    def units(self, size: int) -> Sequence[Unit]:
        """The source's units, as far as the limit reaches; the last one may be read in part."""
        units = self.source.units(size)
        if self.limit is None:
            if self._kept is not None and known_classes(self.source) is None:
                self._check_match(units)
            return [Unit(unit.index, unit.name, None, (unit, None)) for unit in units]
        found: list[Unit] = []
        left = self.limit
        for unit, most in self._counts(units, self.limit):
            count = min(most, left)
            found.append(Unit(unit.index, unit.name, count, (unit, count)))
            left -= count
            if left == 0:
                break
        if left == self.limit:
            raise SourceError(f"no sample of {self.location} is left after the choice of samples")
        return found

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The chosen samples of a unit."""
        inner, count = unit.payload
        for number, sample in enumerate(self._chosen(self.source.read(inner))):
            if number == count:
                return
            yield sample

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same without their content, where the source can leave it out."""
        inner, count = unit.payload
        for number, sample in enumerate(self._chosen(heads(self.source, inner))):
            if number == count:
                return
            yield sample

    def known_classes(self) -> frozenset[str] | None:
        """Those of the source that are chosen, where they are known beforehand."""
        known = known_classes(self.source)
        return known if known is None or self._kept is None else known & self._kept

    def _chosen(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            unknown = sample.label is None and sample.error is not None
            if self._kept is not None and not unknown and sample.label not in self._kept:
                continue
            if self.share is None or _fraction(sample.sample_id) < self.share:
                yield sample

    def _check_match(self, units: Sequence[Unit]) -> None:
        of_classes = Subset(self.source, self.classes)
        if not any(count for _, count in of_classes._counts(units, 1)):
            raise SourceError(self._no_match(None))

    def _no_match(self, known: Collection[str] | None) -> str:
        assert self._kept is not None
        has = "" if known is None else f": its classes are {names(sorted(known))}"
        return f"no image of {self.location} has the class {names(sorted(self._kept))}{has}"

    def _counts(self, units: Sequence[Unit], most: int) -> Iterator[tuple[Unit, int]]:
        """Each unit and how many samples of it are chosen, up to ``most``; some ahead at a time."""
        enough = Event()
        all_chosen = self._kept is None and self.share is None

        def count(unit: Unit) -> int:
            if all_chosen and unit.num_samples is not None:
                return min(unit.num_samples, most)
            number = 0
            for number, _ in enumerate(self._chosen(heads(self.source, unit)), start=1):
                if number == most or enough.is_set():
                    break
            return number

        waiting: deque[tuple[Unit, Future[int]]] = deque()
        pool = DaemonPool(_COUNTED_AT_ONCE, "qscore-count")
        # The first unit is often all that is needed, so the others are begun slowly.
        ahead = 1
        try:
            for unit in units:
                waiting.append((unit, pool.submit(count, unit)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
                    ahead = min(2 * ahead, _COUNTED_AT_ONCE)
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            enough.set()
            pool.close(_PATIENCE)


def names(of: Sequence[str]) -> str:
    """Names for people: the first ones, and how many more there are."""
    more = len(of) - _NAMES_SHOWN
    return ", ".join(of[:_NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _fraction(sample_id: str) -> float:
    """A number from 0 to 1 that belongs to the id."""
    digest = hashlib.blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
