"""Arms of one start and one order, probed; means and paired intervals against SciPy's; the tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from small_training import features_of, small_encoder, small_settings

import qscore_fast as qf
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import Comparison, compare
from qscore_fast.finetuning.comparison import (
    Probed,
    arms_table,
    mean_interval,
    paired_interval,
    table_two,
)
from qscore_fast.finetuning.watching import read_log


def made_up() -> Comparison:
    rows = [Probed("base", None, 0.5, 0.4, 0.2, "f")]
    rows += [Probed("control", s, 0.50 + 0.01 * s, 0.4, 0.2, "f") for s in range(3)]
    rows += [Probed("qscore", s, 0.53 + 0.011 * s, 0.41 + 0.01 * s, 0.3, "f") for s in range(3)]
    return Comparison("byol", tuple(rows), {"lambda1": 1e-4})


def test_intervals_are_students() -> None:
    values, others = [0.71, 0.74, 0.69, 0.735], [0.70, 0.72, 0.69, 0.70]
    ours = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (ours.mean - ours.half_width, ours.mean + ours.half_width) == pytest.approx((low, high))
    paired = paired_interval(values, others)
    test = stats.ttest_rel(values, others).confidence_interval(0.95)
    assert (paired.mean - paired.half_width, paired.mean + paired.half_width) == pytest.approx(
        (test.low, test.high)
    )
    assert paired.excludes_zero == (stats.ttest_rel(values, others).pvalue < 0.05)
    assert mean_interval([0.5]).half_width is None and not mean_interval([0.5]).excludes_zero
    with pytest.raises(SettingsError, match="the same seeds"):
        paired_interval([1.0], [1.0, 2.0])


def test_gains_are_seed_by_seed() -> None:
    found = made_up()
    gain = found.gain("qscore", "linear")
    assert gain is not None and gain.mean == pytest.approx(0.031)
    # The seeds differ by ten times as much as the gain does.
    assert gain.excludes_zero and gain.half_width < found.mean("qscore", "linear").half_width / 5
    assert found.gain("control", "linear") is None
    base = found.gain("control", "linear", "base")
    assert base is not None and base.mean == pytest.approx(0.01)


def test_tables() -> None:
    found = made_up()
    lines = arms_table(found)
    assert any(line.startswith("| base (not trained further) | 50.00 |") for line in lines)
    (qscore,) = (line for line in lines if line.startswith("| Q-Score"))
    assert "54.10 ± " in qscore and "+3.10 ± 0.25*" in qscore and "+2.00 ± 2.48" in qscore
    assert "+2.00 ± 2.48*" not in qscore
    two = table_two([found, Comparison("dino", found.probed[:4], {})], markdown=False)
    assert two[0].split() == [
        "system",
        "base",
        "control",
        "(lambda",
        "=",
        "0)",
        "Q-Score",
        "gain",
        "seeds",
    ]
    assert two[1].startswith("byol") and two[2].startswith("dino") and "*" not in two[2]


def test_compare_and_read_back(few_images: Path, held_out: Path, tmp_path: Path) -> None:
    encoder = small_encoder(3)
    features = features_of(encoder, few_images)
    settings = small_settings(
        steps=3, log_every=1, lambda1=0.5, lambda2=0.0, keep=0, save_every=3, monitor_every=3
    )
    given = {"probe_train": few_images, "probe_test": held_out, "device": "cpu"}
    found = compare(
        encoder, few_images, features, tmp_path, settings, arms=("control", "lasso", "qscore"),
        seeds=(4, 5), **given,
    )  # fmt: skip
    assert [(one.arm, one.seed) for one in found.probed] == [
        ("base", None), ("control", 4), ("control", 5), ("lasso", 4), ("lasso", 5),
        ("qscore", 4), ("qscore", 5),
    ]  # fmt: skip
    logs = {
        (arm, s): read_log(tmp_path / f"{arm}-seed{s}") for arm in found.arms for s in found.seeds
    }
    for seed in (4, 5):
        first = {arm: logs[arm, seed][0]["ssl"] for arm in found.arms}
        assert len(set(first.values())) == 1  # the same heads, images and augmentations
    assert logs["control", 4][0]["ssl"] != logs["control", 5][0]["ssl"]
    assert all(line["loss"] == line["ssl"] for line in logs["control", 4])
    assert len({one.fingerprint for one in found.probed}) == 7
    # One strength of the penalty for all, of whatever scale their features are.
    assert len({one.ridge for one in found.probed}) == 1
    for place in ("base", "qscore-seed5/probes"):
        probe = json.loads((tmp_path / place / "linear" / "probe.json").read_text())
        rows = qf.ScoreRun(tmp_path / place / "train").embeddings().astype("float64")
        expected = 1 / (found.probed[0].ridge * rows.var(0).mean() * len(rows))
        assert probe["C"] == pytest.approx(expected)
    # The probes, another way: nearest centroid would do; here the top-1 of the run's own tables.
    test = qf.ScoreRun(tmp_path / "base" / "test")
    h = torch.from_numpy(test.embeddings().astype("float32"))
    assert found.probed[0].mean_q == pytest.approx(float(qf.q_score(h, features).mean()), rel=1e-6)
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content["arms"]["qscore"]["linear"]["over_control"]["count"] == 2
    assert Comparison.read(tmp_path / "compare.json").probed == found.probed
    assert "| simsiam |" in (tmp_path / "compare.md").read_text()
    notes: list[str] = []
    again = compare(
        encoder, few_images, features, tmp_path, settings, arms=("control", "lasso", "qscore"),
        seeds=(4, 5), note=notes.append, progress=lambda *_: pytest.fail("trained again"), **given,
    )  # fmt: skip
    assert again.probed == found.probed


def test_what_cannot_be_compared(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(few_images.rglob("*.png"))[:4]):
        (flat / f"{number}.png").write_bytes(path.read_bytes())

    def refused(words: str, **given: object) -> None:
        usual = {"probe_train": few_images, "probe_test": few_images, "device": "cpu"}
        with pytest.raises(SettingsError, match=words):
            compare(
                encoder, few_images, None, tmp_path / "out", small_settings(), **{**usual, **given}
            )

    refused("no arm 'ridge'", arms=("ridge",))
    refused("no arm 'nothing'", arms=())
    refused("one seed or more", seeds=())
    refused("has no labels to probe by", probe_test=flat)
    refused("needs the discriminative features", arms=("control", "qscore"))


def test_no_features_no_mean_q() -> None:
    rows = (
        Probed("base", None, 0.5, 0.4, math.nan, "f"),
        Probed("control", 0, 0.5, 0.4, math.nan, "f"),
    )
    lines = arms_table(Comparison("byol", rows, {}))
    assert all("nan" not in line for line in lines)
