"""How many of a run's images are bad, and why; when that is too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from qscore_fast.errors import ErrorRateError
from qscore_fast.scoring.scores_table import write_error_rows
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
    """Write errors.parquet of a run that is not complete: the errors of its parts, then ``unfinished``."""
    write_error_rows(table, [*_of_parts(store), list(unfinished)], None)


def _of_parts(store: Store) -> Iterator[list[Failure]]:
    for index in range(store.record.num_units):
        if store.part_path(index).exists() and (notes := store.notes_or_none(index)):
            yield notes["errors"]
