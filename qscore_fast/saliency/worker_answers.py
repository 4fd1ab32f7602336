"""WorkerAnswers: which features of which class are core and which spurious, by the votes of five workers."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qscore_fast.errors import SourceError
from qscore_fast.saliency.bounded_text import bounded_text

SPURIOUS_ANSWERS = frozenset({"separate_object", "background"})
ANSWERS = SPURIOUS_ANSWERS | {"main_object"}
VOTES = 3
"""Of five workers, how many have to call a feature no part of the object to make it spurious."""

MAX_BYTES = 2**28
MAX_FEATURES_OF_CLASS = 64

COLUMNS = (
    "WorkerId",
    "Input.wordnet_id",
    "Input.class_index",
    "Input.feature_index",
    "Answer.main",
)

WNID = re.compile(r"n[0-9]{8}")
_INDEX = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class WorkerAnswers:
    """Core and spurious features of every class that was annotated.

    Attributes:
        path: the file.
        spurious: wnid -> feature index -> whether it is spurious; in the file's order.
        class_indices: wnid -> the class's number in the file.
    """

    path: Path
    spurious: dict[str, dict[int, bool]]
    class_indices: dict[str, int]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> WorkerAnswers:
        """Read discover_spurious_features.csv as it is published: a row an answer.

        A feature of a class is spurious if three or more answers are "separate_object" or "background",
        however many there are; core otherwise. A worker who answered twice counts twice, as in the
        published code.

        Raises:
            SourceError: missing or too large, a column that is not there, or a row that cannot be one;
                the text names its line.
        """
        path = Path(path)
        votes: dict[tuple[str, int], int] = defaultdict(int)
        class_indices: dict[str, int] = {}
        for line, row in _rows(path):
            wnid, index, feature, answer = _checked(path, line, row)
            if class_indices.setdefault(wnid, index) != index:
                raise SourceError(
                    f"{path}, line {line}: {wnid} is class {index}, and {class_indices[wnid]} further up: "
                    "take the published file"
                )
            votes[wnid, feature] += answer in SPURIOUS_ANSWERS
        spurious: dict[str, dict[int, bool]] = defaultdict(dict)
        for (wnid, feature), count in votes.items():
            spurious[wnid][feature] = count >= VOTES
            if len(spurious[wnid]) > MAX_FEATURES_OF_CLASS:
                raise SourceError(
                    f"{path}: {wnid} has more than {MAX_FEATURES_OF_CLASS} features, the published file has "
                    "5 a class: take that"
                )
        if not spurious:
            raise SourceError(f"{path} holds no answer: take the published file")
        return cls(path, dict(spurious), class_indices)

    @property
    def num_core(self) -> int:
        """(class, feature) pairs that are core."""
        return sum(not value for features in self.spurious.values() for value in features.values())

    @property
    def num_spurious(self) -> int:
        """(class, feature) pairs that are spurious."""
        return sum(value for features in self.spurious.values() for value in features.values())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of every row."""
    reader = csv.DictReader(io.StringIO(bounded_text(path, MAX_BYTES), newline=""), strict=True)
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise SourceError(
                f"{path} has no column {', '.join(missing)}: give mturk_results/"
                "discover_spurious_features.csv of the published repository"
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: {error}") from error


def _checked(path: Path, line: int, row: dict[str, str]) -> tuple[str, int, int, str]:
    wnid, index, feature, answer = (row[name] or "" for name in COLUMNS[1:])
    for name, value, valid in (
        ("Input.wordnet_id", wnid, WNID.fullmatch(wnid)),
        ("Input.class_index", index, _INDEX.fullmatch(index)),
        ("Input.feature_index", feature, _INDEX.fullmatch(feature)),
        ("Answer.main", answer, answer in ANSWERS),
    ):
        if not valid:
            raise SourceError(
                f"{path}, line {line}: {name} is {value[:60]!r}, which no published row has: take that file"
            )
    return wnid, int(index), int(feature), answer
