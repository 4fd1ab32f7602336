"""``qscore discover`` and ``rescore`` as commands: what they leave alone, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
from run_tables import tables_of
from sample_data import save_images

from qscore_fast.cli import main
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """``train``, discovered at eps 3 between other percentiles, and ``val``, scored with its features."""
    place = tmp_path_factory.mktemp("discover")
    for name, start in (("train", 100), ("val", 400)):
        save_images(place / f"{name}-images", 60, start=start)
    train = score(
        place / "train-images",
        checkpoint,
        place / "train",
        eps=3.0,
        lower=40,
        upper=90,
        device="cpu",
    )
    score(place / "val-images", checkpoint, place / "val", train.features, device="cpu")
    return place


@pytest.fixture
def runs(scored: Path, tmp_path: Path) -> Path:
    for name in ("train", "val"):
        copytree(scored / name, tmp_path / name)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_a_report_looks_at_the_runs_own_features_and_changes_nothing(runs, capsys):
    before = tables_of(runs / "train")
    code, out, _ = call(capsys, "discover", runs / "train", "--report", runs / "about", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["eps"], found["lower"], found["upper"]) == (3, 40, 90)
    assert found["report"] == json.loads((runs / "about" / "discovery.json").read_text())
    assert found["features"] is None
    assert tables_of(runs / "train") == before
    assert (
        "nothing in the run"
        in call(capsys, "discover", runs / "train", "--report", runs / "about")[1]
    )


def test_what_is_not_given_is_the_runs_own(runs, capsys):
    before = tables_of(runs / "train")
    assert call(capsys, "discover", runs / "train")[0] == 0
    assert tables_of(runs / "train") == before
    assert call(capsys, "discover", runs / "train", "--upper", 95)[0] == 0
    found = ScoreRun(runs / "train").features
    assert (found.eps, found.lower, found.upper) == (3, 40, 95)


def test_auto_stays_auto(runs, capsys):
    assert call(capsys, "discover", runs / "train", "--eps", "auto")[0] == 0
    before = tables_of(runs / "train")
    assert "(auto)" in call(capsys, "discover", runs / "train")[1]
    assert tables_of(runs / "train") == before


def test_features_that_were_given_are_replaced_only_where_that_was_said(runs, capsys):
    before = tables_of(runs / "val")
    for words in ((), ("--eps", 2.5), ("--eps", 2.5, "--report", runs / "about")):
        code, _, error = call(capsys, "discover", runs / "val", *words)
        assert code == 2
        assert "given to it" in error and "--replace-given" in error
    code, _, error = call(capsys, "discover", runs / "val", "--report", runs / "about")
    assert code == 2 and "discovered on other samples" in error
    assert tables_of(runs / "val") == before
    assert not (runs / "about" / "discovery.json").exists()

    words = ("discover", runs / "val", "--out", runs / "f.npz", "--report", runs / "about")
    assert call(capsys, *words)[0] == 0
    assert tables_of(runs / "val") == before
    assert json.loads((runs / "about" / "discovery.json").read_text())["num_samples"] == 60
    assert call(capsys, "discover", runs / "val", "--replace-given")[0] == 0
    found = ScoreRun(runs / "val").features
    assert (found.eps, found.lower, found.upper) == (3, 40, 90)
    assert found.counts.tolist() != ScoreRun(runs / "train").features.counts.tolist()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [("sample_id,label\n", "no rows"), ("sample_id,label\nx,a\n", "no label for 60 of 60")],
)
def test_labels_are_read_before_anything_is_written(runs, capsys, labels, reason):
    before = tables_of(runs / "train")
    (runs / "bad.csv").write_text(labels)
    words = ("discover", runs / "train", "--eps", 2.5, "--report", runs / "about")
    code, _, error = call(capsys, *words, "--labels", runs / "bad.csv")
    assert code == 2 and reason in error
    assert tables_of(runs / "train") == before
    (runs / "file").write_text("")
    code, _, error = call(capsys, *words[:-1], runs / "file")
    assert code == 2 and "cannot make the folder" in error
    assert tables_of(runs / "train") == before


def test_both_spellings_of_the_percentiles(runs, capsys):
    for verb in ("discover", "rescore"):
        results = []
        for words in (("--lower", 30, "--upper", 80), ("--percentiles", 30, 80)):
            assert call(capsys, verb, runs / "train", "--eps", 3, *words)[0] == 0
            results.append(tables_of(runs / "train"))
        assert results[0] == results[1]
        code, _, error = call(capsys, verb, runs / "train", "--lower", 30, "--percentiles", 30, 80)
        assert code == 2 and "in one" in error


def test_empty_features_are_told_wherever_they_come_from(runs, capsys):
    said = "no feature is ever active at eps = 30: every score is 0"
    assert said in call(capsys, "discover", runs / "train", "--eps", 30)[1]
    assert said in call(capsys, "rescore", runs / "train", "--eps", 30)[1]
    assert said in call(capsys, "rescore", runs / "val", "--features", runs / "train")[1]
