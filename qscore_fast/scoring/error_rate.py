"""How many of a run's images are bad, and why; when that is too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import ErrorRateError
from qscore_fast.scoring.atomic import replacing
from qscore_fast.scoring.scores_table import ERRORS
from qscore_fast.scoring.store import Store
from qscore_fast.scoring.unit_rows import Failure

FEWEST_TO_JUDGE = 100
"""From so many images on, the share of bad ones can stop a run."""
MOST_REASONS = 1000
"""So many are told apart; an error may carry a number of its own for each image."""


class ErrorTally:
    """Errors by their reason, each with the first image that had it.

    Attributes:
        failed: how many images have one.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, failures: Iterable[Failure]) -> None:
        """Count some more."""
        for failure in failures:
            self.failed += 1
            reason = failure["error"]
            if reason in self._examples or len(self._examples) < MOST_REASONS:
                self._reasons[reason] += 1
                self._examples.setdefault(reason, failure["sample_id"])

    def check(self, num_images: int, limit: float | None, table: Path) -> None:
        """ErrorRateError if more than ``limit`` of the images have an error.

        Args:
            table: where they are listed.
        """
        if limit is None or self.failed <= limit * num_images:
            return
        reasons = "; ".join(
            f"{count:,} times: {reason}, as in {self._examples[reason]}"
            for reason, count in self._reasons.most_common(3)
        )
        raise ErrorRateError(
            f"{self.failed:,} of {num_images:,} images are bad, {100 * self.failed / num_images:.1f} %, "
            f"more than max_error_rate = {limit:g} allows ({reasons}); {table} lists those that are known; "
            "finished parts stay: mend the source, or go on with a higher max_error_rate "
            "(--max-error-rate)"
        )


def write_known_errors(store: Store, unfinished: Iterable[Failure], table: Path) -> None:
    """Write errors.parquet of a run that is not complete: the errors of its parts, then ``unfinished``.

    It does not say of which parts it is, so that a complete run never takes it for its own.
    """
    with (
        replacing(table) as temporary,
        pq.ParquetWriter(temporary, ERRORS, write_page_checksum=True) as writer,
    ):
        for failures in (*_of_parts(store), list(unfinished)):
            if failures:
                writer.write_table(pa.Table.from_pylist(failures, schema=ERRORS))


def _of_parts(store: Store) -> Iterator[list[Failure]]:
    for index in range(store.record.num_units):
        try:
            if store.part_path(index).exists():
                notes = json.loads(store.part_path(index, ".json").read_text(encoding="utf-8"))
                yield notes["errors"]
        except (OSError, ValueError, KeyError):  # a damaged part will be done again
            continue
