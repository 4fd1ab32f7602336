"""Choices of classes, first samples and random shares, against the choice made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscore_fast.errors import ImageError, SettingsError, SourceError
from qscore_fast.images import Sample, Subset, Unit


@dataclass(frozen=True)
class Made:
    """Samples without content: ``labels[i]`` is the class of sample i; None is a broken one."""

    labels: tuple[str | None, ...]
    has_labels: bool = True
    kind: str = "made"
    location: str = "nowhere"
    manifest_hash: str = "0"

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    @property
    def notes(self) -> dict[str, int]:
        return {}

    def units(self, size: int) -> Sequence[Unit]:
        starts = range(0, len(self.labels), size)
        ends = [min(start + size, len(self.labels)) for start in starts]
        runs = [range(start, end) for start, end in zip(starts, ends, strict=True)]
        return [Unit(index, str(index), None, run) for index, run in enumerate(runs)]

    def read(self, unit: Unit) -> Iterator[Sample]:
        for index in unit.payload:
            label = self.labels[index]
            error = ImageError("broken") if label is None else None
            yield Sample(str(index), label, None if error else b"path", error=error)


def ids(subset: Subset, size: int) -> list[str]:
    units = subset.units(size)
    assert all(u.num_samples in (None, len(list(subset.read(u)))) for u in units)
    return [sample.sample_id for unit in units for sample in subset.read(unit)]


labels = st.lists(st.sampled_from(["cat", "dog", None]), min_size=1, max_size=30).map(tuple)


@given(labels, st.integers(1, 12), st.integers(1, 40))
def test_limit_and_classes(labels: tuple[str | None, ...], size: int, limit: int) -> None:
    # Broken samples are kept: what they would have been is not known.
    expected = [str(i) for i, label in enumerate(labels) if label in ("dog", None)]
    subset = Subset(Made(labels), classes=["dog"])
    if expected:
        assert ids(subset, size) == expected
        assert ids(Subset(Made(labels), classes=["dog"], limit=limit), size) == expected[:limit]
    else:
        with pytest.raises(SourceError, match="no image of nowhere has the class dog"):
            subset.units(size)
        with pytest.raises(SourceError, match="no sample of nowhere is left"):
            Subset(Made(labels), classes=["dog"], limit=limit).units(size)


def test_shares_are_stable_nested_and_near_what_was_asked() -> None:
    source = Made(("cat",) * 20_000)
    small, large = (set(ids(Subset(source, share=share), 1000)) for share in (0.1, 0.5))
    assert small < large
    # Five standard deviations of a fair draw.
    assert abs(len(small) - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert abs(len(large) - 10_000) < 5 * (20_000 * 0.25) ** 0.5
    assert set(ids(Subset(source, share=1.0), 7)) == {str(i) for i in range(20_000)}


def test_the_manifest_tells_choices_apart() -> None:
    source = Made(("cat", "dog"))
    choices = [
        Subset(source),
        Subset(source, classes=["cat"]),
        Subset(source, classes=["cat", "dog"]),
        Subset(source, limit=1),
        Subset(source, share=0.5),
        Subset(Made(("cat", "dog"), manifest_hash="1")),
    ]
    assert len({choice.manifest_hash for choice in choices}) == len(choices)
    again = Subset(source, classes=("dog", "cat"))
    assert again.manifest_hash == choices[2].manifest_hash


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"limit": 0}, "limit must be"),
        ({"limit": True}, "limit must be"),
        ({"share": 0.0}, "share must be"),
        ({"share": 1.5}, "share must be"),
        ({"classes": ["cat"]}, "has no labels"),
    ],
)
def test_bad_settings(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Subset(Made(("a",), has_labels=False), **settings)  # type: ignore[arg-type]
