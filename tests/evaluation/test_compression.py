"""Compression: which features are kept, and that the files hold exactly these."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_data import save_images

from qscore_fast.cli.compress_command import compress, compress_parser
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.evaluation.compression import (
    SHARES,
    STRATEGIES,
    KeptFeatures,
    compress_run,
    compression_curve_of_runs,
    kept_indices,
)
from qscore_fast.evaluation.compression.principal_axes import principal_axes, turned
from qscore_fast.evaluation.compression.selection import column_variances
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.features import FeatureCensus, discriminative_features
from qscore_fast.scoring import ScoreRun, discover, score


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> ScoreRun:
    folder = save_images(tmp_path_factory.mktemp("compress") / "images", 120)
    (folder / "bag" / "bad.png").write_bytes(b"")
    encoder = load_encoder(checkpoint, device="cpu")
    return score(folder, encoder, folder.parent / "run", unit_size=25, embeddings="npy", eps=3.0)


def test_the_published_share_keeps_the_published_band():
    """Without ties, 45 % in order of activity are D at the 50th to 95th percentile."""
    counts = torch.from_numpy(np.random.default_rng(3).permutation(1000))
    published = discriminative_features(FeatureCensus.from_counts(counts, 1000))
    kept = kept_indices("discriminative", 0.45, counts.numpy())
    assert np.array_equal(kept, published.indices.numpy())


@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any),
    share=st.floats(0.01, 1),
    strategy=st.sampled_from(STRATEGIES),
)
def test_every_strategy_keeps_what_it_says(counts, share, strategy):
    counts = np.array(counts)
    variances = (counts * 7 % 5).astype(float)
    kept = kept_indices(strategy, share, counts, variances=variances, seed=1)
    left = np.setdiff1d(np.arange(len(counts)), kept)
    assert len(kept) == max(1, round(share * len(counts))) == len(set(kept))
    if not len(left):
        return
    if strategy == "top_tail":
        assert counts[kept].min() >= counts[left].max()
    elif strategy == "bottom_tail":
        assert counts[kept].max() <= counts[left].min()
    elif strategy == "variance":
        assert variances[kept].min() >= variances[left].max()
    elif strategy == "discriminative":
        low, high = counts[kept].min(), counts[kept].max()
        assert not ((counts[left] > low) & (counts[left] < high)).any()
        # No more is cut at the top than at the bottom: the band leans upwards, as the published one does.
        assert (counts[left] > high).sum() <= (counts[left] <= high).sum()


def test_random_subsets_differ_by_seed_and_hold_every_feature_alike():
    counts = np.zeros(50, int)
    held = np.zeros(50)
    for seed in range(400):
        held[kept_indices("random", 0.3, counts, seed=seed)] += 1
    assert np.array_equal(
        kept_indices("random", 0.3, counts, seed=7), kept_indices("random", 0.3, counts, seed=7)
    )
    # 400 draws at 0.3: 120 each, and five standard deviations are 46.
    assert (abs(held - 120) < 46).all()


def test_variances_of_data_with_a_large_mean_match_numpy():
    h = np.random.default_rng(0).normal(1000, [0.5, 2, 0, 9], (700, 4)).astype(np.float32)
    found = column_variances(FeatureRows((h[:300], h[300:])), block=97)
    np.testing.assert_allclose(found, h.astype(np.float64).var(0), rtol=1e-9)
    h[3, 1] = np.nan
    with pytest.raises(SettingsError, match="NaN"):
        column_variances(FeatureRows((h,)))


def test_principal_axes_match_scikit_learn(tmp_path):
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    h = load_digits().data.astype(np.float32)
    mean, axes = principal_axes(FeatureRows((h[:500], h[500:])))
    found = turned(FeatureRows((h[:500], h[500:])), mean, axes, tmp_path / "t.npy").to_array()
    expected = PCA(20, svd_solver="full").fit_transform(h.astype(np.float64))
    signs = np.sign((found[:, :20] * expected).sum(0))
    np.testing.assert_allclose(found[:, :20] * signs, expected, atol=2e-3)


@pytest.mark.parametrize("file_format", ["npy", "parquet"])
@pytest.mark.parametrize("keep", [None, 0.6])
def test_the_files_hold_the_kept_columns(run, tmp_path, file_format, keep):
    found = compress_run(run, tmp_path / "out", keep=keep, file_format=file_format)
    kept = KeptFeatures.load(tmp_path / "out" / "kept.json")
    assert kept.fingerprint == run.features.fingerprint
    if keep is None:
        assert np.array_equal(kept.indices, run.features.indices.numpy())
    else:
        assert len(kept) == round(0.6 * run.features.num_features)
    if file_format == "npy":
        rows = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
        ids = pq.read_table(tmp_path / "out" / "sample_ids.parquet")["sample_id"]
    else:
        table = pq.read_table(tmp_path / "out" / "embeddings.parquet")
        ids, rows = table["sample_id"], np.array(table["embedding"].to_pylist())
    assert ids.to_pylist() == run.scores()["sample_id"].to_pylist()
    np.testing.assert_array_equal(rows, run.embeddings()[:, kept.indices])
    np.testing.assert_array_equal(kept.apply(run.embeddings(), kept.fingerprint), rows)
    assert found.bytes_before == run.embeddings().nbytes


@pytest.mark.parametrize(("kind", "size"), [("flat", 4), ("fp16", 2)])
def test_the_index_shrinks_by_as_much_and_finds_the_neighbours(run, tmp_path, kind, size):
    small = compress_run(run, tmp_path / "a", keep=0.25, index=kind)
    whole = compress_run(run, tmp_path / "b", keep=1, index=kind)
    n, r = run.embeddings().shape
    overhead = 256  # the header of a FAISS file
    assert 0 <= small.index_bytes - n * round(0.25 * r) * size < overhead
    assert 0 <= whole.index_bytes - whole.full_index_bytes < overhead
    index = faiss.read_index(str(tmp_path / "a" / "index.faiss"))
    h = run.embeddings()[:, small.kept.indices].astype(np.float64)
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    similarity, _ = index.search(h.astype(np.float32), 3)
    expected = -np.sort(-(h @ h.T), axis=1)[:, :3]
    np.testing.assert_allclose(similarity, expected, atol=2e-3)


def test_the_command_writes_and_prints(run, tmp_path, capsys):
    out = tmp_path / "out"
    words = [str(run.path), "--keep", "0.5", "--strategy", "variance", "--out", str(out), "--json"]
    compress(compress_parser().parse_args(words))
    printed = json.loads(capsys.readouterr().out)
    assert printed["strategy"] == "variance"
    kept = KeptFeatures.load(out / "kept.json").indices
    variance = run.embeddings().astype(np.float64).var(0)
    left = np.setdiff1d(np.arange(len(variance)), kept)
    assert variance[kept].min() >= variance[left].max() - 1e-12
    with pytest.raises(SettingsError, match="--test"):
        compress(compress_parser().parse_args([*words, "--test", str(run.path)]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "share to keep is 0"),
        ({"keep": 1.2}, "share to keep is 1.2"),
        ({"keep": float("nan")}, "share to keep is nan"),
        ({"strategy": "random"}, "give keep"),
        ({"keep": 0.5, "strategy": "best"}, "strategy is 'best'"),
        ({"keep": 0.5, "index": "hnsw"}, "'hnsw'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(run, tmp_path, settings, message):
    with pytest.raises(SettingsError, match=message):
        compress_run(run, tmp_path / "out", **settings)


def test_a_run_without_embeddings_is_refused(tmp_path, checkpoint):
    images = save_images(tmp_path / "images", 20)
    bare = score(images, load_encoder(checkpoint, device="cpu"), tmp_path / "bare")
    with pytest.raises(StoreError, match="no embeddings"):
        compress_run(bare, tmp_path / "out", keep=0.5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": "other"}',
        '{"format": "qscore-fast.kept-features.1", "indices": [3, 1], "num_features": 8, "strategy": "x", '
        '"fingerprint": null}',
        '{"format": "qscore-fast.kept-features.1", "indices": [8], "num_features": 8, "strategy": "x", '
        '"fingerprint": null}',
        '{"format": "qscore-fast.kept-features.1", "indices": [1e99], "num_features": 8, "strategy": "x", '
        '"fingerprint": null}',
    ],
)
def test_a_damaged_list_is_refused(tmp_path, content):
    path = tmp_path / "kept.json"
    path.write_text(content)
    with pytest.raises((StoreError, SettingsError)):
        KeptFeatures.load(path)


def test_kept_features_refuse_another_width():
    with pytest.raises(SettingsError, match="r = 8"):
        KeptFeatures(np.array([1, 5]), 8, "random").apply(np.zeros((2, 9)))


def test_kept_features_refuse_another_encoder_of_the_same_width():
    kept = KeptFeatures(np.array([1, 5]), 8, "random", "a" * 64)
    h = torch.arange(16.0).view(2, 8)
    assert kept.apply(h, "a" * 64).tolist() == [[1, 5], [9, 13]]
    with pytest.raises(
        SettingsError, match="features of another encoder .*aaaaaaaaaaaa.*bbbbbbbbbbbb"
    ):
        kept.apply(h, "b" * 64)
    with pytest.raises(SettingsError, match="say that h is of the same one"):
        kept.apply(h)
    unknown = KeptFeatures(np.array([1, 5]), 8, "random")
    assert unknown.apply(h).tolist() == unknown.apply(h, "b" * 64).tolist() == [[1, 5], [9, 13]]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_census_has_no_order_to_go_by(strategy):
    dead, variances = np.zeros(20, int), np.arange(20.0)
    if strategy in ("random", "variance"):
        assert len(kept_indices(strategy, 0.5, dead, variances=variances)) == 10
        return
    with pytest.raises(SettingsError, match="no feature is ever active .* smaller eps"):
        kept_indices(strategy, 0.5, dead)


def test_a_run_without_live_features_is_refused_before_anything_is_written(run, tmp_path):
    silent = ScoreRun(copytree(run.path, tmp_path / "silent"))
    discover(silent.path, eps=30)
    silent = ScoreRun(silent.path)
    for settings in ({"keep": 0.5}, {"keep": 0.5, "strategy": "top_tail"}):
        with pytest.raises(SettingsError, match="no feature is ever active"):
            compress_run(silent, tmp_path / "out", **settings)
    with pytest.raises(SettingsError, match="no feature is ever active"):
        compression_curve_of_runs(silent, silent, shares=[0.5])
    assert not (tmp_path / "out").exists()
    found = compress_run(silent, tmp_path / "out", keep=0.5, strategy="variance")
    assert found.num_dead == 128 and found.notes == ()


def test_a_share_that_reaches_into_dead_features_says_how_many(run, tmp_path):
    counts = run.features.counts.numpy()
    dead = int((counts == 0).sum())
    assert 0 < dead < 200  # otherwise this test shows nothing
    for strategy in ("discriminative", "bottom_tail"):
        found = compress_run(run, tmp_path / strategy, keep=0.98, strategy=strategy)
        inside = int((counts[found.kept.indices] == 0).sum())
        assert found.to_json()["num_dead"] == inside > 0
        assert (
            f"{inside} of the {len(found.kept)} features kept by {strategy} are dead"
            in found.notes[0]
        )
        assert f"of 256 features {dead} are never active" in found.lines()[-1]
    assert compress_run(run, tmp_path / "d").notes == ()
    assert compress_run(run, tmp_path / "r", keep=0.98, strategy="random").notes == ()


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        (["--test", "RUN", "--strategy", "random", "--format", "npy"], "--strategy, --format"),
        (["--test", "RUN", "--seed", "1", "--index", "none"], "--index, --seed"),
        (["--test", "RUN", "--keep", "0.5"], "--keep"),
        (["--keep", "0.5", "--shares", "0.5", "--C", "1"], "--shares, --C"),
        (["--labels", "a.csv", "--test-labels", "b.csv"], "--labels, --test-labels"),
        (["--seeds", "2", "--device", "cpu"], "--seeds, --device"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, tmp_path, words, left_out):
    given = [str(run.path) if word == "RUN" else word for word in words]
    options = compress_parser().parse_args([str(run.path), *given, "--out", str(tmp_path / "out")])
    with pytest.raises(SettingsError, match=f"leave out {left_out}$"):
        compress(options)


def test_the_curve_has_the_shares_of_the_library(run, tmp_path, monkeypatch, capsys):
    asked = []

    def drawn(*runs, **settings):
        asked.append(settings)
        raise SettingsError("far enough")

    monkeypatch.setattr("qscore_fast.evaluation.compression.compression_curve_of_runs", drawn)
    words = [str(run.path), "--test", str(run.path), "--out", str(tmp_path)]
    for shares in ([], ["--shares", "0.5", "0.2"]):
        with pytest.raises(SettingsError, match="far enough"):
            compress(compress_parser().parse_args([*words, *shares]))
    assert "shares" not in asked[0] and asked[1]["shares"] == [0.5, 0.2]
    with pytest.raises(SystemExit):
        compress_parser().parse_args(["--help"])
    assert "(default: 0.9 to 0.1, in steps of 0.1)" in " ".join(capsys.readouterr().out.split())
    assert list(SHARES) == [round(0.9 - 0.1 * i, 1) for i in range(9)]


def test_the_options_reach_what_they_are_for(run, tmp_path, capsys):
    words = [str(run.path), "--keep", "0.5", "--strategy", "random", "--seed", "7"]
    compress(
        compress_parser().parse_args([*words, "--format", "parquet", "--out", str(tmp_path / "o")])
    )
    kept = KeptFeatures.load(tmp_path / "o" / "kept.json")
    expected = kept_indices("random", 0.5, run.features.counts.numpy(), seed=7)
    np.testing.assert_array_equal(kept.indices, expected)
    assert (tmp_path / "o" / "embeddings.parquet").exists()
    words = [
        str(run.path),
        "--test",
        str(run.path),
        "--shares",
        "0.5",
        "--seeds",
        "2",
        "--C",
        "0.01",
    ]
    compress(compress_parser().parse_args([*words, "--out", str(tmp_path / "c"), "--json"]))
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "C = 0.01" in content["probe"]
    assert {p["strategy"]: len(p["accuracies"]) for p in content["points"]}["random"] == 2
    # 119 images are fewer than the 256 features, which probe says, too.
    assert "are fewer than the 256 features" in content["notes"][0]
    assert content["notes"][0] in (tmp_path / "c" / "compression.md").read_text()
