"""``{000..146}`` and ``{a,b}`` in the names of shards."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

from qscore_fast.errors import SourceError

MAX_NAMES = 1_000_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})(?:\.\.(\d{1,9}))?")


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for, in the shell's order; several braces are combined.

    ``{000..146}`` counts up or down, padded with zeros if one of the ends is; ``{0..9..3}`` has a
    step; ``{a,b}`` is a list. Braces within braces are not supported.

    Raises:
        SourceError: the braces do not fit together, or stand for more than ``MAX_NAMES`` names.
    """
    pieces = _BRACES.split(pattern)
    if any("{" in literal or "}" in literal for literal in pieces[::2]):
        raise SourceError(
            f"the braces of {pattern} do not pair, or stand within each other: write them like "
            "train-{000000..000146}.tar"
        )
    choices = [
        _choices(piece, pattern) if place % 2 else [piece] for place, piece in enumerate(pieces)
    ]
    total = math.prod(map(len, choices))
    if total > MAX_NAMES:
        raise SourceError(f"{pattern} stands for {total:,} names; {MAX_NAMES:,} at most")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inner: str, pattern: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inner)
    if match is None:
        if "," not in inner:
            raise SourceError(
                f"{{{inner}}} in {pattern} is neither a range like {{000..146}} nor a list like {{a,b}}"
            )
        return inner.split(",")
    first, last = int(match[1]), int(match[2])
    step = int(match[3] or 1) or 1
    if abs(last - first) // step >= MAX_NAMES:
        raise SourceError(f"{{{inner}}} in {pattern} is a range of more than {MAX_NAMES:,} names")
    padded = any(len(end) > 1 and end.startswith("0") for end in (match[1], match[2]))
    width = max(len(match[1]), len(match[2])) if padded else 0
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in numbers]
