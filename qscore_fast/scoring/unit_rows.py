"""The rows of one unit, from the results of its batches to a part."""

from __future__ import annotations

import numpy as np

from qscore_fast.scoring.encoding_lane import EncodedBatch
from qscore_fast.scoring.part import NON_FINITE, OK, UNDECODABLE, PartRows

Failure = dict[str, str]
"""Of an image without a score: sample_id, stage, error."""


class UnitRows:
    """The rows of one unit while they are filled."""

    def __init__(self, num_features: int, keep_embeddings: bool) -> None:
        self._ids: list[str] = []
        self._labels: list[str | None] = []
        self._status: list[str] = []
        self._stats: list[tuple[list[int], np.ndarray]] = []
        self._lengths: list[tuple[list[int], np.ndarray]] = []
        index = np.uint16 if num_features <= 2**16 else np.uint32
        self._feature = [np.empty(0, index)]
        self._value = [np.empty(0, np.float32)]
        self._embeddings = [np.empty((0, num_features), np.float16)] if keep_embeddings else []
        self._errors: list[tuple[int, Failure]] = []

    def start(self, sample_id: str, label: str | None) -> int:
        """The next row, for this sample."""
        self._ids.append(sample_id)
        self._labels.append(label)
        self._status.append(OK)
        return len(self._ids) - 1

    def fail(self, row: int, status: str, stage: str, reason: str) -> Failure:
        """Record that a row has no score."""
        self._status[row] = status
        failure = {"sample_id": self._ids[row], "stage": stage, "error": reason}
        self._errors.append((row, failure))
        return failure

    def add(self, batch: EncodedBatch) -> list[Failure]:
        """Keep what is finite of a batch's results; the failures that they show."""
        failures = [
            self.fail(row, UNDECODABLE, error.stage, str(error)) for row, error in batch.undecodable
        ]
        if not batch.rows:
            return failures
        # The standard deviation of a single feature is undefined; that makes the image no failure.
        mean, _, l1, l2 = batch.stats.T
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(mean + l1 + l2)
        failures += [
            self.fail(row, NON_FINITE, "encode", "the encoder's features are not all finite")
            for row, good in zip(batch.rows, finite, strict=True)
            if not good
        ]
        kept = np.repeat(finite, batch.lengths)
        self._stats.append((batch.rows, batch.stats))
        self._lengths.append((batch.rows, np.where(finite, batch.lengths, 0)))
        self._feature.append(batch.feature[kept].astype(self._feature[0].dtype))
        self._value.append(batch.value[kept])
        if batch.embeddings is not None:
            self._embeddings.append(batch.embeddings[finite])
        return failures

    def finish(self) -> PartRows:
        return PartRows(
            sample_ids=self._ids,
            labels=self._labels,
            status=self._status,
            stats=_filled(self._stats, np.zeros((len(self._ids), 4), np.float32)),
            lengths=_filled(self._lengths, np.zeros(len(self._ids), np.int32)),
            feature=np.concatenate(self._feature),
            value=np.concatenate(self._value),
            embeddings=np.concatenate(self._embeddings) if self._embeddings else None,
            errors=[failure for _, failure in sorted(self._errors, key=lambda pair: pair[0])],
        )


def _filled(chunks: list[tuple[list[int], np.ndarray]], rows: np.ndarray) -> np.ndarray:
    for indices, values in chunks:
        rows[indices] = values
    return rows
