"""FiniteRows: the representations of a run without NaN and Inf, and the error for those with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.sample_file import ID, some_of
from qscore_fast.scoring import ScoreRun

BLOCK = 8192
T = TypeVar("T", np.ndarray, pa.Array)


@dataclass(frozen=True, eq=False)
class FiniteRows:
    """What of a run's representations can be computed with.

    Attributes:
        rows: (n, r), all finite.
        kept: (N,) bool over the scored images, n of them True; None where nothing was left out.
        notes: what was left out, one sentence.
    """

    rows: FeatureRows
    kept: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: ScoreRun, *, finite_only: bool = False) -> FiniteRows:
        """Those of a finished run; its embeddings are read once.

        Args:
            finite_only: leave images with NaN or Inf out instead of refusing the run.

        Raises:
            SettingsError: NaN or Inf in some rows, or, with ``finite_only``, in all.
            StoreError: no embeddings.
        """
        rows = FeatureRows.of(run)
        finite = finite_mask(rows)
        if finite.all():
            return cls(rows)
        if not finite_only or not finite.any():
            raise non_finite(run, finite, "leave such images out (--finite-only)")
        return cls(rows.where(finite), finite, (left_out(run, finite),))

    def take(self, values: T) -> T:
        """Of one value a scored image (N,) those of the rows (n,)."""
        if self.kept is None:
            return values
        if isinstance(values, np.ndarray):
            return values[self.kept]
        return values.filter(pa.array(self.kept))

    def labels(self, labels: ClassLabels) -> ClassLabels:
        """The labels of the rows; classes stay, also where none of their images is left."""
        return ClassLabels(self.take(labels.targets), labels.classes)


def finite_mask(rows: FeatureRows) -> np.ndarray:
    """(N,) bool: the rows without NaN or Inf."""
    return np.concatenate([np.isfinite(block).all(1) for block in rows.blocks(BLOCK)])


def left_out(run: ScoreRun, finite: np.ndarray) -> str:
    """The note on the images of a run that are not ``finite`` (n,)."""
    return f"{(~finite).sum():,} of {len(finite):,} images of {run.path} hold NaN or Inf and are left out"


def non_finite(run: ScoreRun, finite: np.ndarray, remedy: str) -> SettingsError:
    """The error for the scored images of a run that are not ``finite`` (N,)."""
    bad = run.scores()[ID].combine_chunks().filter(pa.array(~finite))
    return SettingsError(
        f"{len(bad):,} of {len(finite):,} representations of {run.path} hold NaN or Inf, those of "
        f"{some_of(bad)}: {remedy}, or score them again"
    )
