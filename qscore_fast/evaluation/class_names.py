"""Names of classes from several files: text as it stands, and numbers by their value where that is clear."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

_FRACTION = re.compile(r"([+-]?\d+)(?:\.(\d*?)0*)?")
_PADDED = re.compile(r"^([+-]?)0+(\d+(\.\d+)?)$")


def plain_numbers(*columns: pa.Array) -> list[pa.Array]:
    """The same columns of strings with numbers in their shortest form: 3.0 and 03 become 3; other text stays.

    Where a column has both 3 and 03, zeros in front are part of the names, and stay in all columns.
    """
    encoded = [names.dictionary_encode() for names in columns]
    shorter = [[_without_fraction(name) for name in e.dictionary.to_pylist()] for e in encoded]
    unpadded = [[_PADDED.sub(r"\1\2", name) for name in names] for names in shorter]
    if all(len({*a}) == len({*b}) for a, b in zip(shorter, unpadded, strict=True)):
        shorter = unpadded
    return [
        pa.array(names, pa.string()).take(e.indices)
        for names, e in zip(shorter, encoded, strict=True)
    ]


def same_classes(left: pa.Array, right: pa.Array) -> pa.BooleanArray:
    """(n,): whether two names stand for one class; null where one is null."""
    return pc.equal(*plain_numbers(left, right))


def _without_fraction(name: str) -> str:
    """A number without the zeros at its end."""
    found = _FRACTION.fullmatch(name)
    if found is None:
        return name
    whole, part = found.groups()
    return f"{whole}.{part}" if part else whole
