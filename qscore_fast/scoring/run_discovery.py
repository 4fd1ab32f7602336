"""``discover``: other discriminative features, and with them other scores, from a finished run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.discovery import DEFAULT_EPS, Discovery
from qscore_fast.scoring.finalise import (
    Eps,
    check_percentiles,
    discover_in_store,
    request_of,
    write_features,
    write_results,
)
from qscore_fast.scoring.scores_table import ScoresHeader
from qscore_fast.scoring.store import Store, locked


@dataclass(frozen=True)
class OwnDiscovery:
    """How the D that a run was scored with was chosen.

    Attributes:
        eps, lower, upper: as asked for; those of D itself where it was given to the run (``--features``),
            and 4, 50, 95 where the run holds no results yet.
        given: whether D was given, so that this run's images need not be those that it was chosen from.
    """

    eps: Eps = DEFAULT_EPS
    lower: float = 50
    upper: float = 95
    given: bool = False

    @classmethod
    def of(cls, store: Store) -> OwnDiscovery:
        """That of a run."""
        header = ScoresHeader.read(store.path / "scores.parquet")
        if header is None:
            return cls()
        if "features" not in header.request:
            return cls(**header.request)
        features = DiscriminativeFeatures.load(store.path / "features.npz")
        return cls(features.eps, features.lower, features.upper, True)


def discover(
    run_dir: str | os.PathLike[str],
    eps: Eps = None,
    lower: float | None = None,
    upper: float | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    write: bool = True,
    replace_given: bool = False,
    before_writing: Callable[[Discovery], None] = lambda _: None,
) -> Discovery:
    """Discover D again from a run's parts, at another eps or other percentiles; no image is touched.

    Args:
        run_dir: the folder of a complete run.
        eps: at least the run's activation_eps (2 by default); "auto": the largest on a 0.1 grid up to
            4 at which at most 1 % of the samples have no active discriminative feature; None: the run's
            own.
        lower, upper: percentiles of the activation percentage between which a feature is
            discriminative; None: the run's own.
        out: a file to write the features to. Without it they replace the run's features.npz, and
            scores.parquet is written again to match.
        write: False writes nothing at all, unless there is ``out``.
        replace_given: whether features that were given to the run (``--features``) may be replaced by those
            of its own images.
        before_writing: hears what was found; where it raises, nothing is written.

    Raises:
        SettingsError: features that were given to the run would be replaced, and nobody said that they may.
        QScoreError: no run, an incomplete or damaged one, or an eps that it cannot answer.
    """
    check_percentiles(0 if lower is None else lower, 100 if upper is None else upper)
    store = Store(run_dir)
    own = OwnDiscovery.of(store)
    eps = own.eps if eps is None else eps
    lower = own.lower if lower is None else lower
    upper = own.upper if upper is None else upper
    check_percentiles(lower, upper)
    if write and out is None and own.given and not replace_given:
        raise SettingsError(
            f"the run in {store.path} was scored with features that were given to it (--features): discovery "
            "would replace them, and every score, by those of its own images. Give a file to write them to "
            "(--out), or say that they may be replaced (--replace-given)"
        )
    with locked(store.path):
        store.check_complete()
        if not any(notes["num_scored"] for notes in store.part_notes()):
            raise QScoreError(f"the run in {store.path} scored no image: nothing to discover in")
        discovery = discover_in_store(store, eps=eps, lower=lower, upper=upper)
        before_writing(discovery)
        if out is not None:
            write_features(discovery.features, Path(out))
        elif write:
            request = request_of(None, eps, lower, upper)
            write_results(store, discovery.features, request, lambda _: discovery.notes())
    return discovery
