"""Correctness by a probe that is trained on the spot: against scikit-learn, and without leaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from changed_embeddings import save_embeddings
from sample_data import save_checkpoint, save_images
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from qscore_fast.cli.evaluate_command import evaluate, evaluate_parser
from qscore_fast.cli.main import main
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation import failure as fp
from qscore_fast.evaluation.failure.fitted_probe import stratified_folds
from qscore_fast.evaluation.probes import knn_probe, linear_probe
from qscore_fast.scoring import ScoreRun, rescore, score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> ScoreRun:
    folder = save_images(tmp_path_factory.mktemp("test") / "images", 200)
    return score(folder, encoder, folder.parent / "run", unit_size=64, embeddings="npy", eps=3.0)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> ScoreRun:
    folder = save_images(tmp_path_factory.mktemp("train") / "images", 300, start=200)
    return score(folder, encoder, folder.parent / "run", embeddings="npy", eps=3.0)


def features(run: ScoreRun) -> tuple[np.ndarray, np.ndarray]:
    return run.embeddings().astype(np.float64), run.scores()["label"].to_numpy()


def test_the_logistic_probe_is_scikit_learns(run: ScoreRun, train: ScoreRun) -> None:
    found = fp.fitted_probe(run, train=train)
    (x, y), (test, wanted) = features(train), features(run)
    C = linear_probe(train, run).fit.C
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=5000).fit(x, y)
    assert found.logits is not None
    assert (found.logits.argmax(1) == theirs.predict_proba(test).argmax(1)).mean() >= 0.99
    assert (found.correctness.correct == (theirs.predict(test) == wanted)).mean() >= 0.99
    assert found.correctness.sample_ids.equals(run.scores()["sample_id"].combine_chunks())
    assert "trained on the 300 images of" in found.notes[0]


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_no_image_is_judged_by_a_probe_that_saw_it(run: ScoreRun, tmp_path: Path, probe) -> None:
    """Labels by chance: with 256 features a probe knows 200 images by heart, and others not at all."""
    ids = run.scores()["sample_id"].to_pylist()
    noise = np.random.default_rng(0).integers(4, size=len(ids))
    pd.DataFrame({"sample_id": ids, "label": noise}).to_csv(tmp_path / "noise.csv", index=False)
    found = fp.fitted_probe(run, tmp_path / "noise.csv", probe=probe)
    assert 0.15 < found.correctness.correct.mean() < 0.36
    real = fp.fitted_probe(run, probe=probe)
    assert real.correctness.correct.mean() > 0.3  # ten classes
    if probe == "logistic":
        assert "cross-fitted in 5 folds" in real.notes[0]


def test_neighbours_are_scikit_learns_without_the_image_itself(run: ScoreRun) -> None:
    x, y = features(run)
    found = fp.fitted_probe(run, probe="knn")
    right = []
    for row in range(len(x)):
        others = np.arange(len(x)) != row
        votes = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp(-d / 0.07))
        right.append(votes.fit(x[others], y[others]).predict(x[row : row + 1])[0] == y[row])
    assert (found.correctness.correct == right).mean() >= 0.99
    assert found.logits is None
    assert found.correctness.of_probe == {"confidence"}


def test_folds_hold_every_class_evenly() -> None:
    targets = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], [23, 10, 1]))
    fold = stratified_folds(targets, 5, seed=3)
    assert np.bincount(fold).tolist() == [7, 7, 7, 7, 6]
    for number, count in ((0, 23), (1, 10)):
        sizes = np.bincount(fold[targets == number], minlength=5)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(fold, stratified_folds(targets, 5, seed=4))


def test_what_cannot_be_fitted(run: ScoreRun, train: ScoreRun, tmp_path: Path) -> None:
    ids = run.scores()["sample_id"].to_pylist()
    labels = run.scores()["label"].to_pylist()

    def file(name: str, values: list[str]) -> Path:
        pd.DataFrame({"sample_id": ids[: len(values)], "label": values}).to_csv(
            tmp_path / name, index=False
        )
        return tmp_path / name

    with pytest.raises(SettingsError, match=r"has no label for 20 of 200 scored samples"):
        fp.fitted_probe(run, file("few.csv", labels[:180]))
    with pytest.raises(SettingsError, match="all samples are of class 'one'"):
        fp.fitted_probe(run, file("one.csv", ["one"] * 200))
    with pytest.raises(SettingsError, match="1 labels are none of the 10 classes: 'new'"):
        fp.fitted_probe(run, file("new.csv", ["new", *labels[1:]]), train=train)
    with pytest.raises(SettingsError, match="is of the images to ask about"):
        fp.fitted_probe(run, train=run.path)
    shutil.copytree(run.path, tmp_path / "copy")
    with pytest.raises(SettingsError, match="is of the images to ask about"):
        fp.fitted_probe(run, train=tmp_path / "copy")
    with pytest.raises(SettingsError, match="give train as well"):
        fp.fitted_probe(run, train_labels=tmp_path / "few.csv")
    with pytest.raises(SettingsError, match="200 images in 101 folds"):
        fp.fitted_probe(run, folds=101)
    with pytest.raises(SettingsError, match="probe is 'tree'"):
        fp.fitted_probe(run, probe="tree")
    alone = fp.fitted_probe(run, file("alone.csv", ["alone", *labels[1:]]))
    assert any("1 classes have one image" in note for note in alone.notes)
    assert not alone.correctness.correct[0]
    foreign = load_encoder(save_checkpoint(tmp_path / "other.pth", seed=1), device="cpu")
    other = score(save_images(tmp_path / "x", 20), foreign, tmp_path / "run", embeddings="npy")
    with pytest.raises(SettingsError, match="different encoders"):
        fp.fitted_probe(run, train=other)


def test_the_command_fits_and_evaluates(
    run: ScoreRun, train: ScoreRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same as qscore probe by hand, and qscore evaluate with its files."""
    linear_probe(train, run).write(tmp_path / "probe")
    words = [str(run.path), "--resamples", "20", "--json"]
    evaluate(evaluate_parser().parse_args([*words, "--labels", "--train", str(train.path)]))
    fitted = json.loads(capsys.readouterr().out)
    by_hand = [
        "--correct", str(tmp_path / "probe" / "probe.parquet"),
        "--logits", str(tmp_path / "probe" / "logits.npy"), "--reference", str(train.path),
    ]  # fmt: skip
    evaluate(evaluate_parser().parse_args([*words, *by_hand]))
    expected = json.loads(capsys.readouterr().out)
    assert fitted["scores"] == expected["scores"]
    assert fitted["num_wrong"] == expected["num_wrong"]
    assert fitted["notes"][0].startswith("correct by logistic regression")

    assert main(["evaluate", *words, "--labels", "--probe", "knn"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["scores"]}
    assert rows["confidence"]["uses_labels"] is True

    assert main(["evaluate", *words]) == 2
    assert "nothing says which images are right: give --labels" in capsys.readouterr().err
    assert main(["evaluate", *words, *by_hand[:2], "--labels"]) == 2
    assert "give one or the other" in capsys.readouterr().err
    for kind in ("knn", "logistic"):
        assert main(["evaluate", *words, *by_hand[:2], "--probe", kind]) == 2
        assert "--probe have a probe find out: give one or the other" in capsys.readouterr().err
    for asked in (["--labels"], ["--train", str(train.path)]):
        assert main(["evaluate", *words, *asked, "--subset"]) == 2
        assert "--subset is for a file of correctness (--correct)" in capsys.readouterr().err
    assert main(["evaluate", *words, "--labels", "--columns", "confidence"]) == 2
    assert "belong to a file of correctness" in capsys.readouterr().err


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_a_probes_own_confidence_uses_labels(
    run: ScoreRun, train: ScoreRun, tmp_path: Path, probe: str
) -> None:
    fitted = linear_probe if probe == "logistic" else knn_probe
    path = fitted(train, run).write(tmp_path)[0]
    table = fp.evaluate_run(run, path, columns=["confidence"], num_resamples=0).table
    rows = {row.rival.name: row.rival for row in table.rows}
    assert rows["confidence"].uses_labels is True
    assert "confidence of the probe (uses labels)" in table.to_markdown()
    # Of a column that somebody else made, nothing is known; nor of one in a file of another kind.
    frame = pd.read_parquet(path).assign(mine=1.5)
    frame.to_parquet(tmp_path / "mine.parquet")
    frame[["sample_id", "correct", "confidence"]].to_csv(tmp_path / "other.csv", index=False)
    for file, name in (("mine.parquet", "mine"), ("other.csv", "confidence")):
        found = fp.evaluate_run(run, tmp_path / file, columns=[name], num_resamples=0).table
        rival = {row.rival.name: row.rival for row in found.rows}[name]
        assert rival.uses_labels is None


def spoil_the_fourth(run: ScoreRun, copy: Path) -> None:
    """A copy of the run in which one entry of the fourth image is NaN."""
    shutil.copytree(run.path, copy)
    part = copy / "parts" / "part-000000.npy"
    rows = np.load(part)
    rows[3, 5] = np.nan
    save_embeddings(part, rows)


@pytest.mark.parametrize("probe", ["logistic", "knn"])
@pytest.mark.parametrize("trained", [False, True])
def test_images_that_are_not_finite(
    run: ScoreRun,
    train: ScoreRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    probe,
    trained,
) -> None:
    spoil_the_fourth(run, tmp_path / "run")
    bad = run.scores()["sample_id"][3].as_py()
    words = ["evaluate", str(tmp_path / "run"), "--labels", "--probe", probe, "--resamples", "0"]
    words += ["--train", str(train.path)] if trained else []
    assert main(words) == 2
    said = capsys.readouterr().err
    assert (
        f"1 of 200 representations of {tmp_path / 'run'} hold NaN or Inf, those of {bad!r}" in said
    )
    assert main([*words, "--finite-only", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["num_samples"] == 199
    notes = " ".join(content["notes"])
    assert "1 of 200 images of" in notes and "hold NaN or Inf and are left out" in notes
    assert {"knn_distance", "gini"} <= {row["name"] for row in content["scores"]}


@pytest.mark.parametrize("probe", ["logistic", "knn"])
def test_a_class_that_only_left_out_images_have_is_none(
    run: ScoreRun, tmp_path: Path, probe
) -> None:
    spoil_the_fourth(run, tmp_path / "run")
    ids = run.scores()["sample_id"].to_pylist()
    labels = ["rare" if row == 3 else "usual" for row in range(len(ids))]
    pd.DataFrame({"sample_id": ids, "label": labels}).to_csv(tmp_path / "l.csv", index=False)
    with pytest.raises(SettingsError, match="all samples are of class 'usual': a probe needs two"):
        fp.fitted_probe(tmp_path / "run", tmp_path / "l.csv", probe=probe, finite_only=True)


def test_many_zeros_are_said(run: ScoreRun, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    ids = run.scores()["sample_id"].to_pylist()
    right = [i % 3 > 0 for i in range(len(ids))]
    pd.DataFrame({"sample_id": ids, "correct": right}).to_csv(tmp_path / "c.csv", index=False)

    def zeros(run: ScoreRun) -> tuple[int, list[str]]:
        notes = fp.evaluate_run(run, tmp_path / "c.csv", num_resamples=0).table.notes
        count = int((run.scores()["q_score"].to_numpy() == 0).sum())
        return count, [note for note in notes if "share the score 0" in note]

    count, (note,) = zeros(rescore(tmp_path / "run", eps=3.0))
    assert 2 < count < 200
    assert note.startswith(f"{count / 2:.1f} % of the images have no active discriminative feature")
    count, notes = zeros(rescore(tmp_path / "run", eps=2.0))
    assert count <= 2 and not notes


def test_a_constant_score_is_said(encoder: Encoder, tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", 30)
    run = score(images, encoder, tmp_path / "run", eps=15.9, embeddings="npy")
    assert (run.scores()["q_score"].to_numpy() == 0).all()
    ids = run.scores()["sample_id"].to_pylist()
    right = pa.array([i % 3 > 0 for i in range(30)])
    pd.DataFrame({"sample_id": ids, "correct": right}).to_csv(tmp_path / "c.csv", index=False)
    notes = fp.evaluate_run(run, tmp_path / "c.csv", num_resamples=0).table.notes
    assert any("Q-Score is 0 for every image, which is a constant score" in note for note in notes)
