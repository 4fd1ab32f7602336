"""Which images a probe got right, found by their names in any copy of ImageNet."""

from __future__ import annotations

import os

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure import Correctness
from qscore_fast.evaluation.sample_file import some_of
from qscore_fast.saliency.published_name import published_name


class CorrectnessByName:
    """The outcomes of a file, for images from any source.

    An image is found by its sample id, or by its published name in the file's ids: the probe may have seen
    the images in tars and the interpretation in folders.

    Args:
        path: Parquet or CSV with sample_id and correct, or sample_id, label and prediction.

    Raises:
        SettingsError: as ``Correctness.read``; or the file says two things of one image.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._read = Correctness.read(path)
        ids = self._read.sample_ids.to_pylist()
        self._by_id = dict(zip(ids, self._read.correct.tolist(), strict=True))
        self._by_name: dict[str, bool] = {}
        for sample_id, correct in self._by_id.items():
            name = published_name(sample_id)
            if name is not None and self._by_name.setdefault(name, correct) != correct:
                raise SettingsError(
                    f"{self._read.path} holds {name} as both right and wrong: keep one of its rows"
                )

    def outcomes(self, sample_ids: list[str], names: list[str]) -> list[bool | None]:
        """Of these images; None where the file says nothing."""
        return [
            self._by_id.get(sample_id, self._by_name.get(name))
            for sample_id, name in zip(sample_ids, names, strict=True)
        ]

    def check_joined(self, num_joined: int, example: str) -> None:
        """SettingsError if no image was found."""
        if not num_joined:
            raise SettingsError(
                f"no sample_id of {self._read.path} is one of the interpreted images: it has "
                f"{some_of(self._read.sample_ids)}, they are like {example!r}"
            )


def group_masks(correct: np.ndarray | None, num_rows: int) -> dict[str, np.ndarray]:
    """Rows of each group: all and, where outcomes are known, correct and misclassified.

    Args:
        correct: (N,) float64: 1, 0, or NaN where unknown; None without a file.
    """
    groups = {"all": np.ones(num_rows, bool)}
    if correct is not None:
        groups |= {"correct": correct == 1, "misclassified": correct == 0}
    return groups
