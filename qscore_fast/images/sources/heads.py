"""What a source can say of its samples without reading an image.

A source may have two methods beyond those of ``Source``; without them everything is read.

``heads(unit)``: the samples that ``read`` gives, in the same order, with their ids, labels and the errors
that show without the content; neither path nor content need be there.

``known_classes()``: the labels that occur, or None where only going through all samples tells.
"""

from __future__ import annotations

from collections.abc import Iterator

from qscore_fast.images.sources.source import Sample, Source, Unit


def heads(source: Source, unit: Unit) -> Iterator[Sample]:
    """The samples of a unit, without their content where the source can leave it out."""
    without_content = getattr(source, "heads", source.read)
    samples: Iterator[Sample] = without_content(unit)
    return samples


def known_classes(source: Source) -> frozenset[str] | None:
    """The labels that occur in a source; None where only going through it tells."""
    listed = getattr(source, "known_classes", None)
    classes: frozenset[str] | None = None if listed is None else listed()
    return classes
