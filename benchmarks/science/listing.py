"""How much there is to do: images and classes of the sources, without reading an image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from qscore_fast.images import Source
from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource
from qscore_fast.images.sources.subset import Subset

# Images a class of ImageNet-1K's training set, on average.
PER_CLASS = 1_281_167 / 1000


@dataclass(frozen=True)
class Listing:
    """What is listed of the two splits.

    Attributes:
        num_train, num_test, num_classes: counted where ``counted``; otherwise the original tars would have
            to be read for that, and a class counts as ImageNet's mean.
    """

    num_train: int
    num_test: int
    num_classes: int
    counted: bool

    def line(self) -> str:
        """For a terminal."""
        about = "" if self.counted else "about "
        why = "" if self.counted else " (tars say how many only when they are read)"
        return (
            f"{about}{self.num_train:,} training and {self.num_test:,} test images of "
            f"{self.num_classes:,} classes{why}"
        )


def listing(train: Source, test: Source) -> Listing:
    """Of sources with labels."""
    num_train, num_classes, counted = _listed(train, None)
    num_test, _, test_counted = _listed(test, num_classes)
    return Listing(num_train, num_test, num_classes, counted and test_counted)


def _listed(source: Source, num_classes: int | None) -> tuple[int, int, bool]:
    """Images, classes, and whether they were counted."""
    inner: Source = source
    chosen: Collection[str] | None = None
    if isinstance(source, Subset):
        inner, chosen = source.source, source.classes
    if not isinstance(inner, ImageNetTarsSource):
        labels = set()
        images = 0
        for unit in source.units(4096):
            for sample in source.read(unit):  # lists paths; opens nothing
                images += 1
                labels.add(sample.label)
        return images, len(labels), True
    if inner.num_samples is None:  # a tar a class
        names = [unit.name for unit in inner.units(1)]
        kept = len(names if chosen is None else set(names) & set(chosen))
        return round(kept * PER_CLASS), kept, False
    if chosen is None or num_classes is None:
        return inner.num_samples, num_classes or 1000, True
    return round(inner.num_samples * num_classes / 1000), num_classes, False
