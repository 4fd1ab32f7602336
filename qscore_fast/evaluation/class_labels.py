"""ClassLabels: the class of every scored image of a run, as numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_names import plain_numbers
from qscore_fast.evaluation.sample_file import ID, check_ids, read_samples, some_of, text_of
from qscore_fast.scoring import ScoreRun


@dataclass(frozen=True, eq=False)
class ClassLabels:
    """Classes by number.

    Attributes:
        targets: (n,) int64 from 0 to C - 1, in the order of the run's scores.
        classes: the C names; by default all that occur, sorted as text.
    """

    targets: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    @classmethod
    def of_names(
        cls, names: pa.Array | Sequence[str], classes: Sequence[str] | None = None
    ) -> ClassLabels:
        """From one name a sample.

        Args:
            classes: number by this list, such as that of the training set, instead of by all that occur. A
                name that is not in it may be one of its numbers in another form: 3.0 or 03 for 3.

        Raises:
            SettingsError: a name that is not in ``classes``, or no name where there must be one.
        """
        values = pa.array(names, pa.string()) if not isinstance(names, pa.Array) else names
        if values.null_count:
            raise SettingsError(
                f"{values.null_count:,} of {len(values):,} samples have no label: score class folders, or "
                "give a file of labels"
            )
        chosen = sorted(pc.unique(values).to_pylist()) if classes is None else list(classes)
        known = pa.array(chosen, pa.string())
        numbers = pc.index_in(values, value_set=known)
        if numbers.null_count:
            plain, plain_known = plain_numbers(values, known)
            numbers = pc.coalesce(numbers, pc.index_in(plain, value_set=plain_known))
        if numbers.null_count:
            unknown = pc.unique(values.filter(pc.is_null(numbers))).to_pylist()
            raise SettingsError(
                f"{len(unknown):,} labels are none of the {len(chosen):,} classes: {some_of(unknown)}"
            )
        return cls(numbers.to_numpy().astype(np.int64), tuple(chosen))

    @classmethod
    def of_run(
        cls,
        run: ScoreRun,
        file: str | os.PathLike[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> ClassLabels:
        """Those of the scored images, in the order of ``run.scores()``.

        Args:
            file: Parquet or CSV with sample_id and label; by default the labels of the run itself, which are
                those of its source. It may hold other samples as well.
            classes: see :meth:`of_names`.

        Raises:
            SettingsError: samples without a label, an id that occurs twice, an unknown class.
        """
        table = run.scores()
        if file is None:
            return cls.of_names(text_of(table["label"]), classes)
        path = Path(file)
        rows = read_samples(path)
        if ID not in rows.column_names or "label" not in rows.column_names:
            raise SettingsError(
                f"{path} has the columns {', '.join(rows.column_names)}: it needs {ID} and label"
            )
        ids = text_of(rows[ID])
        check_ids(path, ids)
        scored = text_of(table[ID])
        names = text_of(rows["label"]).take(pc.index_in(scored, value_set=ids))
        if names.null_count:
            missing = scored.filter(pc.is_null(names))
            raise SettingsError(
                f"{path} has no label for {len(missing):,} of {len(scored):,} scored samples, such as "
                f"{some_of(missing)}: add them"
            )
        return cls.of_names(names, classes)
