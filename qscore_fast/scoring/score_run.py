"""ScoreRun: a finished run, read back from its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.scores_table import (
    ScoresHeader,
    features_hash,
    lowest_scores,
    read_result,
)
from qscore_fast.scoring.session import Session
from qscore_fast.scoring.store import Store

if TYPE_CHECKING:
    from pathlib import Path

QUANTILES = {
    "min": 0.0,
    "q05": 0.05,
    "q25": 0.25,
    "median": 0.5,
    "q75": 0.75,
    "q95": 0.95,
    "max": 1,
}


class ScoreRun:
    """A run.

    Args:
        path: the folder that ``score`` wrote.
        session: what the call that returns this did; None for a run that is only read.

    Attributes:
        complete: whether all parts are there and the results written: all but ``path``, ``session``,
            ``complete`` and ``summary`` need that. Only a shard that ended before others leaves a run that
            is not.

    Raises:
        StoreError: no run there, or not complete, and this is not for the shards to come to change.
    """

    def __init__(self, path: str | os.PathLike[str], session: Session | None = None) -> None:
        self._store = Store(path)
        self.session = session
        self.complete = session is None or session.parts_left == 0
        if self.complete:
            self._header  # noqa: B018, so that a damaged run shows at once

    @cached_property
    def _header(self) -> ScoresHeader:
        if not self.complete:
            assert self.session is not None
            raise StoreError(
                f"the run in {self.path} is not complete: {self.session.parts_left} parts of other "
                "shards are missing"
            )
        header = ScoresHeader.read(self.path / "scores.parquet")
        if header is None:
            raise StoreError(
                f"{self.path} holds no readable scores.parquet: run the same qscore score again"
            )
        if header.run != self._store.record.key:
            raise StoreError(
                f"{self.path / 'scores.parquet'} is of a run with other settings than run.json says: run "
                "the same qscore score again"
            )
        return header

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @cached_property
    def features(self) -> DiscriminativeFeatures:
        """The discriminative features D that the scores were made with.

        Raises:
            StoreError: features.npz holds others: a process that wrote new results was killed in between.
        """
        features = DiscriminativeFeatures.load(self.path / "features.npz")
        if features_hash(features) != self._header.features_hash:
            raise StoreError(
                f"{self.path / 'features.npz'} holds other features than scores.parquet was made with: run "
                "the same qscore score again"
            )
        return features

    def scores(self) -> pa.Table:
        """One row for each scored image, in the order of the source: a folder's by
        the bytes of the sample ids.

        Columns: sample_id, label (null without class folders), q_score, num_active (|L and D|),
        num_highly_active (|L|), mean, std, l1, l2 of the representation.
        """
        return read_result(self.path / "scores.parquet")

    def lowest(self, n: int) -> pa.Table:
        """The ``n`` images of the lowest scores, ascending, equal ones in the order of the source; the
        columns of :meth:`scores`. Reads no more than it needs.
        """
        if n < 0:
            raise SettingsError(f"n must be 0 or more, got {n}")
        return lowest_scores(self.path / "scores.parquet", n)

    def errors(self) -> pa.Table:
        """One row for each image without a score: sample_id, stage, error."""
        return read_result(self.path / "errors.parquet")

    def embeddings(self) -> np.ndarray:
        """(scored images, r) float16, in the order of :meth:`scores`, all in memory.

        Raises:
            StoreError: the run was made without embeddings.
        """
        return np.concatenate(list(self._store.embeddings()))

    def iter_embeddings(self) -> Iterator[np.ndarray]:
        """The same, part by part, mapped from the disk."""
        return self._store.embeddings()

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The run in plain JSON values: counts, eps, quantiles of the scores, speed, files, notes."""
        if not self.complete:
            return {
                "out": str(self.path),
                "complete": False,
                "session": self.session and self.session.to_json(),
            }
        record, features = self._store.record, self.features
        scores = read_result(self.path / "scores.parquet", ["q_score", "num_active"])
        q = scores["q_score"].to_numpy()
        num_images = self._store.num_images()
        return {
            "out": str(self.path),
            "complete": True,
            "encoder": record.about["encoder_name"],
            "system": record.about["encoder_system"],
            "num_images": num_images,
            "num_scored": len(q),
            "num_failed": num_images - len(q),
            "source_notes": record.about["source_notes"],
            "num_features": features.mask.numel(),
            "num_discriminative": int(features.mask.sum()),
            "eps": features.eps,
            "two_sided": features.two_sided,
            "lower": features.lower,
            "upper": features.upper,
            "empty_fraction": float(np.mean(scores["num_active"].to_numpy() == 0)),
            "q_score": {
                "mean": float(q.mean()),
                **dict(zip(QUANTILES, np.quantile(q, [*QUANTILES.values()]).tolist(), strict=True)),
            },
            "notes": self._header.notes,
            "session": self.session and self.session.to_json(),
            "files": {
                name: str(self.path / name)
                for name in (
                    "scores.parquet",
                    "features.npz",
                    "errors.parquet",
                    "run.json",
                    "parts",
                )
            },
        }
