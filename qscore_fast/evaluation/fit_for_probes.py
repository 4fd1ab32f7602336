"""Whether representations and labels allow a probe, and what a reader of its accuracy should know."""

from __future__ import annotations

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.feature_rows import FeatureRows


def check_two_classes(labels: ClassLabels) -> None:
    """SettingsError if all samples are of one class."""
    there = np.unique(labels.targets)
    if len(there) < 2:
        raise SettingsError(
            f"all samples are of class {labels.classes[int(there[0])]!r}: a probe needs two"
        )


def few_rows_notes(train: FeatureRows) -> list[str]:
    """A sentence where there are fewer training rows than features."""
    if len(train) >= train.num_features:
        return []
    return [
        f"{len(train):,} training images are fewer than the {train.num_features:,} features: the "
        "accuracy says more about the regularisation than about the encoder"
    ]
