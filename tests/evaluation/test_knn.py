"""Neighbours against scikit-learn's brute force, votes against a loop, FAISS, and cleanlab on the graph."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest
from cleanlab import Datalab
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_data import save_images
from scipy.sparse import load_npz
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from qscore_fast.cli.knn_command import knn, knn_parser
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import MissingExtraError, QScoreError, SettingsError
from qscore_fast.evaluation.failure import Correctness
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import (
    Neighbours,
    nearest,
    neighbour_graph,
    search,
    searched,
    votes,
)
from qscore_fast.evaluation.knn import index as knn_index
from qscore_fast.evaluation.probes import knn_probe
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    # Noise, so that no two cosines are equal.
    x = data.data + np.random.default_rng(0).normal(0, 0.05, data.data.shape)
    return x.astype(np.float32), data.target.astype(np.int64)


@pytest.mark.parametrize("small", [False, True])
def test_exact_search_is_scikit_learns(digits, monkeypatch, small):
    if small:  # many blocks, and fewer references in one than k
        monkeypatch.setattr(search, "QUERIES", 37)
        monkeypatch.setattr(search, "REFERENCES", 11)
    x, _ = digits
    found = nearest(FeatureRows((x[1500:],)), FeatureRows((x[:700], x[700:1500])), 20)
    theirs = NearestNeighbors(n_neighbors=20, algorithm="brute", metric="cosine").fit(x[:1500])
    distance, index = theirs.kneighbors(x[1500:].astype(np.float64))
    np.testing.assert_allclose(1 - found.similarity, distance, atol=1e-6)
    # Rounding to float32 may swap neighbours that are nearer to each other than that.
    assert (found.index == index).mean() > 0.999


@settings(deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-1, 1), min_size=2, max_size=2), min_size=2, max_size=25),
    k=st.integers(1, 8),
    itself=st.booleans(),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_equal_cosines_come_in_the_order_of_the_rows(rows, k, itself, sizes):
    h = np.array(rows, np.float32)
    k = min(k, len(h) - itself)
    before = search.QUERIES, search.REFERENCES
    search.QUERIES, search.REFERENCES = sizes
    try:
        found = nearest(FeatureRows((h,)), FeatureRows((h,)), k, itself=itself)
    finally:
        search.QUERIES, search.REFERENCES = before
    norm = np.maximum(np.linalg.norm(h.astype(np.float64), axis=1, keepdims=True), 1e-30)
    cosine = np.round((h / norm) @ (h / norm).T, 5)
    if itself:
        np.fill_diagonal(cosine, -np.inf)
    for query in range(len(h)):
        expected = sorted(range(len(h)), key=lambda j: (-cosine[query, j], j))[:k]
        np.testing.assert_allclose(cosine[query, found.index[query]], cosine[query, expected])
        for value in set(cosine[query, expected]):
            same = [j for j in found.index[query] if cosine[query, j] == value]
            exact = np.unique(found.similarity[query][cosine[query, found.index[query]] == value])
            if len(exact) == 1:
                assert same == sorted(same)


def dinos(distance):
    return np.exp((1 - distance) / 0.07)


def test_the_vote_is_dinos(digits):
    """DINO's evaluation, written as a loop over queries and neighbours in float64."""
    x, y = digits
    found = nearest(FeatureRows((x[1500:],)), FeatureRows((x[:1500],)), 50)
    for k, temperature in ((10, 0.07), (50, 0.1)):
        ours = votes(found, y[:1500], 10, k, temperature=temperature)
        for query in range(0, 297, 13):
            scores = np.zeros(10)
            for similarity, row in zip(
                found.similarity[query, :k], found.index[query, :k], strict=True
            ):
                scores[y[row]] += np.exp(np.float64(similarity) / temperature)
            np.testing.assert_allclose(ours[query], scores / scores.sum(), rtol=1e-9)


def test_the_uniform_vote_is_scikit_learns(digits):
    x, y = digits
    found = nearest(FeatureRows((x[1500:],)), FeatureRows((x[:1500],)), 15)
    theirs = KNeighborsClassifier(15, algorithm="brute", metric="cosine").fit(x[:1500], y[:1500])
    expected = theirs.predict_proba(x[1500:])
    np.testing.assert_allclose(
        votes(found, y[:1500], 10, 15, weighting="uniform"), expected, atol=0.07
    )
    assert (
        votes(found, y[:1500], 10, 15, weighting="uniform").argmax(1) == expected.argmax(1)
    ).mean() > 0.99


def test_a_tiny_temperature_does_not_overflow():
    found = Neighbours(np.array([[0.9, 0.5]], np.float32), np.array([[1, 0]]))
    np.testing.assert_allclose(votes(found, np.array([0, 1]), 2, 2, temperature=1e-4), [[0, 1]])


def test_faiss_finds_the_same_and_says_what_it_misses(digits):
    x, _ = digits
    queries, references = FeatureRows((x[1500:],)), FeatureRows((x[:1500],))
    truth = nearest(queries, references, 10)
    flat = searched(queries, references, 10, "faiss-flat")
    np.testing.assert_allclose(flat.neighbours.similarity, truth.similarity, atol=1e-6)
    assert flat.recall == 1
    for name in ("faiss-ivf", "faiss-hnsw"):
        found = searched(queries, references, 10, name)
        hits = [
            len(set(a) & set(b)) for a, b in zip(found.neighbours.index, truth.index, strict=True)
        ]
        assert found.recall == pytest.approx(np.sum(hits) / truth.index.size)
        assert found.recall > 0.7
    one = searched(queries, references, 10, "faiss-ivf", probes=1)
    every = searched(queries, references, 10, "faiss-ivf", probes=10_000)
    assert one.recall < 0.95 < every.recall


def test_queries_for_which_an_index_finds_nothing_are_answered_exactly():
    """Of a collapsed encoder: all references in one list, the others empty."""
    rng = np.random.default_rng(0)
    references = FeatureRows((np.ones((1600, 8), np.float32),))
    queries = FeatureRows((np.abs(rng.normal(size=(50, 8))).astype(np.float32),))
    found = searched(queries, references, 5, "faiss-ivf")
    assert found.settings["answered_exactly"] > 0
    truth = nearest(queries, references, 5)
    assert (found.neighbours.index >= 0).all()
    np.testing.assert_allclose(found.neighbours.similarity, truth.similarity, atol=1e-6)
    shares = votes(found.neighbours, np.arange(1600) % 3, 3, 5)
    np.testing.assert_allclose(shares.sum(1), 1)


def test_the_graph_is_scikit_learns_and_cleanlab_takes_it(digits):
    x, y = digits
    graph = neighbour_graph(FeatureRows((x[:400], x[400:600])), 8)
    theirs = NearestNeighbors(n_neighbors=8, algorithm="brute", metric="cosine").fit(x[:600])
    expected = theirs.kneighbors_graph(mode="distance")
    assert abs(graph - expected).max() < 1e-6
    assert (np.diff(graph.indptr) == 8).all()
    rows = graph.data.reshape(600, 8)
    assert (np.diff(rows, axis=1) >= 0).all()
    assert not graph.diagonal().any()
    pixels = pd.DataFrame({"label": y[:600]})
    found = []
    for given_graph in (graph, expected):
        lab = Datalab(pixels, label_name="label", verbosity=0)
        lab.find_issues(knn_graph=given_graph, issue_types={"outlier": {"k": 8}})
        found.append(lab.get_issues("outlier")["outlier_score"].to_numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_float16_rows_and_a_row_of_zeros():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(50, 16)).astype(np.float16)
    h[7] = 0
    found = nearest(FeatureRows((h,)), FeatureRows((h,)), 3)
    wide = h.astype(np.float64) / np.maximum(
        np.linalg.norm(h.astype(np.float64), axis=1, keepdims=True), 1e-30
    )
    expected = -np.sort(-(wide @ wide.T), axis=1)[:, :3]
    np.testing.assert_allclose(found.similarity, expected, atol=1e-6)
    assert found.index[7].tolist() == [0, 1, 2] and not found.similarity[7].any()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> list[ScoreRun]:
    place = tmp_path_factory.mktemp("knn")
    encoder = load_encoder(checkpoint, device="cpu")
    folders = [save_images(place / "train", 300, start=200), save_images(place / "test", 120)]
    return [
        score(
            folder, encoder, place / f"{folder.name}-run", unit_size=64, embeddings="npy", eps=3.0
        )
        for folder in folders
    ]


def test_a_run_is_classified_and_written(runs, tmp_path, capsys):
    train, test = runs
    words = [str(train.path), str(test.path), "--k", "5", "20", "--out", str(tmp_path), "--json"]
    knn(knn_parser().parse_args([*words, "--graph", str(tmp_path / "graph.npz")]))
    graph = load_npz(tmp_path / "graph.npz")
    expected = NearestNeighbors(n_neighbors=20, algorithm="brute", metric="cosine").fit(
        test.embeddings().astype(np.float64)
    )
    assert abs(graph - expected.kneighbors_graph(mode="distance")).max() < 1e-5
    capsys.readouterr()
    knn(knn_parser().parse_args(words))
    printed = json.loads(capsys.readouterr().out)
    table = pd.read_parquet(tmp_path / "knn.parquet")
    assert table["sample_id"].tolist() == test.scores()["sample_id"].to_pylist()
    assert ((table["label"] == table["prediction"]) == table["correct"]).all()
    by_k = {row["k"]: row for row in printed["accuracies"]}
    assert (
        by_k[20]["top1"]
        == table["correct"].mean()
        == Correctness.read(tmp_path / "knn.parquet").correct.mean()
    )
    for k in (5, 20):
        theirs = KNeighborsClassifier(k, algorithm="brute", metric="cosine", weights=dinos).fit(
            train.embeddings().astype(np.float64), train.scores()["label"].to_numpy()
        )
        expected = theirs.score(
            test.embeddings().astype(np.float64), test.scores()["label"].to_numpy()
        )
        assert by_k[k]["top1"] == pytest.approx(expected, abs=1.5 / 120)
        assert by_k[k]["top1"] <= by_k[k]["top5"] <= 1


@pytest.mark.parametrize(
    ("k", "graph", "message"),
    [
        (20, "graph.bin", r"graph.bin does not end in .npz"),
        (20, "none/graph.npz", "where the graph is to go, is no folder"),
        (120, "graph.npz", "with 120 neighbours an image takes more images than the 120 of"),
    ],
)
def test_a_graph_that_cannot_be_written_is_refused_before_the_work(
    runs, tmp_path, monkeypatch, k, graph, message
):
    monkeypatch.setattr("qscore_fast.evaluation.probes.knn_probe", lambda *_, **__: pytest.fail())
    words = [str(runs[0].path), str(runs[1].path), "--k", str(k), "--graph", str(tmp_path / graph)]
    with pytest.raises(QScoreError, match=message):
        knn(knn_parser().parse_args(words))


def test_faiss_never_searches_elsewhere_than_was_asked(digits):
    x, _ = digits
    rows = FeatureRows((x[:300],))
    for index in ("faiss-flat", "faiss-ivf"):
        with pytest.raises(MissingExtraError, match=r"qscore-fast\[faiss-gpu\]"):
            searched(rows, rows, 3, index, device="cuda")
    with pytest.raises(SettingsError, match="no HNSW on a GPU"):
        searched(rows, rows, 3, "faiss-hnsw", device="cuda:1")
    with pytest.raises(SettingsError, match="faiss-flat cannot be on device mps"):
        searched(rows, rows, 3, "faiss-flat", device="mps")
    with pytest.raises(SettingsError, match="device = gpu cannot be used"):
        searched(rows, rows, 3, device="gpu")


class GPUFaiss:
    """FAISS as its GPU build behaves to its caller: indexes are placed, and keep where."""

    def __init__(self) -> None:
        self.placed: list[tuple[int, int]] = []
        self.StandardGpuResources = object

    def __getattr__(self, name: str):
        return getattr(faiss, name)

    def get_num_gpus(self) -> int:
        return 2

    def index_cpu_to_gpu(self, _: object, gpu: int, index):
        self.placed.append((gpu, index.ntotal))
        return index


def test_an_index_is_placed_on_the_gpu_before_it_is_filled(digits, monkeypatch):
    x, _ = digits
    rows, queries = FeatureRows((x[:1500],)), FeatureRows((x[1500:],))
    build = GPUFaiss()
    monkeypatch.setattr(knn_index, "faiss_module", lambda: build)
    monkeypatch.setattr(knn_index, "usable_device", lambda _: "cpu")
    for name, device in (("faiss-flat", "cuda:1"), ("faiss-ivf", "cuda")):
        found = searched(queries, rows, 10, name, device=device, probes=1000)
        expected = nearest(queries, rows, 10)
        assert (found.neighbours.index == expected.index).mean() > 0.999
        assert found.settings["gpu"] == int(device == "cuda:1")
    assert build.placed == [(1, 0), (0, 0)]  # empty
    with pytest.raises(SettingsError, match="FAISS sees 2 GPUs, and device is cuda:2"):
        searched(queries, rows, 10, "faiss-flat", device="cuda:2")
    with pytest.raises(SettingsError, match="2,048 neighbours on a GPU at most"):
        many = FeatureRows((np.repeat(x, 2, 0),))
        searched(queries, many, 2049, "faiss-flat", device="cuda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ks": [301]}, "300 neighbours to offer"),
        ({"ks": []}, "k is"),
        ({"ks": [0]}, "k is"),
        ({"ks": [5], "temperature": 0.0}, "temperature is 0"),
        ({"ks": [5], "index": "annoy"}, "index is 'annoy'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(runs, settings, message):
    with pytest.raises(SettingsError, match=message):
        knn_probe(*runs, **settings)


def test_rows_that_are_no_numbers_are_refused():
    h = np.ones((5, 3), np.float32)
    h[2, 1] = np.nan
    with pytest.raises(SettingsError, match="NaN or Inf"):
        nearest(FeatureRows((h,)), FeatureRows((h,)), 2)
    with pytest.raises(SettingsError, match="r = 3 and references 4"):
        nearest(FeatureRows((h,)), FeatureRows((np.ones((5, 4), np.float32),)), 2)
