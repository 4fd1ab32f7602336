"""measure_run and ``qscore metrics`` on a store, on arrays, and on what cannot be measured."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qscore_fast.cli.metrics_command import metrics, metrics_parser
from qscore_fast.errors import MissingExtraError, QScoreError, StoreError
from qscore_fast.evaluation.measures import (
    MeasureReport,
    RepresentationMoments,
    measure_run,
    normalised_std,
)
from qscore_fast.scoring import ScoreRun, score

NAMES = [
    "rankme", "effective_rank", "alpha_req", "nesum", "stable_rank", "participation_ratio",
    "participation_ratio_corrected", "anisotropy", "pseudo_condition", "coherence", "self_clustering",
    "uniformity", "normalised_std", "sparsity_l0", "sparsity_l1",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path, checkpoint: Path) -> ScoreRun:
    out = tmp_path_factory.mktemp("run") / "run"
    return score(images, checkpoint, out, embeddings="npy", unit_size=100, device="cpu")


def assert_same(a: MeasureReport, b: MeasureReport) -> None:
    assert a.measures.keys() == b.measures.keys()
    for name, found in a.measures.items():
        assert found.reason == b[name].reason
        if found.value is not None:
            assert found.value == pytest.approx(float(b[name]), rel=1e-9), name


def test_a_store(run: ScoreRun) -> None:
    """Part by part, the measures are those of the whole matrix, which NumPy's SVD knows."""
    report = measure_run(run)
    h = run.embeddings().astype(np.float64)
    assert list(report.measures) == NAMES
    assert (report.num_samples, report.num_features) == h.shape == (600, 256)
    s = np.linalg.svd(h, compute_uv=False)
    p = s[s > 1e-6 * s[0]] / s.sum()
    assert float(report["rankme"]) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert float(report["stable_rank"]) == pytest.approx((s**2).sum() / s[0] ** 2)
    assert float(report["sparsity_l0"]) == pytest.approx((h != 0).mean())
    assert_same(report, measure_run(str(run.path)))
    assert_same(report, measure_run(torch.from_numpy(run.embeddings())))
    assert report["uniformity"].details["exact"] is True


def test_the_command_prints_a_table_or_json(
    run: ScoreRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = metrics_parser()
    metrics(parser.parse_args([str(run.path)]))
    table = capsys.readouterr().out
    assert "600 representations of 256 features" in table
    assert all(f"\n{name} " in table for name in NAMES)
    metrics(parser.parse_args([str(run.path), "--json", "--clid", "--max-rows", "200"]))
    content = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert list(content["measures"]) == [
        *NAMES,
        *("cluster_learnability", "intrinsic_dimension", "clid"),
    ]
    assert content["measures"]["rankme"]["value"] == measure_run(run)["rankme"].value
    assert content["measures"]["uniformity"]["details"]["rows"] == 200
    assert content["run"] == str(run.path)
    file = tmp_path / "measures.json"
    metrics(parser.parse_args([str(run.path), "--max-rows", "200", "--out", str(file)]))
    said = capsys.readouterr()
    assert "600 representations" in said.out and f"written {file}" in said.err
    written = json.loads(file.read_text(), parse_constant=pytest.fail)["measures"]
    assert written == {name: content["measures"][name] for name in NAMES}


def test_a_store_without_embeddings_gives_what_its_norms_give(
    tmp_path: Path,
    run: ScoreRun,
    images: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    score(images, checkpoint, tmp_path, unit_size=100, device="cpu")
    report = measure_run(tmp_path)
    assert list(report.measures) == NAMES
    given = [name for name, found in report.measures.items() if found.value is not None]
    assert given == ["sparsity_l1"]
    # The run with embeddings knows it from float16 entries.
    assert float(report["sparsity_l1"]) == pytest.approx(
        float(measure_run(run)["sparsity_l1"]), rel=1e-4
    )
    assert (report.num_samples, report.num_features, report.passes) == (600, 256, 0)
    metrics(metrics_parser().parse_args([str(tmp_path)]))
    out = capsys.readouterr().out
    assert "undefined, because it takes embeddings, which the run did not keep" in out
    assert "(qscore score --embeddings npy)" in out
    with pytest.raises(StoreError, match="no embeddings.*--embeddings npy"):
        measure_run(tmp_path, clid=True)
    with pytest.raises(QScoreError, match="none"):
        measure_run(tmp_path / "none")


def test_a_dead_feature_alone_makes_the_condition_0_and_that_is_told() -> None:
    h = np.random.default_rng(0).normal(size=(300, 20))
    s = np.linalg.svd(h, compute_uv=False)
    whole = measure_run(h)
    assert float(whole["pseudo_condition"]) == pytest.approx(s[-1] / s[0])
    assert whole.notes == []
    dead = h.copy()
    dead[:, [3, 11]] = 0
    left = np.linalg.svd(np.delete(h, [3, 11], 1), compute_uv=False)
    report = measure_run(dead)
    found = report["pseudo_condition"]
    assert (found.value, found.details["rank"]) == (0, 18)
    assert found.details["smallest_above_0"] == pytest.approx(left[-1] / left[0])
    (note,) = report.notes
    assert note.startswith("the rows have rank 18 of 20 (2 features are 0 in every row), so pseudo")
    assert note.endswith(f"is {left[-1] / left[0]:.3g} times the largest")
    assert any("0 rank-deficient, rank 18" in line for line in report.lines())
    # Two equal features: one dimension is lost without a dead one.
    twin = h.copy()
    twin[:, 3] = twin[:, 11]
    (note,) = measure_run(twin).notes
    assert note.startswith("the rows have rank 19 of 20, so pseudo_condition is 0")


def test_views() -> None:
    views = np.random.default_rng(0).normal(size=(90, 1, 8)) + 0.1
    views = views + 0.2 * np.random.default_rng(1).normal(size=(90, 4, 8))
    report = measure_run(views[:, 0], views=np.split(views, 3))
    assert list(report.measures) == [*NAMES, "lidar", "alignment"]
    assert 1 < float(report["lidar"]) <= 8
    assert report["lidar"].details == {"delta": 1e-4, "samples": 90, "views": 4}
    assert report["alignment"].details["pairs"] == 90 * 6


def test_an_iterator_gives_one_pass() -> None:
    x = np.random.default_rng(0).normal(size=(40, 12))
    once = measure_run(part for part in np.split(x, 4))
    again = measure_run(np.split(x, 4))
    assert (once.passes, again.passes) == (1, 2)
    assert "pass a list, or a run's folder" in str(once["coherence"])
    for name in NAMES:
        if name != "coherence":
            assert once[name] == again[name]


NAN = np.full((5, 4), np.nan)
CASES = {
    "empty": (np.zeros((0, 4)), "there are no samples"),
    "nan": (NAN, "all 5 rows hold NaN, Inf or huge entries"),
    "zeros": (np.zeros((5, 4)), "every row is zero"),
    "one sample": (np.array([[1.0, 2, 3, 4]]), "one sample has no covariance"),
    "constant": (np.full((5, 4), 3.3), "all rows are equal"),
    "far constant": (np.full((5000, 4), 1e5 + 0.1), "all rows are equal"),
    "r = 1": (np.arange(5.0)[:, None], "r is 1: uniform and collapsed are the same"),
    "two rows": (np.array([[1.0, 0], [0, 1]]), "1 eigenvalues are above 0"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_measured_says_why(name: str) -> None:
    x, reason = CASES[name]
    report = measure_run(np.array_split(x, 2))
    for found in report.measures.values():
        if found.value is None:
            assert found.reason
            with pytest.raises(QScoreError, match="undefined, because"):
                float(found)
        else:
            assert math.isfinite(found.value)
            assert found.reason is None
    assert any(found.reason and reason in found.reason for found in report.measures.values())
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["measures"]["rankme"]["value"] == report["rankme"].value
    assert not any("nan" in line.split() for line in report.lines())


def test_collapse_shows_where_it_can() -> None:
    report = measure_run(np.full((50, 4), 2.5))
    assert float(report["self_clustering"]) == pytest.approx(1)
    assert float(report["uniformity"]) == pytest.approx(0, abs=1e-12)
    assert float(report["normalised_std"]) == 0
    assert float(report["rankme"]) == 1
    assert float(report["pseudo_condition"]) == 0


@pytest.mark.parametrize("count", [33, 5000])
def test_equal_rows_spread_by_0_however_their_mean_is_rounded(count: int) -> None:
    row = np.random.default_rng(1).normal(size=(1, 300))
    for rows in (np.repeat(row, count, 0), row * np.linspace(0.1, 3, count)[:, None]):
        moments = RepresentationMoments(300)
        for part in np.array_split(rows, 7):
            moments.update(part)
        assert moments.units.variance.max() > 0  # the rounding
        assert float(normalised_std(moments)) == 0
    # What is more than that counts, be it in one entry.
    rows = np.repeat(row, count, 0)
    rows[0, 0] += 1e-9
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = normalised_std(RepresentationMoments(300).update(rows))
    assert float(found) == pytest.approx(units.std(0, ddof=1).mean(), rel=1e-3)


def test_bad_rows_are_counted_and_change_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(60, 12))
    report = measure_run([x[:20], np.full((2, 12), np.inf), x[20:]])
    assert report.num_invalid == 2
    assert "2 rows hold NaN" in report.notes[0]
    assert_same(report, measure_run(x))
    with_zero = measure_run([x, np.zeros((3, 12))])
    assert with_zero.num_zero == 3
    assert any("3 rows are zero" in note for note in with_zero.notes)
    assert float(with_zero["uniformity"]) == pytest.approx(float(measure_run(x)["uniformity"]))


def test_wrong_sources() -> None:
    with pytest.raises(ValueError, match="source holds no arrays"):
        measure_run([])
    with pytest.raises(ValueError, match=r"\(3,\); pass \(n, r\)"):
        measure_run([np.zeros(3)])
    with pytest.raises(ValueError, match=r"\(3, 0\)"):
        measure_run(np.zeros((3, 0)))
    with pytest.raises(ValueError, match=r"\(3, 5\).*r = 4"):
        measure_run([np.ones((3, 4)), np.ones((3, 5))])


def test_clid_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtraError, match=r"qscore-fast\[evaluation\]"):
        measure_run(np.eye(20), clid=True)
