"""Views of the same images in several runs: joined by id, with what is missing left out and counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sample_data import save_images

from qscore_fast.cli.main import main
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.evaluation import failure as fp
from qscore_fast.evaluation.joined_views import JoinedViews
from qscore_fast.evaluation.measures import Alignment, LiDAR, measure_run
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("joined") / "images", 120)


@pytest.fixture(scope="module")
def run(folder: Path, encoder: Encoder) -> ScoreRun:
    return score(folder, encoder, folder.parent / "run", embeddings="npy", unit_size=50, eps=3.0)


@pytest.fixture(scope="module")
def flip(folder: Path, encoder: Encoder) -> ScoreRun:
    out = folder.parent / "flip"
    return score(folder, encoder.with_view("flip"), out, embeddings="npy", unit_size=32)


@pytest.fixture(scope="module")
def partial(folder: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> ScoreRun:
    """The flipped images, of which three are missing and one cannot be read; and one more."""
    place = tmp_path_factory.mktemp("partial")
    files = sorted(folder.rglob("*.png"))
    for number, path in enumerate(files):
        target = place / "images" / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if number not in (0, 50, 119):
            target.write_bytes(b"" if number == 7 else path.read_bytes())
    (place / "images" / "zzz").mkdir()
    (place / "images" / "zzz" / "more.png").write_bytes(files[0].read_bytes())
    return score(place / "images", encoder.with_view("flip"), place / "run", embeddings="npy")


def frame(run: ScoreRun) -> pd.DataFrame:
    return pd.DataFrame(
        run.embeddings().astype(np.float64), index=run.scores()["sample_id"].to_pylist()
    )


def test_the_join_is_pandas(run: ScoreRun, flip: ScoreRun, partial: ScoreRun) -> None:
    joined = JoinedViews.of(run, [flip, partial.path])
    assert (len(joined), joined.num_views) == (116, 3)
    assert joined.missing == {str(partial.path): 4}
    tables = [frame(r) for r in (run, flip, partial)]
    ids = [i for i in tables[0].index if i in tables[2].index]
    expected = np.stack([t.loc[ids].to_numpy() for t in tables], axis=1)
    np.testing.assert_array_equal(np.concatenate(list(joined.blocks(17))), expected)


def test_measures_of_runs_are_those_of_the_arrays(
    run: ScoreRun, flip: ScoreRun, partial: ScoreRun, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure_run(run, views=[flip, partial])
    tables = [frame(r) for r in (run, flip, partial)]
    ids = [i for i in tables[0].index if i in tables[2].index]
    views = np.stack([t.loc[ids].to_numpy() for t in tables], axis=1)
    assert float(report["lidar"]) == pytest.approx(float(LiDAR(256).update(views).compute()))
    u = views / np.linalg.norm(views, axis=2, keepdims=True)
    pairs = [((u[:, i] - u[:, j]) ** 2).sum(1) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(report["alignment"]) == pytest.approx(np.mean(pairs))
    assert float(Alignment(256).update_views(views).compute()) == pytest.approx(np.mean(pairs))
    assert any(note.startswith("4 of 120 images have no representation") for note in report.notes)
    assert report["rankme"] == measure_run(run)["rankme"]  # of all images, whatever the views lack

    words = ["metrics", str(run.path), "--views", str(flip.path), str(partial.path), "--json"]
    assert main(words) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["measures"]["lidar"]["value"] == pytest.approx(float(report["lidar"]))
    assert content["measures"]["alignment"]["value"] == pytest.approx(np.mean(pairs))
    assert main([*words[:2], "--json"]) == 0
    assert "lidar" not in json.loads(capsys.readouterr().out)["measures"]


def test_an_image_without_a_view_is_left_out_of_the_evaluation(
    run: ScoreRun, partial: ScoreRun
) -> None:
    fitted = fp.fitted_probe(run, probe="knn")
    found = fp.evaluate_run(run, fitted, views=[partial], num_resamples=0)
    assert found.table.num_samples == 116
    assert set(found.sample_ids.to_pylist()) == set(frame(run).index) & set(frame(partial).index)
    a, b = (frame(r).loc[found.sample_ids.to_pylist()].to_numpy() for r in (run, partial))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found.scores["consistency"], cosine, atol=1e-5)
    assert all(len(score) == 116 for score in found.scores.values())
    assert any("4 of 120 images have no representation" in note for note in found.table.notes)
    assert "116 of 120 scored images are evaluated, a subset" in found.table.notes


def test_what_is_no_view_of_the_run(
    run: ScoreRun, flip: ScoreRun, encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    save_images(tmp_path / "images" / "other", 20, start=300)
    others = score(tmp_path / "images", encoder, tmp_path / "o", embeddings="npy")
    with pytest.raises(SettingsError, match="no image of .* is one of"):
        JoinedViews.of(run, [others])
    small = encoder.with_preprocess(encoder.preprocess.changed(resize=20, crop=20))
    other = score(tmp_path / "images", small, tmp_path / "small", embeddings="npy")
    with pytest.raises(SettingsError, match="another preprocess"):
        measure_run(run, views=[other])
    bare = score(folder, encoder.with_view("crop"), tmp_path / "bare")
    with pytest.raises(StoreError, match="has no embeddings"):
        measure_run(run, views=[bare])
    with pytest.raises(SettingsError, match="there is no view"):
        JoinedViews.of(run, [])
    with pytest.raises(SettingsError, match="views are runs where the source is a run"):
        measure_run(run.embeddings(), views=[flip])
    with pytest.raises(SettingsError, match="a view is a str"):
        measure_run(run, views=iter(["runs/a"]))
    lists = measure_run(run, views=[torch.rand(300, 2, 256)])
    assert lists["lidar"].details["samples"] == 300
