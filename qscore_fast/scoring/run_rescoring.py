"""``rescore``: every score of a finished run again, with other features, eps or percentiles."""

from __future__ import annotations

import os

from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.finalise import (
    Eps,
    check_eps,
    check_percentiles,
    finalise,
    load_features,
)
from qscore_fast.scoring.score_run import ScoreRun
from qscore_fast.scoring.store import Store, locked


def rescore(
    run_dir: str | os.PathLike[str],
    features: DiscriminativeFeatures | str | os.PathLike[str] | None = None,
    *,
    eps: Eps = None,
    lower: float = 50,
    upper: float = 95,
) -> ScoreRun:
    """Write features.npz, scores.parquet and errors.parquet of a complete run again, from its parts alone:
    no image is touched.

    Args:
        run_dir: the folder of the run.
        features: D, as an object, a features.npz or the folder of a run, discovered with the same encoder
            and the same sides. None discovers it in this run's parts.
        eps: at least the run's activation_eps; None is that of ``features``, otherwise 4; "auto" as in
            ``score``.
        lower, upper: percentiles for the discovery.

    Raises:
        QScoreError: no run, an incomplete or damaged one, or a request that it cannot answer.
    """
    check_percentiles(lower, upper)
    store = Store(run_dir)
    asked = store.record.asked
    if features is not None:
        space = asked["encoder"]
        features = load_features(
            features, space["fingerprint"], space["num_features"], asked["preprocess"]
        )
        if features.two_sided != asked["two_sided"]:
            raise SettingsError(
                f"the features were discovered with two_sided = {features.two_sided}, the run in "
                f"{store.path} was made with two_sided = {asked['two_sided']}"
            )
        if eps not in (None, features.eps):
            raise SettingsError(
                f"eps = {eps} contradicts the features, which were discovered at {features.eps:g}: "
                "leave eps out"
            )
        eps = features.eps
    check_eps(eps, asked["activation_eps"])
    with locked(store.path):
        store.check_complete()
        finalise(store, features=features, eps=eps, lower=lower, upper=upper)
    return ScoreRun(run_dir)
