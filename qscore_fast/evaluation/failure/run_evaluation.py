"""evaluate_run: a finished run and a probe's correctness in, the table of all scores out."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.correctness import Correctness
from qscore_fast.evaluation.failure.failure_table import FailureTable
from qscore_fast.evaluation.failure.fitted_probe import FittedProbe
from qscore_fast.evaluation.failure.metrics import Metric
from qscore_fast.evaluation.failure.paper_table import paper_table
from qscore_fast.evaluation.failure.probe_scores import probe_scores
from qscore_fast.evaluation.failure.rivals import Rival
from qscore_fast.evaluation.failure.run_scores import RivalSettings, scores_of_run
from qscore_fast.evaluation.failure.score_evaluation import evaluate
from qscore_fast.evaluation.finite_rows import left_out
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import made_folder, replacing, write_text

# The share of tied zeros that automatic eps would not accept either.
MANY_ZEROS = 0.01
FILES = ("failure.json", "failure.md", "failure.parquet")


@dataclass(frozen=True)
class RunEvaluation:
    """A run's table, and what it was made from.

    Attributes:
        model: the encoder's name.
        table: of all scores.
        sample_ids: (n,) of the evaluated images.
        correct: (n,) bool.
        scores: (n,) float64 by name.
    """

    model: str
    table: FailureTable
    sample_ids: pa.Array
    correct: np.ndarray
    scores: dict[str, np.ndarray]

    def to_markdown(self) -> str:
        """The paper's Table 1 of this run, and the table of all scores."""
        return "\n".join(
            ["Q-Score in the layout of the paper's Table 1, in per cent:", "",
             paper_table({self.model: self.table}), self.table.to_markdown()]
        )  # fmt: skip

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write failure.json, failure.md and failure.parquet (sample_id, correct, every score).

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [folder / name for name in FILES]
        content = {"model": self.model, **self.table.to_json()}
        write_text(paths[0], json.dumps(content, indent=1) + "\n")
        write_text(paths[1], self.to_markdown())
        columns = {"sample_id": self.sample_ids, "correct": pa.array(self.correct), **self.scores}
        with replacing(paths[2]) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")
        return paths


def evaluate_run(
    run: str | os.PathLike[str] | ScoreRun,
    correct: str | os.PathLike[str] | FittedProbe,
    *,
    reference: str | os.PathLike[str] | ScoreRun | None = None,
    views: Sequence[str | os.PathLike[str] | ScoreRun] = (),
    columns: Sequence[str] = (),
    logits: str | os.PathLike[str] | None = None,
    subset: bool = False,
    finite_only: bool = False,
    settings: RivalSettings | None = None,
    metrics: Sequence[Metric] | None = None,
    num_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> RunEvaluation:
    """Q-Score, every label-free rival that the run's store allows, and a probe's own confidence.

    Args:
        run: a finished run, or its folder.
        correct: a Parquet or CSV file with sample_id and correct, or sample_id, label and prediction; or a
            :func:`fitted_probe` of this run.
        reference: the run of the reference set for kNN, Mahalanobis and PCA; by default ``run``.
        views: runs of other views of the same images, for consistency. An image that a view lacks is left
            out of the whole evaluation, so that all scores rank the same images; a note counts them.
        columns: numeric columns of the file to evaluate as scores; higher means more trusted.
        logits: an ``.npy`` file (rows of the file, classes) with a probe's logits, for the bound.
        subset: evaluate the images that both sides have, instead of refusing when one has more.
        finite_only: leave images with NaN or Inf out, instead of refusing the run.
        settings, metrics, num_resamples, level, seed: see :class:`RivalSettings`, :func:`evaluate`.

    Raises:
        SettingsError: the file does not fit the run, or a setting is out of range.
        StoreError: a run is not complete, or damaged.
    """
    run = _opened(run)
    notes: list[str] = []
    if isinstance(correct, FittedProbe):
        if columns or logits is not None:
            raise SettingsError(
                "columns and logits belong to a file of correctness: leave them out for a fitted probe"
            )
        notes += correct.notes
        outcome, answers = correct.correctness, correct.logits
        subset = True  # what it lacks are the images that are not finite
    else:
        outcome = Correctness.read(correct, columns)
        answers = None if logits is None else _read_logits(logits, outcome)
    given = {**outcome.columns, **({} if answers is None else _bound(answers))}
    table = run.scores()
    ids, labels = (table[name].combine_chunks() for name in ("sample_id", "label"))
    failed = frozenset(run.errors()["sample_id"].to_pylist())
    scored, rows = outcome.rows_of(ids, labels, failed, subset)
    found = scores_of_run(
        run,
        reference=None if reference is None else _opened(reference),
        views=[_opened(view) for view in views],
        settings=settings,
        evaluated=scored,
        finite_only=finite_only,
    )
    if found.finite is not None and not (fine := found.finite[scored]).all():
        notes.append(left_out(run, fine))
        scored, rows = scored[fine], rows[fine]
    scored, rows = _in_all_views(found.scores, scored, rows)
    taken = sorted(set(given) & set(found.scores))
    if taken:
        raise SettingsError(
            f"the column name {taken[0]!r} is that of a score of the run: rename it"
        )
    scores = {name: score[scored] for name, score in found.scores.items()}
    scores |= {name: score[rows] for name, score in given.items()}
    notes += [*_q_score_notes(scores["q_score"]), *found.notes]
    if len(scored) < len(ids):
        notes.append(f"{len(scored):,} of {len(ids):,} scored images are evaluated, a subset")
    right = outcome.correct[rows]
    result = evaluate(
        scores, right, metrics=metrics, num_resamples=num_resamples, level=level, seed=seed,
        notes=notes, described={name: _of_probe(name) for name in outcome.of_probe},
    )  # fmt: skip
    return RunEvaluation(run.summary["encoder"], result, ids.take(scored), right, scores)


def _opened(run: str | os.PathLike[str] | ScoreRun) -> ScoreRun:
    return run if isinstance(run, ScoreRun) else ScoreRun(run)


def _in_all_views(
    scores: dict[str, np.ndarray], scored: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Without the images that a view lacks."""
    if "consistency" not in scores:
        return scored, rows
    whole = ~np.isnan(scores["consistency"][scored])
    if not whole.any():
        raise SettingsError("no image to evaluate is in all views: score the same images for each")
    return scored[whole], rows[whole]


def _of_probe(name: str) -> Rival:
    return Rival(name, f"{name} of the probe", "+", "probe", "as the probe gives it", "the probe")


def _q_score_notes(q: np.ndarray) -> list[str]:
    if (q == q[0]).all():
        return [
            f"Q-Score is {q[0]:g} for every image, which is a constant score: choose a smaller eps or other "
            "features (qscore discover)"
        ]
    share = float((q == 0).mean())
    if share > MANY_ZEROS:
        return [
            f"{100 * share:.1f} % of the images have no active discriminative feature: they share the score "
            "0, and nothing ranks them; choose a smaller eps (qscore discover --eps auto)"
        ]
    return []


def _read_logits(path: str | os.PathLike[str], outcome: Correctness) -> np.ndarray:
    try:
        logits = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} cannot be read ({error}): give an .npy file of logits"
        ) from error
    if logits.ndim != 2 or len(logits) != len(outcome.sample_ids) or logits.dtype.kind != "f":
        raise SettingsError(
            f"{path} holds {logits.dtype} of shape {logits.shape}: give floating point (rows, classes), a "
            f"row for each of the {len(outcome.sample_ids):,} rows of {outcome.path}"
        )
    return logits


def _bound(logits: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: score.numpy()
        # In float32 the surest answers would tie at 1.
        for name, score in probe_scores(torch.from_numpy(logits).double()).items()
    }
