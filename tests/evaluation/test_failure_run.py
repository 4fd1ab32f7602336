"""A finished run against correctness: every score from the store, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sample_data import PREPROCESS, Signed, save_checkpoint, save_images
from sklearn.metrics import roc_auc_score

from qscore_fast.cli.evaluate_command import evaluate, evaluate_parser
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.evaluation import failure as fp
from qscore_fast.images import Preprocess
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> ScoreRun:
    """150 images, one of them bad."""
    folder = save_images(tmp_path_factory.mktemp("run") / "images", 150)
    (folder / "bag" / "bad.png").write_bytes(b"")
    out = folder.parent / "run"
    return score(folder, encoder, out, unit_size=40, batch_size=16, embeddings="npy", eps=3.0)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> ScoreRun:
    """300 other images: more than there are features."""
    folder = save_images(tmp_path_factory.mktemp("reference") / "images", 300, start=200)
    return score(folder, encoder, folder.parent / "run", unit_size=64, embeddings="npy")


@pytest.fixture(scope="module")
def correct(run: ScoreRun) -> Path:
    """Whether the nearest neighbour has the same label, in another order than the run's."""
    table = run.scores().to_pandas()
    h = run.embeddings().astype(np.float64)
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    cosine = h @ h.T
    np.fill_diagonal(cosine, -1)
    table["prediction"] = table["label"].to_numpy()[cosine.argmax(1)]
    table["confidence"] = cosine.max(1)
    path = run.path.parent / "probe.parquet"
    columns = ["sample_id", "label", "prediction", "confidence"]
    table.sample(frac=1, random_state=0)[columns].to_parquet(path)
    return path


def outcomes(run: ScoreRun, correct: Path) -> np.ndarray:
    frame = (
        pd.read_parquet(correct).set_index("sample_id").loc[run.scores()["sample_id"].to_pylist()]
    )
    return (frame["label"] == frame["prediction"]).to_numpy()


def test_scores_of_the_store(run: ScoreRun) -> None:
    """What the store keeps gives what the embeddings give, up to their rounding to float16."""
    found = fp.scores_of_run(run)
    expected = fp.row_scores(torch.from_numpy(run.embeddings().astype(np.float32)))
    for name in ("l1_norm", "l2_norm", "max_z", "max_activation", "v1_score", "hoyer", "gini"):
        values = expected[name].double().numpy()
        np.testing.assert_allclose(found.scores[name], values, rtol=3e-3, err_msg=name)
    q = run.scores().to_pandas()
    for name in ("q_score", "num_active", "num_highly_active"):
        np.testing.assert_array_equal(found.scores[name], q[name])
    text = " ".join(found.notes)
    assert "take the run's own images as the reference set" in text
    assert "Mahalanobis: left out, for the reference set has 150 samples for 256 features" in text
    assert {"knn_distance", "knn_density", "pca_residual"} < set(found.scores)
    assert "mahalanobis" not in found.scores


def test_scores_of_a_two_sided_run_look_above_the_mean_alone(tmp_path: Path) -> None:
    """Although its store keeps what lies far below the mean, too."""
    signed = load_encoder(Signed(), preprocess=Preprocess.from_json(PREPROCESS))
    run = score(
        save_images(tmp_path / "images", 60), signed, tmp_path / "run",
        two_sided=True, activation_eps=2.0, eps=3.0, embeddings="npy",
    )  # fmt: skip
    found = fp.scores_of_run(run)
    h = run.embeddings().astype(np.float64)
    mean, std = h.mean(1), h.std(1)
    largest = (h.max(1) - mean) / std
    assert (np.abs(h - mean[:, None]).max(1) / std > np.maximum(largest, 2) + 0.1).any()
    np.testing.assert_allclose(found.scores["max_z"], np.maximum(largest, 2), rtol=5e-3)
    bounded = np.where(largest > 2, h.max(1), mean + 2 * std)
    np.testing.assert_allclose(found.scores["max_activation"], bounded, rtol=5e-3, atol=1e-3)
    silent = int((largest <= 2).sum())
    noted = [note for note in found.notes if "no activation above" in note]
    assert [note.split()[0] for note in noted] == ([str(silent)] if silent else [])


def test_a_copy_of_the_run_as_its_reference_is_the_run_itself(
    run: ScoreRun, tmp_path: Path, encoder: Encoder
) -> None:
    images = run.path.parent / "images"
    copy = score(images, encoder, tmp_path / "copy", embeddings="npy", unit_size=64)
    own, found = (fp.scores_of_run(run, reference=other) for other in (run, copy))
    np.testing.assert_array_equal(own.scores["knn_distance"], found.scores["knn_distance"])
    assert (found.scores["knn_distance"] < -0.01).any()


def test_sure_answers_of_a_probe_do_not_tie(run: ScoreRun, correct: Path, tmp_path: Path) -> None:
    """Softmax in float32 makes 1 of all logits that lead by 17 or more."""
    count = len(run.scores())
    logits = np.zeros((count, 3), np.float32)
    logits[:, 0] = np.linspace(17, 30, count)
    np.save(tmp_path / "logits.npy", logits)
    found = fp.evaluate_run(run, correct, logits=tmp_path / "logits.npy", num_resamples=10)
    assert len(np.unique(found.scores["msp"])) == len(np.unique(found.scores["margin"])) == count


def test_images_without_kept_activations_share_the_bound(tmp_path: Path, encoder: Encoder) -> None:
    images = save_images(tmp_path / "images", 40)
    run = score(images, encoder, tmp_path / "run", activation_eps=4.0, eps=4.0, embeddings="npy")
    found = fp.scores_of_run(run)
    z = fp.row_scores(torch.from_numpy(run.embeddings().astype(np.float32)))["max_z"].numpy()
    silent = run.scores()["num_highly_active"].to_numpy() == 0
    assert (found.scores["max_z"][silent] == 4).all()
    np.testing.assert_allclose(found.scores["max_z"], np.maximum(z, 4), rtol=3e-3)
    noted = [note for note in found.notes if "no activation above" in note]
    assert bool(noted) == silent.any()
    if silent.any():
        assert noted[0].startswith(f"{silent.sum()} images")


def test_reference_and_views(run: ScoreRun, reference: ScoreRun) -> None:
    found = fp.scores_of_run(run, reference=reference, views=[run], settings=fp.RivalSettings(k=3))
    assert found.notes == []
    h, other = (torch.from_numpy(r.embeddings().astype(np.float32)) for r in (run, reference))
    gaussian = fp.Gaussian.fit([other])
    np.testing.assert_allclose(found.scores["mahalanobis"], -gaussian.mahalanobis(h))
    np.testing.assert_allclose(found.scores["pca_residual"], -gaussian.pca_residual(h))
    u, v = (x.numpy() / np.linalg.norm(x, axis=1, keepdims=True) for x in (h, other))
    third = np.sort(np.linalg.norm(u[:, None] - v[None], axis=2), 1)[:, 2]
    np.testing.assert_allclose(found.scores["knn_distance"], -third, atol=1e-3)
    np.testing.assert_allclose(found.scores["consistency"], 1, atol=1e-5)
    # Joined by id: the images that the view lacks have no consistency.
    shared = np.isin(run.scores()["sample_id"], reference.scores()["sample_id"])
    found = fp.scores_of_run(run, views=[reference])
    np.testing.assert_array_equal(np.isnan(found.scores["consistency"]), ~shared)


def test_another_encoder_is_refused(tmp_path: Path, run: ScoreRun) -> None:
    other = load_encoder(save_checkpoint(tmp_path / "other.pth", seed=1), device="cpu")
    images = save_images(tmp_path / "images", 20)
    foreign = score(images, other, tmp_path / "run", embeddings="npy")
    with pytest.raises(SettingsError, match="another encoder"):
        fp.scores_of_run(run, reference=foreign)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"regularisation": -1.0}, "regularisation = -1"),
        ({"explained": 1.0}, "explained = 1"),
        ({"device": "gpu"}, "device = gpu cannot be used"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fp.RivalSettings(**settings)


def test_without_embeddings(tmp_path: Path, encoder: Encoder) -> None:
    run = score(save_images(tmp_path / "images", 30), encoder, tmp_path / "run")
    found = fp.scores_of_run(run)
    assert "gini" not in found.scores
    assert {"v1_score", "max_z", "max_activation", "hoyer"} < set(found.scores)
    assert "without embeddings (--embeddings npy)" in " ".join(found.notes)


def test_evaluate_run(tmp_path: Path, run: ScoreRun, reference: ScoreRun, correct: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(150, 10))
    np.save(tmp_path / "logits.npy", logits)
    found = fp.evaluate_run(
        run.path, correct, reference=reference.path, columns=["confidence"],
        logits=tmp_path / "logits.npy", num_resamples=50,
    )  # fmt: skip
    expected = outcomes(run, correct)
    np.testing.assert_array_equal(found.correct, expected)
    assert found.sample_ids.to_pylist() == run.scores()["sample_id"].to_pylist()
    # All of the registry but the one that needs views, and the column.
    names = {row.rival.name for row in found.table.rows}
    assert names == {r.name for r in fp.RIVALS} - {"consistency"} | {"confidence"}
    q = run.scores()["q_score"].to_numpy()
    assert found.table.main == "q_score"
    assert found.table.value("q_score", "auroc").value == pytest.approx(roc_auc_score(expected, q))
    # Rows of the logits are the file's, not the run's.
    ids = pd.read_parquet(correct)["sample_id"].tolist()
    place = [ids.index(i) for i in found.sample_ids.to_pylist()]
    np.testing.assert_allclose(found.scores["max_logit"], logits.max(1)[place])

    paths = found.write(tmp_path / "new" / "out")
    assert [path.name for path in paths] == ["failure.json", "failure.md", "failure.parquet"]
    assert json.loads(paths[0].read_text())["num_samples"] == 150
    assert "| AUROC |" in paths[1].read_text().replace("  ", "")
    table = pq.read_table(paths[2])
    np.testing.assert_array_equal(table["q_score"], q)
    assert table["correct"].to_pylist() == expected.tolist()


def test_what_does_not_fit(tmp_path: Path, run: ScoreRun, correct: Path) -> None:
    frame = pd.read_parquet(correct)
    few = tmp_path / "few.parquet"
    frame[:40].to_parquet(few)
    with pytest.raises(SettingsError, match="110 of 150 scored samples are missing"):
        fp.evaluate_run(run, few)
    found = fp.evaluate_run(run, few, subset=True, num_resamples=0)
    assert found.table.num_samples == 40
    assert "40 of 150 scored images are evaluated, a subset" in found.table.notes
    frame.assign(label="shirt").to_parquet(tmp_path / "labels.parquet")
    with pytest.raises(SettingsError, match="labels of .* are not the run's"):
        fp.evaluate_run(run, tmp_path / "labels.parquet")
    frame.rename(columns={"confidence": "hoyer"}).to_parquet(tmp_path / "name.parquet")
    with pytest.raises(SettingsError, match="'hoyer' is that of a score"):
        fp.evaluate_run(run, tmp_path / "name.parquet", columns=["hoyer"])
    np.save(tmp_path / "logits.npy", np.zeros((149, 10)))
    with pytest.raises(SettingsError, match=r"shape \(149, 10\): .* the 150 rows"):
        fp.evaluate_run(run, correct, logits=tmp_path / "logits.npy")
    with pytest.raises(SettingsError, match="cannot be read"):
        fp.evaluate_run(run, correct, logits=tmp_path / "none.npy")
    with pytest.raises(StoreError):
        fp.evaluate_run(tmp_path, correct)


def test_the_bad_image_may_have_an_outcome(tmp_path: Path, run: ScoreRun) -> None:
    ids = [*run.scores()["sample_id"].to_pylist(), "bag/bad.png"]
    pd.DataFrame({"sample_id": ids, "correct": True}).to_csv(tmp_path / "all.csv", index=False)
    found = fp.evaluate_run(run, tmp_path / "all.csv", num_resamples=5)
    assert found.table.num_samples == 150
    assert "undefined (1)" in found.to_markdown()


def test_command(
    tmp_path: Path, run: ScoreRun, correct: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(run.path), "--correct", str(correct), "--resamples", "20", "--coverage", "0.5"]
    evaluate(evaluate_parser().parse_args(words))
    out, err = capsys.readouterr()
    assert err == ""
    assert "Q-Score less the other, on the same resamples:" in out
    assert "accuracy at 50 %" in out
    evaluate(evaluate_parser().parse_args([*words, "--json", "--out", str(tmp_path / "o")]))
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert content["files"] == [
        str(tmp_path / "o" / f"failure.{s}") for s in ("json", "md", "parquet")
    ]
    assert err.count("qscore: written ") == 3
    assert {"constant", "shuffled"} < {row["name"] for row in content["scores"]}
