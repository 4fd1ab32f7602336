"""A linear probe from two runs: its files, its accuracies, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from sample_data import save_images
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, top_k_accuracy_score

from qscore_fast.cli.probe_command import Protocol, probe, probe_parser
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure import Correctness
from qscore_fast.evaluation.probes import linear_probe, logistic_path
from qscore_fast.evaluation.sgd import PROTOCOLS
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> list[ScoreRun]:
    """400 training images and 150 others, one of which is bad."""
    place = tmp_path_factory.mktemp("probe")
    folders = [
        save_images(place / "train", 400, start=200),
        save_images(place / "test", 150),
    ]
    (folders[1] / "bag" / "bad.png").write_bytes(b"")
    return [
        score(
            folder, encoder, place / f"{folder.name}-run", unit_size=64, embeddings="npy", eps=3.0
        )
        for folder in folders
    ]


def test_answers_are_those_of_scikit_learn(runs, tmp_path):
    train, test = runs
    C = 1e-2
    x = train.embeddings().astype(np.float64)
    C /= x.var(0).mean()  # so that the scale of the features does not decide
    found = linear_probe(train, test, C=C)
    theirs = LogisticRegression(C=C, tol=1e-8, max_iter=500, solver="newton-cholesky").fit(
        x, train.scores()["label"].to_numpy()
    )
    tx, ty = test.embeddings().astype(np.float64), test.scores()["label"].to_numpy()
    assert list(found.classes) == list(theirs.classes_)
    probability = theirs.predict_proba(tx)
    ours = np.exp(found.logits - found.logits.max(1, keepdims=True))
    np.testing.assert_allclose(ours / ours.sum(1, keepdims=True), probability, atol=5e-3)
    assert found.top(1) == pytest.approx(theirs.score(tx, ty), abs=1.5 / len(ty))
    expected = top_k_accuracy_score(ty, probability, k=5, labels=theirs.classes_)
    assert found.top(5) == pytest.approx(expected, abs=1.5 / len(ty))


def test_the_files_are_what_evaluate_reads(runs, tmp_path):
    found = linear_probe(*runs)
    found.write(tmp_path)
    table = pd.read_parquet(tmp_path / "probe.parquet")
    assert table["sample_id"].tolist() == runs[1].scores()["sample_id"].to_pylist()
    assert table["label"].tolist() == runs[1].scores()["label"].to_pylist()
    assert ((table["label"] == table["prediction"]) == table["correct"]).all()
    logits = np.load(tmp_path / "logits.npy", allow_pickle=False)
    assert [found.classes[i] for i in logits.argmax(1)] == table["prediction"].tolist()
    read = Correctness.read(tmp_path / "probe.parquet", ["confidence"])
    np.testing.assert_array_equal(read.correct, found.correct)
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as saved:
        again = runs[1].embeddings().astype(np.float64) @ saved["weight"].T + saved["bias"]
        assert str(saved["fingerprint"]) == runs[0].features.fingerprint
    np.testing.assert_allclose(again, logits, atol=1e-3)
    content = json.loads((tmp_path / "probe.json").read_text())
    by_class = table.groupby("label")["correct"].mean()
    for name, accuracy in content["accuracy_by_class"].items():
        assert accuracy == (pytest.approx(by_class[name]) if name in by_class else None)


def test_the_command_prints_what_it_found(runs, tmp_path, capsys):
    words = [str(run.path) for run in runs]
    probe(probe_parser().parse_args([*words, "--out", str(tmp_path / "p"), "--json"]))
    printed = json.loads(capsys.readouterr().out)
    assert printed["top1"] == pd.read_parquet(tmp_path / "p" / "probe.parquet")["correct"].mean()
    assert printed["num_test"] == 150
    probe(probe_parser().parse_args([*words, "--C", "0.1"]))
    assert "top-1" in capsys.readouterr().out


def test_a_protocol_of_SGD_from_runs_to_files(runs, tmp_path, capsys):
    words = [*(str(run.path) for run in runs), "--protocol", "moco", "--epochs", "30"]
    probe(probe_parser().parse_args([*words, "--rate", "1e-6", "1", "--out", str(tmp_path)]))
    assert "protocol moco: SGD, 30 epochs of 256 a step, learning rate 1, the best of 2" in (
        capsys.readouterr().out
    )
    content = json.loads((tmp_path / "probe.json").read_text())
    assert content["rates"] == [1.0] and len(content["loss_by_epoch"]) == 30
    assert [row["rate"] for row in content["held_out_accuracy"]] == [1e-6, 1.0]
    assert content["top1"] > 0.3  # of ten classes, after 60 steps
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as saved:
        logits = runs[1].embeddings().astype(np.float32) @ saved["weight"].T + saved["bias"]
    np.testing.assert_allclose(logits, np.load(tmp_path / "logits.npy"), atol=1e-3)
    again = linear_probe(*runs, protocol="moco", epochs=30, rates=[1e-6, 1.0])
    np.testing.assert_array_equal(again.logits, np.load(tmp_path / "logits.npy"))


def test_the_path_is_scikit_learn_at_every_C(runs, tmp_path, capsys):
    train, test = runs
    x, tx = (run.embeddings().astype(np.float64) for run in runs)
    y, ty = (run.scores()["label"].to_numpy() for run in runs)
    values = [1 / (ridge * x.var(0).mean() * len(x)) for ridge in (1, 0.01, 0.1)]
    words = [str(train.path), str(test.path), "--path", "--out", str(tmp_path), "--C"]
    probe(probe_parser().parse_args([*words, *map(str, values)]))
    assert len(capsys.readouterr().out.splitlines()) >= 5
    table = pd.read_csv(tmp_path / "path.csv")
    assert table["C"].tolist() == sorted(values)
    assert (tmp_path / "path.svg").read_text().lstrip().startswith("<?xml")
    assert json.loads((tmp_path / "path.json").read_text())["num_test"] == 150
    for row in table.itertuples():
        theirs = LogisticRegression(C=row.C, tol=1e-7, max_iter=3000)
        theirs.fit(x, y)
        losses = [log_loss(b, theirs.predict_proba(a), labels=theirs.classes_)
                  for a, b in ((x, y), (tx, ty))]  # fmt: skip
        expected = 0.5 * (theirs.coef_**2).sum() + row.C * len(x) * losses[0]
        assert row.loss == pytest.approx(expected, rel=1e-4)
        assert row.cross_entropy == pytest.approx(losses[0], rel=1e-2)
        assert row.test_cross_entropy == pytest.approx(losses[1], rel=1e-2)
        assert row.top1 == pytest.approx(theirs.score(tx, ty), abs=1.5 / len(ty))
    whole = logistic_path(train, test)
    assert len(whole.points) == 15
    assert [p.C for p in whole.points] == sorted(p.C for p in whole.points)
    losses = [p.cross_entropy for p in whole.points]
    assert losses == sorted(losses, reverse=True)


def test_the_answers_lie_beside_the_scores_unless_there_is_another_folder(
    runs, encoder, tmp_path, capsys, monkeypatch
):
    train, test = runs[0], ScoreRun(copytree(runs[1].path, tmp_path / "test"))
    words = [str(train.path), str(test.path), "--C", "0.001"]
    (test.path / "probe.parquet").unlink(missing_ok=True)  # of another test
    before = {path.name for path in test.path.iterdir()}
    probe(probe_parser().parse_args([*words, "--json"]))
    assert {path.name for path in test.path.iterdir()} - before == {"probe.parquet"}
    assert json.loads(capsys.readouterr().out)["files"] == [str(test.path / "probe.parquet")]
    found = Correctness.read(test.path / "probe.parquet", ["confidence"])
    expected = linear_probe(train, test, C=0.001)
    assert found.sample_ids.equals(test.scores()["sample_id"].combine_chunks())
    np.testing.assert_array_equal(found.correct, expected.correct)
    ours = np.exp(expected.logits.astype(np.float64) - expected.logits.max(1, keepdims=True))
    np.testing.assert_allclose(found.columns["confidence"], ours.max(1) / ours.sum(1), rtol=1e-6)

    again = score(
        runs[1].path.parent / "test", encoder, test.path, unit_size=64, embeddings="npy", eps=3.0,
        overwrite=True,
    )  # fmt: skip
    assert not (again.path / "probe.parquet").exists()  # it was about the run that was deleted
    before = {path.name for path in again.path.iterdir()}
    probe(probe_parser().parse_args([*words, "--out", str(tmp_path / "out")]))
    probe(probe_parser().parse_args([*words, "--path"]))
    assert {path.name for path in test.path.iterdir()} == before
    assert (tmp_path / "out" / "probe.parquet").exists()
    capsys.readouterr()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(
        SettingsError, match=r"which cannot be written: give another folder \(--out\)"
    ):
        probe(probe_parser().parse_args(words))


def test_the_command_knows_every_protocol():
    assert get_args(Protocol) == ("logistic", *PROTOCOLS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "3"], "settings of SGD"),
        (["--protocol", "moco", "--C", "1"], "setting of logistic regression"),
        (["--C", "1", "2"], "--C has 2 values"),
        (["--path", "--protocol", "moco"], "curve of logistic regression"),
        (["--path", "--C", "-1"], "C is -1"),
        (["--protocol", "dino", "--epochs", "0"], "epochs is 0"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(runs, words, message):
    with pytest.raises(SettingsError, match=message):
        probe(probe_parser().parse_args([*(str(run.path) for run in runs), *words]))
    with pytest.raises(SettingsError, match="protocol is 'other'"):
        linear_probe(*runs, protocol="other")


def test_labels_of_a_file_count_instead_of_the_folders(runs, tmp_path):
    train, test = runs
    paths = []
    for run, name in ((train, "a.csv"), (test, "b.csv")):
        table = run.scores().select(["sample_id", "label"]).to_pandas()
        table["label"] = np.where(table["label"] == "trouser", "yes", "no")
        paths.append(tmp_path / name)
        table.to_csv(paths[-1], index=False)
    found = linear_probe(train, test, labels=paths[0], test_labels=paths[1])
    assert found.classes == ("no", "yes")
    assert found.top(1) > 0.9
    assert found.top(5) == 1


def test_what_makes_no_sense_is_refused(runs, tmp_path, encoder):
    train, test = runs
    with pytest.raises(SettingsError, match="C is 0"):
        linear_probe(train, test, C=0.0)
    one = tmp_path / "one.csv"
    train.scores().select(["sample_id", "label"]).to_pandas().assign(label="a").to_csv(
        one, index=False
    )
    with pytest.raises(SettingsError, match="class 'a'"):
        linear_probe(train, test, labels=one)
    with pytest.raises(SettingsError, match="none of the"):
        linear_probe(train, test, test_labels=_renamed(test, tmp_path / "other.csv"))
    other = ScoreRun(test.path)
    other.features = replace(test.features, fingerprint="0" * 64)
    with pytest.raises(SettingsError, match="different encoders"):
        linear_probe(train, other)


def _renamed(run: ScoreRun, path: Path) -> Path:
    run.scores().select(["sample_id", "label"]).to_pandas().assign(label="zebra").to_csv(
        path, index=False
    )
    return path
