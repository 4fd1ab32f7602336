"""run_pair: a run to learn from and a run to ask about, of one encoder."""

from __future__ import annotations

import os

from qscore_fast.errors import SettingsError
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.record import differences
from qscore_fast.scoring.store import Store

Run = str | os.PathLike[str] | ScoreRun


def run_pair(train: Run, test: Run) -> tuple[ScoreRun, ScoreRun]:
    """Both, opened.

    Raises:
        SettingsError: they are of different encoders, or of images that were prepared in different ways.
        StoreError: one is not complete, or no run.
    """
    first, second = (run if isinstance(run, ScoreRun) else ScoreRun(run) for run in (train, test))
    if first.features.fingerprint != second.features.fingerprint:
        raise SettingsError(
            f"{first.path} and {second.path} are runs of different encoders: score both with the same one"
        )
    check_same_space(first, second)
    return first, second


def listed_images(run: ScoreRun) -> str:
    """The manifest's hash: the same for runs over the same images."""
    return str(Store(run.path).record.asked["source"]["manifest_hash"])


def check_same_space(run: ScoreRun, other: ScoreRun) -> None:
    """SettingsError unless two runs' vectors lie in one space: same encoder, same preparation of images."""
    mine, theirs = (Store(each.path).record.asked for each in (run, other))
    for what in ("encoder", "preprocess"):
        if mine[what] != theirs[what]:
            how = "; ".join(differences(mine[what], theirs[what]))
            raise SettingsError(
                f"{other.path} was scored with another {what} than {run.path} ({how}): give runs "
                "of the same one"
            )
