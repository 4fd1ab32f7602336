"""The scores of every image of a finished run, from its store, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.gaussian import Gaussian
from qscore_fast.evaluation.failure.neighbours import neighbour_scores
from qscore_fast.evaluation.failure.row_scores import gini, hoyer, v1_score
from qscore_fast.evaluation.failure.view_consistency import consistency
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor
from qscore_fast.evaluation.finite_rows import FiniteRows, finite_mask, non_finite
from qscore_fast.evaluation.joined_views import JoinedViews
from qscore_fast.evaluation.knn import nearest
from qscore_fast.evaluation.run_pair import check_same_space, listed_images
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.part import STATS, Part
from qscore_fast.scoring.store import Store

BLOCK = 4096


@dataclass(frozen=True)
class RivalSettings:
    """The parameters of the scores that have some.

    Attributes:
        k: neighbours of kNN distance and density.
        regularisation: of Mahalanobis, as a multiple of the mean variance.
        explained: the share of the variance that PCA keeps.
        device: where distances and covariances are computed.
    """

    k: int = 10
    regularisation: float = 1e-6
    explained: float = 0.9
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        """SettingsError for a value out of range."""
        if self.k < 1:
            raise SettingsError(f"k = {self.k}: give a positive number of neighbours")
        if not self.regularisation >= 0:
            raise SettingsError(f"regularisation = {self.regularisation:g}: give 0 or more")
        if not 0 < self.explained < 1:
            raise SettingsError(
                f"explained = {self.explained:g}: give a share of the variance, in (0, 1)"
            )
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).split("\n")[0]
            raise SettingsError(
                f"device = {self.device} cannot be used ({reason}): give cpu, cuda or cuda:1"
            ) from error


@dataclass(frozen=True)
class RunScores:
    """What a run's store can say.

    Attributes:
        scores: (n,) by name, in the order of ``ScoreRun.scores()``; higher means more trusted. NaN where
            ``finite`` is False and, for ``consistency``, for an image that a view lacks.
        notes: what was left out, and why.
        finite: (n,) bool, the images whose embeddings hold no NaN or Inf; None where the run has no
            embeddings.
    """

    scores: dict[str, np.ndarray]
    notes: list[str]
    finite: np.ndarray | None = None


def scores_of_run(
    run: ScoreRun,
    *,
    reference: ScoreRun | None = None,
    views: Sequence[ScoreRun] = (),
    settings: RivalSettings | None = None,
    evaluated: np.ndarray | None = None,
    finite_only: bool = False,
) -> RunScores:
    """Every score of :data:`RIVALS` that the run's store allows, without labels.

    Beside the results, memory holds one block of embeddings, one of the reference set, and a covariance.
    What needs embeddings is left out, with a note, where the run has none.

    Args:
        reference: the run of the reference set, of the same encoder, such as the training images; by
            default the run itself, each image without itself among its neighbours.
        views: runs of other views of the same images by the same encoder.
        settings: parameters.
        evaluated: (m,) the rows of ``run.scores()`` that matter; all by default. Elsewhere an embedding may
            hold NaN or Inf: it has NaN for a score, and is nobody's neighbour. Such embeddings of
            ``reference`` are left out, with a note.
        finite_only: take such embeddings among those that matter, too, instead of refusing the run.

    Raises:
        SettingsError: runs of different encoders or images, NaN or Inf in what is evaluated (with
            ``finite_only``, in all of it), or a setting out of range.
        StoreError: a run's file is missing or damaged.
    """
    settings = settings or RivalSettings()
    store = Store(run.path)
    for other in (*([reference] if reference else []), *views):
        check_same_space(run, other)
    table = run.scores()
    if len(table) == 0:
        raise SettingsError(f"the run in {run.path} has no scored images: there is nothing to rank")
    num_features = store.record.asked["encoder"]["num_features"]
    l1, l2 = (_tensor(table, name) for name in ("l1", "l2"))
    max_z, max_activation, num_bounded = _activations(store)
    found = {
        "q_score": _tensor(table, "q_score"),
        "v1_score": v1_score(max_z, l1, l2),
        "l1_norm": l1,
        "l2_norm": l2,
        "max_z": max_z,
        "max_activation": max_activation,
        "num_active": _tensor(table, "num_active"),
        "num_highly_active": _tensor(table, "num_highly_active"),
        "hoyer": hoyer(l1, l2, num_features),
    }
    notes, finite = [], None
    if num_bounded:
        notes.append(
            f"{num_bounded:,} images have no activation above the run's activation_eps = "
            f"{store.record.asked['activation_eps']:g}: max z, max activation and the v1 score take "
            "that bound"
        )
    if store.record.asked["embeddings"] == "none":
        notes.append(
            "Gini sparsity, kNN, Mahalanobis, PCA residual and consistency are left out: the run was made "
            "without embeddings (--embeddings npy)"
        )
    else:
        finite = _finite(run, evaluated, finite_only)
        rows = FeatureRows.of(run).where(finite)
        of_rows = {"gini": torch.cat([gini(block) for block in _blocks(rows, settings.device)])}
        of_rows |= _against_reference(run, rows, reference, settings, notes)
        found |= {name: _spread(score, finite) for name, score in of_rows.items()}
        if views:
            found["consistency"] = _consistency(run, views, settings.device, notes)
    return RunScores({name: s.double().cpu().numpy() for name, s in found.items()}, notes, finite)


def _finite(run: ScoreRun, evaluated: np.ndarray | None, finite_only: bool) -> np.ndarray:
    """(N,) bool: the images whose embeddings are finite; SettingsError unless the evaluated ones are."""
    finite = finite_mask(FeatureRows.of(run))
    asked = np.arange(len(finite)) if evaluated is None else evaluated
    bad = asked[~finite[asked]]
    if len(bad) and not (finite_only and len(bad) < len(asked)):
        fine = np.ones_like(finite)
        fine[bad] = False
        raise non_finite(run, fine, "leave such images out (--finite-only)")
    return finite


def _spread(scores: Tensor, finite: np.ndarray) -> Tensor:
    """(N,): the scores of the finite rows at their places, NaN elsewhere."""
    spread = scores.new_full((len(finite),), torch.nan)
    spread[torch.from_numpy(finite).to(scores.device)] = scores
    return spread


def _against_reference(
    run: ScoreRun,
    rows: FeatureRows,
    reference: ScoreRun | None,
    settings: RivalSettings,
    notes: list[str],
) -> dict[str, Tensor]:
    same = reference is None or _same_images(run, reference)
    others = rows
    if reference is None:
        notes.append(
            "kNN, Mahalanobis and PCA residual take the run's own images as the reference set (--reference "
            "names another run)"
        )
    elif Store(reference.path).record.asked["embeddings"] == "none":
        raise SettingsError(
            f"the reference run in {reference.path} has no embeddings: score it with --embeddings npy"
        )
    elif not same:
        usable = FiniteRows.of(reference, finite_only=True)
        others = usable.rows
        notes.extend(usable.notes)
    found: dict[str, Tensor] = {}

    def neighbours() -> None:
        near = nearest(rows, others, settings.k, itself=same, device=settings.device)
        found.update(neighbour_scores(torch.from_numpy(near.similarity)))

    def residual() -> None:
        fitted.append(Gaussian.fit(_blocks(others, settings.device)))
        parts = [
            fitted[0].pca_residual(block, settings.explained)
            for block in _blocks(rows, settings.device)
        ]
        found["pca_residual"] = -torch.cat(parts)

    def distance() -> None:
        parts = [
            fitted[0].mahalanobis(block, settings.regularisation)
            for block in _blocks(rows, settings.device)
        ]
        found["mahalanobis"] = -torch.cat(parts)

    fitted: list[Gaussian] = []
    _try("kNN distance and density", notes, neighbours)
    _try("Mahalanobis and PCA residual", notes, residual)
    if fitted:
        _try("Mahalanobis", notes, distance)
    return found


def _same_images(run: ScoreRun, other: ScoreRun) -> bool:
    """Whether both scored the same images in the same order."""
    ids, others = (one.scores()["sample_id"] for one in (run, other))
    return listed_images(run) == listed_images(other) and ids.equals(others)


def _try(what: str, notes: list[str], compute: Callable[[], None]) -> None:
    """Leave out, with the reason, what these samples do not allow."""
    try:
        compute()
    except SettingsError as error:
        notes.append(f"{what}: left out, for {error}")


def _activations(store: Store) -> tuple[Tensor, Tensor, int]:
    """Per image the largest z and the largest activation; and how many images have only their bound.

    Where no activation above ``activation_eps`` was kept, all are at or below it: the bound stands in.
    """
    eps = store.record.asked["activation_eps"]

    def of_part(part: Part) -> tuple[np.ndarray, np.ndarray]:
        mean, std, l2 = (part.stat(name).astype(np.float64) for name in ("mean", "std", "l2"))
        # In two-sided runs z is a distance, also of entries below the mean; their value is negative.
        above = np.where(part.value > 0, part.z, 0)
        z = part.per_row(np.maximum, above, np.float64)
        value = part.per_row(np.maximum, part.value, np.float64)
        return np.maximum(z, eps), mean + np.where(value > 0, value * l2, eps * std)

    columns = [*STATS, "feature", "value", "status"]
    parts = list(store.map_parts(of_part, columns))
    z, activation = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return torch.from_numpy(z), torch.from_numpy(activation), int(np.sum(z == eps))


def _consistency(
    run: ScoreRun, views: Sequence[ScoreRun], device: str | torch.device, notes: list[str]
) -> Tensor:
    """NaN for an image that a view lacks."""
    joined = JoinedViews.of(run, views)
    notes += joined.notes()
    found = torch.full((len(run.scores()),), torch.nan)
    parts = (torch.from_numpy(block).to(device).float() for block in joined.blocks())
    same = torch.cat([consistency(list(part.unbind(1))) for part in parts])
    if lost := int(same.isnan().sum()):
        notes.append(f"{lost:,} images hold NaN or Inf in a view: consistency leaves them out")
    found[torch.from_numpy(joined.rows[0])] = same.cpu()
    return found


def _blocks(rows: FeatureRows, device: str | torch.device) -> Iterator[Tensor]:
    """The embeddings as float32, on the device."""
    for block in rows.blocks(BLOCK):
        yield as_tensor(block).to(device).float()


def _tensor(table: pa.Table, name: str) -> Tensor:
    return torch.from_numpy(table[name].to_numpy().astype(np.float64))
