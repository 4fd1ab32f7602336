"""run_pair: a run to learn from and a run to ask about, of one encoder."""

from __future__ import annotations

import os

from qscore_fast.errors import SettingsError
from qscore_fast.scoring import ScoreRun

Run = str | os.PathLike[str] | ScoreRun


def run_pair(train: Run, test: Run) -> tuple[ScoreRun, ScoreRun]:
    """Both, opened.

    Raises:
        SettingsError: they are of different encoders.
        StoreError: one is not complete, or no run.
    """
    first, second = (run if isinstance(run, ScoreRun) else ScoreRun(run) for run in (train, test))
    if first.features.fingerprint != second.features.fingerprint:
        raise SettingsError(
            f"{first.path} and {second.path} are runs of different encoders: score both with the same one"
        )
    return first, second
