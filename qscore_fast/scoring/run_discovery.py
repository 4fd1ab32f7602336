"""``discover``: other discriminative features, and with them other scores, from a finished run."""

from __future__ import annotations

import os
from pathlib import Path

from qscore_fast.errors import QScoreError
from qscore_fast.scoring.discovery import Discovery
from qscore_fast.scoring.finalise import (
    Eps,
    check_percentiles,
    discover_in_store,
    request_of,
    write_features,
    write_results,
)
from qscore_fast.scoring.store import Store, locked


def discover(
    run_dir: str | os.PathLike[str],
    eps: Eps = 4.0,
    lower: float = 50,
    upper: float = 95,
    out: str | os.PathLike[str] | None = None,
) -> Discovery:
    """Discover D again from a run's parts, at another eps or other percentiles; no image is touched.

    Args:
        run_dir: the folder of a complete run.
        eps: at least the run's activation_eps (2 by default); "auto": the largest on a 0.1 grid up to
            4 at which at most 1 % of the samples have no active discriminative feature.
        lower, upper: percentiles of the activation percentage between which a feature is
            discriminative.
        out: a file to write the features to. Without it they replace the run's features.npz, and
            scores.parquet is written again to match.

    Raises:
        QScoreError: no run, an incomplete or damaged one, or an eps that it cannot answer.
    """
    check_percentiles(lower, upper)
    store = Store(run_dir)
    with locked(store.path):
        store.check_complete()
        if not any(notes["num_scored"] for notes in store.part_notes()):
            raise QScoreError(f"the run in {store.path} scored no image: nothing to discover in")
        discovery = discover_in_store(store, eps=eps, lower=lower, upper=upper)
        if out is not None:
            write_features(discovery.features, Path(out))
        else:
            request = request_of(None, eps, lower, upper)
            write_results(store, discovery.features, request, lambda _: discovery.notes())
    return discovery
