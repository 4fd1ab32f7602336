"""Scores against the equations on the saved representations, and the store's files as others read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hostile_images import photo, save_hostile_folder
from PIL import Image
from sample_data import PREPROCESS, save_checkpoint, small_module
from torch import nn
from torchvision import transforms as T

from qscore_fast import reference
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import QScoreError, SettingsError, SourceError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Preprocess
from qscore_fast.scoring import Progress, ScoreRun, score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path, checkpoint: Path) -> ScoreRun:
    out = tmp_path_factory.mktemp("run") / "out"
    return score(
        images, checkpoint, out, unit_size=128, batch_size=50, embeddings="npy", device="cpu"
    )


@pytest.fixture(scope="module")
def h(run: ScoreRun, images: Path) -> torch.Tensor:
    """The representations, computed with torchvision's transforms and the plain module."""
    transform = T.Compose(
        [T.Resize(28), T.CenterCrop(28), T.ToTensor(), T.Normalize((0.286,), (0.353,))]
    )
    ids = run.scores()["sample_id"].to_pylist()
    batch = torch.stack([transform(Image.open(images / name).convert("L")) for name in ids])
    with torch.no_grad():
        return small_module()(batch)


def near_threshold(h: torch.Tensor, eps: float) -> torch.Tensor:
    """(N,) bool: rows with an entry so close to mu + eps * sigma that rounding decides."""
    h = h.double()
    stats = reference.row_stats(h)
    z = (h - stats.mean[:, None]) / stats.std[:, None]
    return ((z - eps).abs() < 1e-4).any(1)


def test_scores_are_those_of_the_reference(run: ScoreRun, h: torch.Tensor) -> None:
    scores = run.scores()
    expected = reference.q_score(h.double(), run.features.mask, eps=4.0)
    clear = ~near_threshold(h, 4.0)
    assert clear.sum() > 590
    assert (expected > 0).sum() > 400
    q = torch.from_numpy(scores["q_score"].to_numpy().copy()).double()
    torch.testing.assert_close(q[clear], expected[clear], atol=1e-5, rtol=1e-4)
    active = reference.highly_active(h.double(), 4.0)
    for column, mask in (("num_highly_active", active), ("num_active", active & run.features.mask)):
        found = torch.from_numpy(scores[column].to_numpy().copy())
        assert torch.equal(found[clear].long(), mask.sum(1)[clear])
    for column, wanted in zip(("mean", "std", "l1", "l2"), reference.row_stats(h), strict=True):
        found = torch.from_numpy(scores[column].to_numpy().copy())
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_discovery_is_the_census_of_the_representations(run: ScoreRun, h: torch.Tensor) -> None:
    counts = reference.highly_active(h.double(), 4.0).sum(0)
    assert (run.features.counts - counts).abs().max() <= near_threshold(h, 4.0).sum()
    low, high = np.percentile(run.features.counts.numpy(), [50, 95])
    found = run.features.counts.numpy()
    by_hand = (found >= low) & (found <= high) & (found > 0)
    assert np.array_equal(run.features.mask.numpy(), by_hand)
    assert 0 < by_hand.sum() < 256
    assert run.features.num_samples == 600


def test_embeddings_are_the_representations(run: ScoreRun, h: torch.Tensor) -> None:
    embeddings = run.embeddings()
    assert embeddings.dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(embeddings).float(), h, atol=2e-3, rtol=2e-3)
    assert sum(len(part) for part in run.iter_embeddings()) == 600


def test_parts_hold_the_sparse_activations(run: ScoreRun, h: torch.Tensor) -> None:
    sparse = reference.sparse_activations(h, 2.0)
    feature, value, rows = [], [], 0
    for index in range(5):
        table = pq.read_table(run.path / "parts" / f"part-{index:06d}.parquet")
        assert len(table) == (128 if index < 4 else 88)
        assert set(table["status"].to_pylist()) == {"ok"}
        rows += len(table)
        feature += [x for row in table["feature"].to_pylist() for x in row]
        value += [x for row in table["value"].to_pylist() for x in row]
    assert rows == 600
    assert len(feature) == pytest.approx(len(sparse.feature), abs=3)
    if len(feature) == len(sparse.feature):
        assert feature == sparse.feature.tolist()
        np.testing.assert_allclose(value, sparse.value.numpy(), atol=1e-5, rtol=1e-4)
    types = pq.read_schema(run.path / "parts" / "part-000000.parquet")
    assert str(types.field("feature").type.value_type) == "uint16"
    assert str(types.field("value").type.value_type) == "float"


def test_ids_labels_and_order(run: ScoreRun, images: Path) -> None:
    files = sorted(str(p.relative_to(images)) for p in images.rglob("*.png"))
    scores = run.scores()
    assert scores["sample_id"].to_pylist() == files
    assert scores["label"].to_pylist() == [name.split("/")[0] for name in files]


def test_the_run_says_what_it_was_made_of(run: ScoreRun, checkpoint: Path) -> None:
    asked = json.loads((run.path / "run.json").read_text())["asked"]
    encoder = load_encoder(checkpoint, device="cpu")
    assert asked["encoder"]["fingerprint"] == encoder.fingerprint == run.features.fingerprint
    assert asked["preprocess"] == PREPROCESS
    metadata = pq.read_schema(run.path / "scores.parquet").metadata
    assert json.loads(metadata[b"qscore_fast.eps"]) == 4.0
    assert json.loads(metadata[b"qscore_fast.encoder_fingerprint"]) == encoder.fingerprint
    json.dumps(run.summary)
    q = run.scores()["q_score"].to_numpy()
    assert run.summary["q_score"]["median"] == pytest.approx(np.median(q))
    assert run.summary["empty_fraction"] == (run.scores()["num_active"].to_numpy() == 0).mean()


@pytest.mark.parametrize("batch_size", [1, 64])
def test_batch_size_and_workers_do_not_matter(
    run: ScoreRun, tmp_path: Path, images: Path, checkpoint: Path, batch_size: int
) -> None:
    other = score(
        images, checkpoint, tmp_path, batch_size=batch_size, workers=3, unit_size=300, device="cpu"
    )
    a, b = (r.scores()["l2"].to_numpy() for r in (run, other))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert other.scores()["sample_id"] == run.scores()["sample_id"]


def test_features_of_another_run(
    run: ScoreRun, tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    some = images / "bag"
    by_object = score(some, checkpoint, tmp_path / "a", run.features, device="cpu")
    by_file = score(some, checkpoint, tmp_path / "b", run.path / "features.npz", device="cpu")
    by_folder = score(some, checkpoint, tmp_path / "c", run.path, device="cpu")
    wanted = run.scores().filter(np.array(run.scores()["label"].to_pylist()) == "bag")
    for other in (by_object, by_file, by_folder):
        assert torch.equal(other.features.mask, run.features.mask)
        np.testing.assert_allclose(
            other.scores()["q_score"].to_numpy(), wanted["q_score"].to_numpy(), atol=1e-5
        )


def test_features_that_do_not_belong_are_refused(
    run: ScoreRun, tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    other = save_checkpoint(tmp_path / "other.pth", seed=1)
    with pytest.raises(SettingsError, match="discovered with another encoder"):
        score(images, other, tmp_path / "out", run.features, device="cpu")
    with pytest.raises(SettingsError, match="256 features, the encoder has 3"):
        score(images, Mean(), tmp_path / "out", run.features)
    with pytest.raises(SettingsError, match="eps = 3 contradicts"):
        score(images, checkpoint, tmp_path / "out", run.features, eps=3, device="cpu")
    assert not (tmp_path / "out").exists()


class Mean(nn.Module):
    """Three features; NaN for an image that is black."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = images.mean((2, 3))
        return mean / mean * mean


def small_encoder() -> Any:
    return load_encoder(small_module(), preprocess=Preprocess.from_json(PREPROCESS))


@pytest.mark.parametrize("unit_size", [1, 7])
def test_bad_images_are_recorded_and_the_others_scored(tmp_path: Path, unit_size: int) -> None:
    good, bad = save_hostile_folder(tmp_path / "images")
    run = score(tmp_path / "images", small_encoder(), tmp_path / "out", unit_size=unit_size)
    assert set(run.scores()["sample_id"].to_pylist()) == good | {"things/thread.png"}
    errors = {row["sample_id"]: row for row in run.errors().to_pylist()}
    bad.pop("things/thread.png")  # a 1 x 5000 image is small enough for a 28 pixel encoder
    assert errors.keys() == bad.keys()
    for sample_id, reason in bad.items():
        assert reason in errors[sample_id]["error"]
        stage = "read" if reason == "cannot be opened" else "decode"
        assert errors[sample_id]["stage"] == stage
    assert run.summary["num_failed"] == len(bad) == 7
    assert run.summary["source_notes"]["files of other kinds ignored"] == 2
    table = pq.read_table(sorted((tmp_path / "out" / "parts").glob("*.parquet")))
    failed = {row["sample_id"]: row for row in table.to_pylist() if row["status"] != "ok"}
    assert failed.keys() == bad.keys()
    for row in failed.values():
        assert row["status"] == "undecodable"
        assert [row[name] for name in ("mean", "l2", "feature", "value")] == [None] * 4


def test_features_that_are_not_finite_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(6):
        image = photo(seed=number) if number != 3 else Image.new("RGB", (40, 30))
        image.save(tmp_path / "images" / f"{number}.png")
    plain = Preprocess("RGB", 8, 8, "bilinear", (0, 0, 0), (1, 1, 1))
    encoder = load_encoder(Mean(), preprocess=plain)
    run = score(tmp_path / "images", encoder, tmp_path / "out", embeddings="npy", batch_size=4)
    assert run.errors().to_pylist() == [
        {
            "sample_id": "3.png",
            "stage": "encode",
            "error": "the encoder's features are not all finite",
        }
    ]
    assert run.scores()["sample_id"].to_pylist() == [f"{n}.png" for n in (0, 1, 2, 4, 5)]
    assert run.scores()["label"].null_count == 5
    assert np.isfinite(run.embeddings()).all()
    assert len(run.embeddings()) == 5


def test_nothing_but_bad_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_text("no image")
    with pytest.raises(QScoreError, match="none of the 1 images could be scored"):
        score(tmp_path / "images", small_encoder(), tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "errors.parquet")["sample_id"].to_pylist() == ["a.png"]


def test_dead_features_are_said_to_be_dead(tmp_path: Path, images: Path) -> None:
    run = score(images / "bag", nn.Sequential(nn.Flatten(), Constant()), tmp_path / "out")
    assert run.scores()["q_score"].to_pylist() == [0.0] * len(run.scores())
    assert any("no feature is ever active" in note for note in run.summary["notes"])


class Constant(nn.Module):
    """Eight equal features, whatever the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images), 8)


def test_progress_counts_every_image_once(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    states: list[Progress] = []
    score(
        images, checkpoint, tmp_path, unit_size=250, batch_size=100, device="cpu",
        progress=states.append,
    )  # fmt: skip
    assert states[0] == Progress(done=0, total=600, found=0, failed=0)
    done = [state.done for state in states]
    assert done == sorted(done)
    assert done[-1] == 600
    assert len(done) == 1 + 3 + 3 + 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine": "dask"}, "engine must be"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more; got 0"),
        ({"workers": -1}, "workers"),
        ({"unit_size": 1.5}, "unit_size"),
        ({"max_pixels": True}, "max_pixels"),
        ({"embeddings": "csv"}, "embeddings must be"),
        ({"activation_eps": float("nan")}, "activation_eps must be 0 or more"),
        ({"activation_eps": 5.0}, "eps = 4 is below the run's activation_eps = 5"),
        ({"activation_eps": 5.0, "eps": "auto"}, "eps = 4 is below"),
        ({"eps": 1.5}, "eps = 1.5 is below the run's activation_eps = 2"),
        ({"eps": "large"}, "eps must be a number"),
        ({"lower": 60, "upper": 50}, "percentiles"),
        ({"upper": 101}, "percentiles"),
        ({"unit_size": 2**40}, "too large for one part"),
        ({"features": "no/such/features.npz"}, "features.npz"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, images: Path, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(QScoreError, match=reason):
        score(images, small_encoder(), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_unusable_places(tmp_path: Path, images: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        score(tmp_path / "nothing", small_encoder(), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        score(images, small_encoder(), tmp_path / "file")
    with pytest.raises(StoreError, match="holds no run"):
        ScoreRun(tmp_path)


def test_a_run_without_embeddings_says_so(tmp_path: Path, images: Path) -> None:
    run = score(images / "bag", small_encoder(), tmp_path / "out")
    with pytest.raises(StoreError, match="has no embeddings"):
        run.embeddings()
    again = ScoreRun(tmp_path / "out")
    assert again.scores() == run.scores()
    assert again.summary["session"] is None
    assert isinstance(again.features, DiscriminativeFeatures)
