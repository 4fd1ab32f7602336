"""SingleImages: a source whose images can be had one by one, by number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qscore_fast.images import Sample, Source, Unit


@dataclass(frozen=True)
class SingleImages:
    """Random access to a source that can make a unit of any run of its images.

    Folders, lists and remote folders can: the payload of their units is a ``range`` of images. Shards and
    tables are read in order instead.
    """

    source: Source
    whole: Unit

    @classmethod
    def of(cls, source: Source) -> SingleImages | None:
        """Random access, or None where the source has to be read in order."""
        count = source.num_samples
        if not count:
            return None
        units = source.units(count)
        whole = units[0]
        if len(units) != 1 or whole.payload != range(count):
            return None
        return cls(source, whole)

    def __len__(self) -> int:
        return len(self.whole.payload)

    def __getitem__(self, index: int) -> Sample:
        """The sample of this number; one with an error where it cannot be read."""
        one = replace(self.whole, num_samples=1, payload=range(index, index + 1))
        return next(iter(self.source.read(one)))
