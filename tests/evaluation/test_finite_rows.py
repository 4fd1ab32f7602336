"""Runs whose embeddings hold NaN or Inf: every command says the same, and leaves them out on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from changed_embeddings import save_embeddings
from sample_data import PREPROCESS, save_images

from qscore_fast.cli import main
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.compression import compress_run, compression_curve_of_runs
from qscore_fast.evaluation.failure import evaluate_run, scores_of_run
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.probes import (
    check_graph,
    knn_probe,
    linear_probe,
    logistic_path,
    save_graph,
)
from qscore_fast.evaluation.run_pair import run_pair
from qscore_fast.images import Preprocess
from qscore_fast.scoring import ScoreRun, score

BAD = {3: np.nan, 70: np.inf, 71: -np.inf}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> dict[str, ScoreRun]:
    """``train`` and ``test``, and both again with three rows that are not finite."""
    place = tmp_path_factory.mktemp("finite")
    encoder = load_encoder(checkpoint, device="cpu")
    found = {}
    for name, count, start in (("train", 160, 200), ("test", 90, 0)):
        images = save_images(place / f"{name}-images", count, start=start)
        score(images, encoder, place / name, unit_size=64, embeddings="npy", eps=3.0)
        copytree(place / name, place / f"bad-{name}")
        for row, value in BAD.items():
            path = place / f"bad-{name}" / "parts" / f"part-{row // 64:06d}.npy"
            rows = np.load(path)
            rows[row % 64, 5] = value
            save_embeddings(path, rows)
        found |= {key: ScoreRun(place / key) for key in (name, f"bad-{name}")}
    return found


def ids(run: ScoreRun) -> list[str]:
    return run.scores()["sample_id"].to_pylist()


ASKED: dict[str, Callable[..., Any]] = {
    "probe": lambda train, test, out, **s: linear_probe(train, test, C=1e-3, **s),
    "path": lambda train, test, out, **s: logistic_path(train, test, C=[1e-3], **s),
    "knn": lambda train, test, out, **s: knn_probe(train, test, ks=[5], **s),
    "curve": lambda train, test, out, **s: compression_curve_of_runs(
        train, test, shares=[0.5], num_seeds=1, C=1e-3, **s
    ),
    "compress": lambda train, test, out, **s: compress_run(
        train if "bad" in train.path.name else test, out, keep=0.5, index="flat", **s
    ),
}


@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("command", ASKED)
def test_a_run_with_such_rows_is_refused_by_name_and_ids(runs, tmp_path, command, side):
    pair = {"train": runs["train"], "test": runs["test"], side: runs[f"bad-{side}"]}
    with pytest.raises(SettingsError) as raised:
        ASKED[command](*pair.values(), tmp_path / "out")
    run = runs[f"bad-{side}"]
    first = [ids(run)[row] for row in BAD]
    assert str(raised.value) == (
        f"3 of {len(ids(run))} representations of {run.path} hold NaN or Inf, those of "
        f"{', '.join(map(repr, first))}: leave such images out (--finite-only), or score them again"
    )
    assert not (tmp_path / "out").exists()


def test_left_out_rows_are_as_if_they_were_never_there(runs, tmp_path):
    """Against the same probe on what is left, put together by hand."""
    bad = {name: runs[f"bad-{name}"] for name in ("train", "test")}
    kept = {name: np.setdiff1d(np.arange(len(ids(run))), [*BAD]) for name, run in bad.items()}
    found = linear_probe(bad["train"], bad["test"], C=1e-3, finite_only=True)
    assert found.sample_ids.to_pylist() == [ids(bad["test"])[i] for i in kept["test"]]
    from sklearn.linear_model import LogisticRegression

    x, tx = (runs[name].embeddings()[kept[name]].astype(np.float64) for name in ("train", "test"))
    y, ty = (runs[name].scores()["label"].to_numpy()[kept[name]] for name in ("train", "test"))
    theirs = LogisticRegression(C=1e-3, tol=1e-8, solver="newton-cholesky").fit(x, y)
    assert found.top(1) == pytest.approx(theirs.score(tx, ty), abs=1.5 / len(ty))
    notes = [note for note in found.notes if "NaN or Inf and are left out" in note]
    assert [str(run.path) in note for run, note in zip(bad.values(), notes, strict=True)] == [
        True
    ] * 2

    assert len(logistic_path(*bad.values(), C=[1e-3], finite_only=True).points) == 1
    neighbours = knn_probe(*bad.values(), ks=[1], finite_only=True)
    u, v = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (tx, x))
    assert neighbours.accuracies[1][0] == pytest.approx(
        (y[(u @ v.T).argmax(1)] == ty).mean(), abs=0.03
    )
    curve = ASKED["curve"](*bad.values(), tmp_path, finite_only=True)
    assert (curve.num_train, curve.num_test) == (157, 87)
    assert curve.full_accuracy == pytest.approx(theirs.score(tx, ty), abs=1.5 / len(ty))
    assert sum("left out" in note for note in curve.to_json()["notes"]) == 2

    small = compress_run(bad["train"], tmp_path / "small", keep=0.5, finite_only=True)
    written = np.load(tmp_path / "small" / "embeddings.npy")
    np.testing.assert_array_equal(
        written, runs["train"].embeddings()[kept["train"]][:, small.kept.indices]
    )
    named = pd.read_parquet(tmp_path / "small" / "sample_ids.parquet")["sample_id"].tolist()
    assert named == [ids(bad["train"])[i] for i in kept["train"]]
    assert "3 of 160 images" in small.to_json()["notes"][0]


def outcomes(run: ScoreRun, rows: np.ndarray, path: Path) -> Path:
    chosen = [ids(run)[i] for i in rows]
    pd.DataFrame({"sample_id": chosen, "correct": rows % 3 > 0}).to_csv(path, index=False)
    return path


def test_evaluation_refuses_them_unless_they_are_no_part_of_it(runs, tmp_path):
    run, whole = runs["bad-test"], runs["test"]
    everything, kept = np.arange(90), np.setdiff1d(np.arange(90), [*BAD])
    with pytest.raises(SettingsError, match=r"3 of 90 representations of .*bad-test hold NaN"):
        evaluate_run(run, outcomes(run, everything, tmp_path / "all.csv"), num_resamples=0)
    few = outcomes(run, kept, tmp_path / "few.csv")
    found = evaluate_run(run, few, subset=True, num_resamples=0)
    assert all(np.isfinite(score).all() for score in found.scores.values())
    # The images themselves are the reference set: those with NaN are nobody's neighbours.
    h = whole.embeddings()[kept].astype(np.float64)
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    far = np.sort(np.linalg.norm(h[:, None] - h[None], axis=2), 1)[:, 10]
    np.testing.assert_allclose(found.scores["knn_distance"], -far, atol=2e-3)


def test_a_reference_set_goes_without_them_and_says_so(runs):
    found = scores_of_run(runs["test"], reference=runs["bad-train"])
    assert any(f"3 of 160 images of {runs['bad-train'].path}" in note for note in found.notes)
    assert all(np.isfinite(score).all() for score in found.scores.values())
    with pytest.raises(SettingsError, match="bad-test hold NaN"):
        scores_of_run(runs["bad-test"], reference=runs["train"])


def test_a_graph_is_refused_before_the_search(runs, tmp_path, monkeypatch, capsys):
    def searched(*_: Any, **__: Any) -> None:
        pytest.fail("the search began")

    monkeypatch.setattr("qscore_fast.evaluation.probes.knn_probe", searched)
    train, test = runs["train"], runs["bad-test"]
    words = ["knn", str(train.path), str(test.path), "--k", "5", "--finite-only"]
    assert main([*words, "--graph", str(tmp_path / "graph.npz")]) == 2
    first = ", ".join(repr(ids(test)[row]) for row in BAD)
    assert (
        f"3 of 90 representations of {test.path} hold NaN or Inf, those of {first}: ask for no graph "
        "(--graph), which has a row for every image, or score them again"
    ) in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"ask for no graph \(--graph\)"):
        save_graph(test, 5, tmp_path / "graph.npz")
    assert check_graph(runs["test"], 5, tmp_path / "graph.npz") == tmp_path / "graph.npz"


def test_rows_where_a_mask_is_true():
    whole = np.arange(24, dtype=np.float32).reshape(8, 3)
    rows = FeatureRows((whole[:3], whole[3:5], whole[5:])).select([2, 0])
    chosen = np.array([1, 1, 1, 0, 0, 1, 0, 1], bool)
    found = rows.where(chosen)
    np.testing.assert_array_equal(found.to_array(), whole[chosen][:, [2, 0]])
    assert found.parts[0] is rows.parts[0]  # mapped parts stay mapped
    with pytest.raises(SettingsError, match="no representation"):
        rows.where(np.zeros(8, bool))


@pytest.fixture(scope="module")
def otherwise_prepared(runs: dict[str, ScoreRun], checkpoint: Path) -> ScoreRun:
    """The test images again, enlarged before they are cropped."""
    preprocess = Preprocess.from_json({**PREPROCESS, "resize": 32})
    encoder = load_encoder(checkpoint, device="cpu", preprocess=preprocess)
    place = runs["test"].path.parent
    return score(place / "test-images", encoder, place / "other", embeddings="npy", eps=3.0)


@pytest.mark.parametrize("command", ["probe", "knn", "curve", "path"])
def test_runs_of_other_preprocessing_are_refused(runs, otherwise_prepared, tmp_path, command):
    assert otherwise_prepared.features.fingerprint == runs["train"].features.fingerprint
    with pytest.raises(SettingsError, match=r"another preprocess than .*resize: 28 -> 32"):
        ASKED[command](runs["train"], otherwise_prepared, tmp_path / "out")
    with pytest.raises(SettingsError, match="another preprocess"):
        scores_of_run(runs["test"], reference=otherwise_prepared)
    assert run_pair(runs["train"], runs["test"])[1] is runs["test"]


def test_evaluation_leaves_them_out_of_a_file_of_outcomes(
    runs: dict[str, ScoreRun], tmp_path: Path
) -> None:
    """As if the file had named only the others."""
    bad, kept = runs["bad-test"], np.setdiff1d(np.arange(90), [*BAD])
    outcomes = pd.DataFrame({"sample_id": ids(bad), "correct": np.arange(90) % 3 > 0})
    outcomes.to_csv(tmp_path / "all.csv", index=False)
    outcomes.iloc[kept].to_csv(tmp_path / "finite.csv", index=False)
    with pytest.raises(SettingsError, match=r"leave such images out \(--finite-only\)"):
        evaluate_run(bad, tmp_path / "all.csv", num_resamples=20)
    found = evaluate_run(bad, tmp_path / "all.csv", finite_only=True, num_resamples=20)
    by_hand = evaluate_run(bad, tmp_path / "finite.csv", subset=True, num_resamples=20)
    assert found.sample_ids.to_pylist() == [ids(bad)[row] for row in kept]
    assert {name: score.tolist() for name, score in found.scores.items()} == {
        name: score.tolist() for name, score in by_hand.scores.items()
    }
    assert any("3 of 90 images" in note for note in found.table.notes)
    outcomes.iloc[sorted(BAD)].to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(SettingsError, match="3 of 90 representations of .* hold NaN or Inf"):
        evaluate_run(bad, tmp_path / "bad.csv", finite_only=True, subset=True, num_resamples=20)


def test_a_run_without_embeddings_has_nothing_to_leave_out(
    checkpoint: Path, tmp_path: Path
) -> None:
    images = save_images(tmp_path / "images", 30)
    score(images, load_encoder(checkpoint, device="cpu"), tmp_path / "run", eps=3.0)
    run = ScoreRun(tmp_path / "run")
    outcomes = pd.DataFrame({"sample_id": ids(run), "correct": np.arange(30) % 3 > 0})
    outcomes.to_csv(tmp_path / "all.csv", index=False)
    found = evaluate_run(run, tmp_path / "all.csv", finite_only=True, num_resamples=20)
    assert found.sample_ids.to_pylist() == ids(run)
