"""measure_run: every dataset-level measure of a scored store or of arrays, in one pass and a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import as_tensor
from qscore_fast.evaluation.joined_views import JoinedViews
from qscore_fast.evaluation.measures import directional, spectral
from qscore_fast.evaluation.measures.alignment import Alignment
from qscore_fast.evaluation.measures.cluster_learnability import clid_measures
from qscore_fast.evaluation.measures.coherence import Coherence
from qscore_fast.evaluation.measures.lidar import DELTA, LiDAR
from qscore_fast.evaluation.measures.measure_report import MeasureReport
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.norm_measures import measures_of_norms
from qscore_fast.evaluation.measures.row_blocks import Array
from qscore_fast.evaluation.measures.row_sample import MAX_ROWS, RowSample
from qscore_fast.evaluation.measures.uniformity import uniformity
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.store import Store

Run = str | os.PathLike[str] | ScoreRun
Opened = ScoreRun | Array | Iterable[Array]
Source = str | os.PathLike[str] | Opened


def measure_run(
    source: Source,
    *,
    views: Iterable[Array] | Sequence[Run] | None = None,
    clid: bool = False,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    eps: float = 0.0,
    fit: tuple[int, int] = (10, 99),
    delta: float = DELTA,
    device: str | torch.device | None = None,
) -> MeasureReport:
    """All measures of docs/measures.md over a population of representations.

    One pass keeps moments and a sample of rows; coherence reads the rows once more, and is undefined where
    the arrays come from an iterator. Memory is O(r^2) and ``max_rows`` rows, whatever N is.

    Args:
        source: the folder of a run that was scored with embeddings, its ScoreRun, one array (n, r), or an
            iterable of such arrays, all of one r; tensors or NumPy arrays.
        views: for ``lidar`` and ``alignment``: arrays (n, q, r) of q >= 2 augmented views of each sample. Or,
            where ``source`` is a run, runs of other views of its images (``--view``), joined on the sample
            id; the run itself is one of the views then. Images that a view lacks are left out of these two
            measures, and a note counts them.
        clid: whether to add ``cluster_learnability``, ``intrinsic_dimension`` and ``clid`` of the sample,
            which takes scikit-learn.
        max_rows: rows in the sample that uniformity and CLID are made from; they are exact up to that.
        seed: of the sample and of CLID.
        eps: of RankMe.
        fit: first and last eigenvalue of alpha-ReQ, from 0.
        delta: of LiDAR.
        device: where to sum; by default where the arrays are.

    Raises:
        StoreError: no complete run there; or one without embeddings, and ``clid`` or ``views`` are asked for:
            otherwise such a run has what its norms give (``measures_of_norms``).
        SettingsError: no arrays, shapes that differ in r, or views that are not of the run's images.
        MissingExtraError: ``clid`` without scikit-learn.
    """
    given = ScoreRun(source) if isinstance(source, str | os.PathLike) else source
    if isinstance(given, ScoreRun) and views is None and not clid and not _has_embeddings(given):
        return measures_of_norms(given)
    joined = _joined(given, views)
    parts, again = _parts(given)
    moments: RepresentationMoments | None = None
    sample: RowSample | None = None
    for part in parts():
        if moments is None or sample is None:
            num_features = _num_features(part)
            moments = RepresentationMoments(num_features, device=device)
            sample = RowSample(num_features, max_rows, seed)
        moments.update(part)
        sample.update(part)
    if moments is None or sample is None:
        raise SettingsError("source holds no arrays; pass one array (n, r) or more")

    if again:
        coherence = _coherence(moments, parts())
    else:
        coherence = Measured.undefined(
            "it takes a second pass and an iterator gives one: pass a list, or a run's folder"
        )
    measures = {
        "rankme": spectral.rank_me(moments, eps),
        "effective_rank": spectral.effective_rank(moments),
        "alpha_req": spectral.alpha_req(moments, fit),
        "nesum": spectral.nesum(moments),
        "stable_rank": spectral.stable_rank(moments),
        "participation_ratio": spectral.participation_ratio(moments),
        "participation_ratio_corrected": spectral.participation_ratio_corrected(moments),
        "anisotropy": spectral.anisotropy(moments),
        "pseudo_condition": spectral.pseudo_condition(moments),
        "coherence": coherence,
        "self_clustering": directional.self_clustering(moments),
        "uniformity": uniformity(sample),
        "normalised_std": directional.normalised_std(moments),
        "sparsity_l0": directional.sparsity_l0(moments),
        "sparsity_l1": directional.sparsity_l1(moments),
    }
    notes = _notes(moments)
    if joined is not None:
        measures.update(_of_views(joined.blocks(), moments.num_features, delta, device))
        notes += joined.notes()
    elif views is not None:
        measures.update(_of_views(_arrays(views), moments.num_features, delta, device))
    if clid:
        measures.update(clid_measures(sample, seed))
    return MeasureReport(
        num_samples=moments.num_samples,
        num_features=moments.num_features,
        num_zero=moments.num_zero,
        num_invalid=moments.num_invalid,
        measures=measures,
        passes=1 + again,
        notes=notes,
    )


def _has_embeddings(run: ScoreRun) -> bool:
    return Store(run.path).record.asked["embeddings"] != "none"


def _joined(source: Source, views: Iterable[Array] | Sequence[Run] | None) -> JoinedViews | None:
    """Runs of views, joined with that of the images; None where views are arrays, or there are none."""
    if not isinstance(views, list | tuple) or not any(_is_run(view) for view in views):
        return None
    if not isinstance(source, ScoreRun) or not all(_is_run(view) for view in views):
        raise SettingsError("views are runs where the source is a run, otherwise arrays (n, q, r)")
    return JoinedViews.of(source, views)


def _is_run(view: object) -> bool:
    return isinstance(view, str | os.PathLike | ScoreRun)


def _arrays(views: Iterable[Array] | Sequence[Run]) -> Iterator[Array]:
    for view in views:
        if not isinstance(view, torch.Tensor | np.ndarray):
            raise SettingsError(f"a view is a {type(view).__name__}: give arrays (n, q, r)")
        yield view


def _parts(source: Opened) -> tuple[Callable[[], Iterable[Array]], bool]:
    """What gives the arrays, and whether it can give them twice."""
    if isinstance(source, ScoreRun):
        return source.iter_embeddings, True
    if isinstance(source, torch.Tensor | np.ndarray):
        array = source
        return lambda: (array,), True
    arrays = source
    return lambda: arrays, iter(arrays) is not arrays


def _num_features(part: Array) -> int:
    if not isinstance(part, torch.Tensor | np.ndarray) or part.ndim != 2 or not part.shape[1]:
        shape = tuple(part.shape) if hasattr(part, "shape") else type(part).__name__
        raise SettingsError(f"an array of source has shape {shape}; pass (n, r), r of 1 or more")
    return int(part.shape[1])


def _coherence(moments: RepresentationMoments, parts: Iterable[Array]) -> Measured:
    coherence = Coherence(moments)
    for part in parts:
        coherence.update(part)
    return coherence.compute()


def _of_views(
    views: Iterable[Array], num_features: int, delta: float, device: str | torch.device | None
) -> dict[str, Measured]:
    lidar, alignment = LiDAR(num_features, delta), Alignment(num_features)
    for batch in views:
        if device is not None:
            batch = (as_tensor(batch) if isinstance(batch, np.ndarray) else batch).to(device)
        lidar.update(batch)
        alignment.update_views(batch)
    return {"lidar": lidar.compute(), "alignment": alignment.compute()}


def _notes(moments: RepresentationMoments) -> list[str]:
    notes = []
    n, r = moments.num_samples, moments.num_features
    if moments.num_invalid:
        notes.append(
            f"{moments.num_invalid:,} rows hold NaN, Inf or huge entries and are left out of all measures"
        )
    if moments.num_zero:
        notes.append(
            f"{moments.num_zero:,} rows are zero: they have no direction and are left out of "
            "self-clustering, uniformity, normalised std and the l1 sparsity"
        )
    if notes_on_rank := _rank_note(moments):
        notes.append(notes_on_rank)
    if 0 < n < r:
        notes.append(
            f"there are fewer samples ({n:,}) than features ({r:,}): every rank is bounded by the samples, "
            "and coherence says nothing"
        )
    return notes


def _rank_note(moments: RepresentationMoments) -> str | None:
    """Why pseudo_condition is 0 where the rows are not all alike; None where it is not 0, or they are."""
    spectrum = moments.spectrum(centred=False)
    if not 1 < spectrum.rank < len(spectrum.values):
        return None
    dead = int((moments.rows.uncentred.diagonal() == 0).sum())
    why = f" ({dead:,} features are 0 in every row)" if dead else ""
    return (
        f"the rows have rank {spectrum.rank:,} of {len(spectrum.values):,}{why}, so pseudo_condition is 0 "
        f"whatever the others are: their smallest singular value is {spectrum.smallest_ratio:.3g} times the "
        "largest"
    )
