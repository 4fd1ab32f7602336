"""ScoreRun: a finished run, read back from its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from qscore_fast.errors import StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.scores_table import ScoresHeader, read_result
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


@dataclass(frozen=True)
class Session:
    """What one call of ``score`` did.

    Attributes:
        device: where the encoder and the kernels ran. backend: which kernels.
        parts_found: parts that were there already. parts_done: parts made now.
        images_done: images that went through now, scored or not.
        seconds: from the first image to the last part, wall clock.
        seconds_by_stage: of the main thread: wait_for_decoding, encode, activations, write.
    """

    device: str
    backend: str
    parts_found: int
    parts_done: int
    images_done: int
    seconds: float
    seconds_by_stage: dict[str, float]

    @property
    def images_per_second(self) -> float | None:
        """None where nothing was done."""
        return self.images_done / self.seconds if self.images_done else None

    @property
    def bottleneck(self) -> str | None:
        """The stage that took the largest share of the time; None where nothing was done."""
        return max(self.seconds_by_stage, key=lambda k: self.seconds_by_stage[k], default=None)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            **asdict(self),
            "images_per_second": self.images_per_second,
            "bottleneck": self.bottleneck,
        }


class ScoreRun:
    """A complete run.

    Args:
        path: the folder that ``score`` wrote.
        session: what the call that returns this did; None for a run that is only read.

    Raises:
        StoreError: no run there, or not complete.
    """

    def __init__(self, path: str | os.PathLike[str], session: Session | None = None) -> None:
        self._store = Store(path)
        self.session = session
        header = ScoresHeader.read(self.path / "scores.parquet")
        if header is None:
            raise StoreError(
                f"{self.path} holds no readable scores.parquet: run the same qscore score again"
            )
        self._header = header

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.path

    @cached_property
    def features(self) -> DiscriminativeFeatures:
        """The discriminative features D that the scores were made with."""
        return DiscriminativeFeatures.load(self.path / "features.npz")

    def scores(self) -> pa.Table:
        """One row for each scored image, in the order of the source: a folder's by
        the bytes of the sample ids.

        Columns: sample_id, label (null without class folders), q_score, num_active (|L and D|),
        num_highly_active (|L|), mean, std, l1, l2 of the representation.
        """
        return read_result(self.path / "scores.parquet")

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
        record, features = self._store.record, self.features
        scores = read_result(self.path / "scores.parquet", ["q_score", "num_active"])
        q = scores["q_score"].to_numpy()
        num_images = self._store.num_images()
        return {
            "out": str(self.path),
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
                **{name: float(np.quantile(q, level)) for name, level in QUANTILES.items()},
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
