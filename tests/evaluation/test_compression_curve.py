"""The curve: against probes of scikit-learn, and on features whose use is planted."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.compression import compression_curve, kept_indices, subset_probes
from qscore_fast.evaluation.feature_rows import FeatureRows


@pytest.fixture(scope="module")
def data():
    digits = load_digits()
    x, y = digits.data.astype(np.float32), digits.target.astype(np.int64)
    names = tuple("0123456789")
    counts = (x[:1200] > 8).sum(0)
    return x[:1200], ClassLabels(y[:1200], names), x[1200:], ClassLabels(y[1200:], names), counts


@pytest.fixture(scope="module")
def curve(data):
    x, y, tx, ty, counts = data
    rows = FeatureRows((x[:500], x[500:]))
    return compression_curve(rows, y, FeatureRows.of(tx), ty, counts, shares=(0.5, 0.2), C=0.01)


def accuracy(x, y, tx, ty):
    fit = LogisticRegression(C=0.01, tol=1e-8, solver="newton-cholesky").fit(
        x.astype(np.float64), y
    )
    return fit.score(tx, ty)


@pytest.mark.parametrize(
    "strategy", ["discriminative", "top_tail", "bottom_tail", "variance", "random"]
)
def test_every_point_is_the_accuracy_of_scikit_learn(data, curve, strategy):
    x, y, tx, ty, counts = data
    for point in curve.of(strategy):
        for seed, found in enumerate(point.accuracies):
            kept = kept_indices(strategy, point.share, counts, variances=x.var(0), seed=seed)
            assert point.num_kept == len(kept)
            expected = accuracy(x[:, kept], y.targets, tx[:, kept], ty.targets)
            assert found == pytest.approx(expected, abs=2.5 / len(tx))
    assert len(curve.of("random")[0].accuracies) == 4


def test_principal_components_and_the_whole_are_those_of_scikit_learn(data, curve):
    x, y, tx, ty, _ = data
    whole = accuracy(x, y.targets, tx, ty.targets)
    assert curve.full_accuracy == pytest.approx(whole, abs=2.5 / len(tx))
    for point in curve.of("pca"):
        basis = PCA(point.num_kept, svd_solver="full").fit(x.astype(np.float64))
        expected = accuracy(basis.transform(x), y.targets, basis.transform(tx), ty.targets)
        assert point.accuracies[0] == pytest.approx(expected, abs=2.5 / len(tx))


def test_the_difference_to_random_is_a_paired_mean(curve):
    random = {point.share: point for point in curve.of("random")}
    for point in curve.points:
        if point.strategy == "random":
            assert point.difference is None
            continue
        assert point.difference == pytest.approx(point.mean - random[point.share].mean)
        low, high = point.interval
        assert low < point.difference < high
        # A paired interval is no wider than one of two independent means.
        variances = [p.mean * (1 - p.mean) for p in (point, random[point.share])]
        assert high - low <= 2 * 1.96 * np.sqrt(sum(variances) / curve.num_test) + 1e-9


def test_planted_use_shows_in_the_curve():
    """The middle of the order of activity carries the classes, its tails carry nothing."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=1600)
    x = rng.normal(size=(1600, 40)).astype(np.float32)
    x[:, 18:36] += 1.2 * (np.arange(18)[None] % 4 == y[:, None])
    labels = [
        ClassLabels(y[:1000].astype(np.int64), tuple("abcd")),
        ClassLabels(y[1000:], tuple("abcd")),
    ]
    curve = compression_curve(
        FeatureRows.of(x[:1000]), labels[0], FeatureRows.of(x[1000:]), labels[1],
        np.arange(40), shares=(0.45,), C=0.1, pca=False,
    )  # fmt: skip
    points = {point.strategy: point for point in curve.points}
    assert points["discriminative"].interval[0] > 0.05
    assert points["bottom_tail"].mean < 0.35
    assert points["discriminative"].mean >= curve.full_accuracy - 0.03


def test_the_files_hold_every_point(curve, tmp_path):
    written = curve.write(tmp_path)
    content = json.loads(written[0].read_text())
    assert len(content["points"]) == len(curve.points) == 12
    assert {p["strategy"] for p in content["points"]} == {p.strategy for p in curve.points}
    table = written[1].read_text()
    best = curve.of("discriminative")[0]
    assert f"{100 * best.mean:.2f}" in table
    drawing = written[2].read_text()
    for label in (
        "features left out (%)",
        "linear probe, top-1 (%)",
        "discriminative",
        "PCA",
        "top tail",
    ):
        assert f">{label}<" in drawing
    curve.write(tmp_path / "again")
    assert (tmp_path / "again" / "compression.svg").read_text() == drawing


def test_probes_that_did_not_converge_and_dead_features_are_told(
    data, curve, monkeypatch, tmp_path
):
    assert all(point.converged for point in curve.points) and curve.full_converged
    x, y, tx, ty, counts = data
    assert (counts == 0).sum() > 10  # pixels at the border
    for point in curve.points:
        if point.strategy in ("random", "pca"):
            assert point.num_dead is None
            continue
        kept = kept_indices(point.strategy, point.share, counts, variances=x.var(0))
        assert point.num_dead == (counts[kept] == 0).sum()
    assert [
        note for note in curve.all_notes if "never active" in note and "bottom_tail at 20 %" in note
    ]

    short = partial(subset_probes.fit_logistic, max_iterations=3)
    monkeypatch.setattr(subset_probes, "fit_logistic", short)
    hasty = compression_curve(
        FeatureRows.of(x),
        y,
        FeatureRows.of(tx),
        ty,
        counts,
        shares=(0.5,),
        C=0.01,
        pca=False,
        num_seeds=1,
    )
    content = json.loads(hasty.write(tmp_path)[0].read_text())
    assert [point["converged"] for point in content["points"]] == [False] * 5
    assert content["full_converged"] is False
    note = content["notes"][0]
    assert note.startswith("6 of 6 probes used up their steps")
    assert "all features, discriminative at 50 %, random at 50 %" in note
    assert f"Note: {note}." in hasty.to_markdown().splitlines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": ()}, "one strategy and one share"),
        ({"shares": (1.5,)}, "share to keep is 1.5"),
        ({"num_seeds": 0}, "num_seeds is 0"),
        ({"C": -1.0}, "C is -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(data, settings, message):
    x, y, tx, ty, counts = data
    with pytest.raises(SettingsError, match=message):
        compression_curve(
            FeatureRows.of(x),
            y,
            FeatureRows.of(tx),
            ty,
            counts,
            **{"C": 1.0, "pca": False, **settings},
        )


def test_one_class_is_refused(data):
    x, _, tx, _, counts = data
    one = [ClassLabels(np.zeros(len(rows), np.int64), ("a",)) for rows in (x, tx)]
    with pytest.raises(SettingsError, match="class 'a'"):
        compression_curve(FeatureRows.of(x), one[0], FeatureRows.of(tx), one[1], counts)
