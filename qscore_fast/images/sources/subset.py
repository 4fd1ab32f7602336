"""A part of a source: some classes, the first samples, or a random share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.images.sources.source import Sample, Source, Unit, manifest_hash


@dataclass(frozen=True)
class Subset:
    """The samples of ``source`` that are in ``classes``, drawn by ``share``, and among the first ``limit``.

    The units stay those of the source, so that nothing has to be read to list them; only for ``limit``
    are the first ones read, without decoding an image. Samples with errors count as samples.

    Args:
        source: any other source.
        classes: labels to keep; None for all. Compared as text.
        limit: how many samples at most, in the source's order.
        share: above 0 and up to 1: the share of the samples to keep, drawn by a hash of the sample id, so
            that it is the same each time and the samples of a smaller share are among those of a larger.

    Raises:
        SettingsError: a number out of range, or classes for a source without labels.
        SourceError: nothing is left of the first samples.
    """

    source: Source
    classes: Collection[str] | None = None
    limit: int | None = None
    share: float | None = None
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
        """Those of the source."""
        return self.source.notes

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
            return [Unit(unit.index, unit.name, None, (unit, None)) for unit in units]
        found: list[Unit] = []
        left = self.limit
        for unit in units:
            count = 0
            for _ in self._chosen(unit):
                count += 1
                if count == left:
                    break
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
        for number, sample in enumerate(self._chosen(inner)):
            if number == count:
                return
            yield sample

    def _chosen(self, unit: Unit) -> Iterator[Sample]:
        for sample in self.source.read(unit):
            if self._kept is not None and sample.label not in self._kept and sample.error is None:
                continue
            if self.share is None or _fraction(sample.sample_id) < self.share:
                yield sample


def _fraction(sample_id: str) -> float:
    """A number from 0 to 1 that belongs to the id."""
    digest = hashlib.blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
