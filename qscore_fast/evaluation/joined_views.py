"""JoinedViews: runs of several views of the same images, joined on the sample id."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.run_pair import check_same_space
from qscore_fast.evaluation.sample_file import ID, some_of
from qscore_fast.scoring import ScoreRun

BLOCK = 2048


@dataclass(frozen=True, eq=False)
class JoinedViews:
    """The images that every one of the runs has scored.

    Attributes:
        runs: q of them, the first one that of the images as they are, each of another view.
        rows: (q, m) int64: in each run the rows of these images, ascending in the first.
        missing: how many images of the first run each other run lacks, by its folder; 0 left out.
    """

    runs: tuple[ScoreRun, ...]
    rows: np.ndarray
    missing: dict[str, int]

    @classmethod
    def of(cls, run: ScoreRun, views: Sequence[ScoreRun | str | os.PathLike[str]]) -> JoinedViews:
        """Join.

        Args:
            run: the images as they are. views: one run or more of other views, by the same encoder and with
                the same preprocessing: of a transformed copy of the source, or with ``--view``.

        Raises:
            SettingsError: no view, another encoder or preprocessing, or no image that all have.
            StoreError: a run is not complete.
        """
        if not views:
            raise SettingsError("there is no view: give one run or more")
        runs = (run, *(v if isinstance(v, ScoreRun) else ScoreRun(v) for v in views))
        ids = [_ids(one) for one in runs]
        places, missing = [], {}
        for view, own in zip(runs[1:], ids[1:], strict=True):
            check_same_space(run, view)
            place = pc.index_in(ids[0], value_set=own)
            if place.null_count == len(place):
                raise SettingsError(
                    f"no image of {view.path} is one of {run.path}: it has {some_of(own)}, the run "
                    f"{some_of(ids[0])}; score the same source, transformed or with --view, for each view"
                )
            if place.null_count:
                missing[str(view.path)] = place.null_count
            places.append(place.fill_null(-1).to_numpy().astype(np.int64))
        rows = np.stack([np.arange(len(ids[0])), *places])
        rows = rows[:, (rows >= 0).all(0)]
        if not rows.shape[1]:
            raise SettingsError("no image is in all views: score the same images for each view")
        return cls(runs, rows, missing)

    def __len__(self) -> int:
        return self.rows.shape[1]

    @property
    def num_views(self) -> int:
        """q, the images as they are among them."""
        return len(self.runs)

    def notes(self) -> list[str]:
        """What is missing, in sentences."""
        total = len(self.runs[0].scores())
        return [
            f"{count:,} of {total:,} images have no representation in the view {path}: what compares views "
            "leaves them out"
            for path, count in self.missing.items()
        ]

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """(b, q, r) of the run's dtype, at most ``size`` images at a time.

        Raises:
            StoreError: a run without embeddings.
            SettingsError: representations of different dtypes or r.
        """
        features = [FeatureRows.of(run) for run in self.runs]
        kinds = {(one.num_features, one.dtype) for one in features}
        if len(kinds) > 1:
            raise SettingsError("the views hold representations of several sizes or dtypes")
        for start in range(0, len(self), size):
            chosen = self.rows[:, start : start + size]
            yield np.stack([f.gather(at) for f, at in zip(features, chosen, strict=True)], axis=1)


def _ids(run: ScoreRun) -> pa.Array:
    return run.scores()[ID].combine_chunks()
