"""From a complete set of parts to features.npz, scores.parquet and errors.parquet."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qscore_fast.errors import QScoreError, SettingsError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.discovery import (
    DEFAULT_EPS,
    EMPTY_LIMIT,
    Discovery,
    discover_on_grid,
    empty_notes,
    features_at,
)
from qscore_fast.scoring.embeddings_overflow import overflow_notes
from qscore_fast.scoring.parts_digest import parts_digest
from qscore_fast.scoring.record import RunRecord, differences
from qscore_fast.scoring.scores_table import (
    ScoresHeader,
    Totals,
    errors_are_of,
    features_hash,
    is_intact,
    write_errors,
    write_scores,
)
from qscore_fast.scoring.store import Store

Eps = float | Literal["auto"] | None


def finalise(
    store: Store,
    *,
    features: DiscriminativeFeatures | None,
    eps: Eps,
    lower: float,
    upper: float,
    with_embeddings: bool = False,
) -> list[str]:
    """Write the results, unless the same request was answered before from the same parts, and the answer
    is still whole; return what to tell the user.

    Args:
        store: complete, and locked by the caller.
        features: D; None discovers it in this run's own parts.
        eps: for the discovery; None is 4, "auto" the largest that leaves at most 1 % empty.
        lower, upper: percentiles of the activation percentage, for the discovery.
        with_embeddings: read them all as well, by their checksums, for a caller who can make parts again.

    Raises:
        DamagedPartError: a part has to be made again. StoreError: the results cannot be written.
        QScoreError: no image was scored.
    """
    request = request_of(features, eps, lower, upper)
    # Before a part is read, so that what changes after that is noticed next time.
    parts = parts_digest(store)
    header = _answer(store, request, parts)
    if header is not None:
        return header.notes

    if with_embeddings:
        store.check_embeddings()
    write_errors(store, parts)
    if not any(notes["num_scored"] for notes in store.part_notes()):
        # Of images that could be scored once.
        (store.path / "scores.parquet").unlink(missing_ok=True)
        raise QScoreError(
            f"none of the {store.num_images()} images could be scored: "
            f"{store.path / 'errors.parquet'} says why"
        )
    if features is not None:
        notes = empty_notes(features)
        return write_results(store, features, request, lambda _: notes, parts)
    if eps == "auto":
        discovery = discover_in_store(store, eps=eps, lower=lower, upper=upper)
        return write_results(store, discovery.features, request, lambda _: discovery.notes(), parts)
    value = DEFAULT_EPS if eps is None else float(eps)
    (features,) = features_at(store, np.array([value]), lower, upper)
    found = Discovery(features, {}, None)

    def notes_on(empty_fraction: float) -> list[str]:
        if empty_fraction <= EMPTY_LIMIT:
            return replace(found, empty={value: empty_fraction}).notes()
        # Only now is it worth another look at the parts which eps would be better.
        return discover_on_grid(store, eps=value, lower=lower, upper=upper).notes()

    return write_results(store, features, request, notes_on, parts)


def discover_in_store(store: Store, *, eps: Eps, lower: float, upper: float) -> Discovery:
    """Census and D from a complete store, at any eps that its parts can answer."""
    check_eps(eps, store.record.asked["activation_eps"])
    value = DEFAULT_EPS if eps is None else None if eps == "auto" else float(eps)
    return discover_on_grid(store, eps=value, lower=lower, upper=upper)


def signed_notes(two_sided: bool, share_below_zero: float) -> list[str]:
    """What a user should know who scores features with signs on one side, one sentence."""
    # Far above what rounding leaves of features that end in a ReLU.
    if two_sided or share_below_zero <= 0.5e-3:
        return []
    share = f"{100 * share_below_zero:.3g} %"
    return [
        f"the encoder's features have signs ({share} of their absolute sum is below zero), and "
        "only those far above the mean were counted: two_sided (--two-sided) counts both sides, an "
        "extension beyond the paper"
    ]


def write_results(
    store: Store,
    features: DiscriminativeFeatures,
    request: dict[str, Any],
    notes_on: Callable[[float], list[str]] = lambda _: [],
    parts: str | None = None,
) -> list[str]:
    """errors.parquet, features.npz, then scores.parquet, which names what it was made of; all notes.

    Args:
        notes_on: the notes on D, given the share of the images that it leaves without an active feature.
        parts: their digest, if errors.parquet is written already.
    """
    if parts is None:
        parts = parts_digest(store)
        write_errors(store, parts)
    write_features(features, store.path / "features.npz")

    def header_of(totals: Totals) -> ScoresHeader:
        signed = signed_notes(store.record.asked["two_sided"], totals.share_below_zero)
        return ScoresHeader(
            run=store.record.key,
            request=request,
            eps=features.eps,
            features_hash=features_hash(features),
            encoder_fingerprint=store.record.asked["encoder"]["fingerprint"],
            notes=[*notes_on(totals.empty_fraction), *signed, *overflow_notes(store)],
            parts=parts,
        )

    return write_scores(store, features, header_of).notes


def write_features(features: DiscriminativeFeatures, path: Path) -> None:
    """Write D; StoreError if it cannot be written."""
    try:
        features.save(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def load_features(
    features: DiscriminativeFeatures | str | os.PathLike[str],
    fingerprint: str,
    num_features: int,
    preprocess: dict[str, Any] | None = None,
) -> DiscriminativeFeatures:
    """D as given, or from a features.npz or the folder of a run, checked against the encoder.

    Args:
        preprocess: how images will be prepared, as in a run's record; that of a run must be the same. A
            features.npz does not say how its images were.

    Raises:
        QScoreError: missing or unreadable. SettingsError: of another encoder or preprocessing.
    """
    name = "the features"
    if not isinstance(features, DiscriminativeFeatures):
        path = Path(features)
        if preprocess is not None and (path / "run.json").exists():
            found = RunRecord.read(path / "run.json").asked["preprocess"]
            if found != preprocess:
                how = "; ".join(differences(found, preprocess))
                raise SettingsError(
                    f"the features of {path} were discovered with another preprocess ({how}): prepare images "
                    "as that run did, or give the file features.npz itself, which is not checked for it"
                )
        path = path / "features.npz" if path.is_dir() else path
        name = str(path)
        features = DiscriminativeFeatures.load(path)
    if features.mask.numel() != num_features:
        raise SettingsError(
            f"{name} are of {features.mask.numel()} features, the encoder has {num_features}"
        )
    if features.fingerprint not in (None, fingerprint):
        raise SettingsError(
            f"{name} were discovered with another encoder (fingerprint "
            f"{features.fingerprint:.12}..., this one is {fingerprint:.12}...): "
            "discover them again with this one"
        )
    return replace(features, fingerprint=fingerprint)


def check_eps(eps: Eps, activation_eps: float) -> None:
    """SettingsError unless the parts can answer for this eps; "auto" looks at eps up to 4."""
    value = DEFAULT_EPS if eps in (None, "auto") else eps
    if isinstance(value, str) or not math.isfinite(value):
        raise SettingsError(f'eps must be a number or "auto", got {eps!r}')
    if value < activation_eps:
        raise SettingsError(
            f"eps = {value:g} is below the run's activation_eps = {activation_eps:g}, under which "
            "activations are not kept: score again with a smaller activation_eps "
            "(--activation-eps), or take a larger eps"
        )


def check_percentiles(lower: float, upper: float) -> None:
    """SettingsError unless 0 <= lower <= upper <= 100."""
    if not 0 <= lower <= upper <= 100:
        raise SettingsError(
            f"lower and upper must be percentiles, 0 <= lower <= upper <= 100; got {lower}, {upper}"
        )


def request_of(
    features: DiscriminativeFeatures | None, eps: Eps, lower: float, upper: float
) -> dict[str, Any]:
    """How eps and D were asked for, as JSON."""
    if features is not None:
        return {"features": features_hash(features)}
    value = DEFAULT_EPS if eps is None else eps
    return {
        "eps": value if isinstance(value, str) else float(value),
        "lower": float(lower),
        "upper": float(upper),
    }


def _answer(store: Store, request: dict[str, Any], parts: str) -> ScoresHeader | None:
    """The header of the scores that are there, if they and all beside them are what would be written."""
    path = store.path / "scores.parquet"
    header = ScoresHeader.read(path)
    asked = ScoresHeader(store.record.key, request, 0, "", "", [], parts)
    fields = ("run", "request", "parts", "version")
    if header is None or any(getattr(header, f) != getattr(asked, f) for f in fields):
        return None
    whole = (
        _hash_on_disk(store) == header.features_hash
        and errors_are_of(store.path / "errors.parquet", parts)
        and is_intact(path)
    )
    return header if whole else None


def _hash_on_disk(store: Store) -> str | None:
    """None for a file that is missing or damaged, in whatever way: it will be written again."""
    try:
        return features_hash(DiscriminativeFeatures.load(store.path / "features.npz"))
    except QScoreError:
        return None
