"""ProbeData: what a probe is trained on and asked about, from two runs and their labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor
from qscore_fast.evaluation.finite_rows import FiniteRows
from qscore_fast.evaluation.fit_for_probes import check_two_classes, few_rows_notes
from qscore_fast.evaluation.run_pair import Run, run_pair
from qscore_fast.evaluation.sample_file import ID

BLOCK = 8192


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Rows, classes, and whose they are.

    Attributes:
        rows: (N, r) of the training images. targets: (N,) int64.
        test_rows: (n, r). test_targets: (n,) int64. sample_ids: (n,) of the test images.
        classes: the C names. fingerprint: of the encoder.
        test_path: of the test run, for messages. notes: what a user should know.
    """

    rows: FeatureRows
    targets: np.ndarray
    test_rows: FeatureRows
    test_targets: np.ndarray
    sample_ids: pa.Array
    classes: tuple[str, ...]
    fingerprint: str | None
    test_path: Path
    notes: tuple[str, ...]

    @classmethod
    def of_runs(
        cls,
        train: Run,
        test: Run,
        labels: str | os.PathLike[str] | None = None,
        test_labels: str | os.PathLike[str] | None = None,
        *,
        finite_only: bool = False,
    ) -> ProbeData:
        """From two finished runs with embeddings.

        Args:
            labels, test_labels: files with sample_id and label, where a run has no labels of its own.
            finite_only: leave images with NaN or Inf out instead of refusing their run.

        Raises:
            SettingsError: other encoders or preprocessing, one class only, labels that are missing or unknown
                to the training images, NaN or Inf.
            StoreError: a run is not complete, or has no embeddings.
        """
        train, test = run_pair(train, test)
        known = ClassLabels.of_run(train, labels)
        check_two_classes(known)
        wanted = ClassLabels.of_run(test, test_labels, known.classes)
        found, asked = (FiniteRows.of(run, finite_only=finite_only) for run in (train, test))
        known, wanted = found.labels(known), asked.labels(wanted)
        check_two_classes(known)
        return cls(
            found.rows,
            known.targets,
            asked.rows,
            wanted.targets,
            asked.take(test.scores()[ID].combine_chunks()),
            known.classes,
            train.features.fingerprint,
            Path(test.path),
            (*few_rows_notes(found.rows), *found.notes, *asked.notes),
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    def test_logits(
        self, logits: Callable[[Tensor], Tensor], device: str | torch.device
    ) -> np.ndarray:
        """(n, C) float32 of a probe on the test rows.

        Raises:
            SettingsError: the probe answers with NaN or Inf.
        """
        parts = []
        for block in self.test_rows.blocks(BLOCK):
            rows = as_tensor(block).to(device).float()
            parts.append(logits(rows).cpu())
        found = torch.cat(parts).numpy()
        if not np.isfinite(found).all():
            raise SettingsError(
                f"the probe's logits for {self.test_path} hold NaN or Inf: its representations are far "
                "larger than those that it was trained on"
            )
        return found
