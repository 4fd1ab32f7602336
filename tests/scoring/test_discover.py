"""Discovery at any eps, against a recomputation entry by entry from the parts' own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from run_tables import tables_of
from sample_data import PREPROCESS, small_module
from torch import nn

from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import Preprocess
from qscore_fast.scoring import ScoreRun, discover, score

GRID = [round(2 + k / 10, 1) for k in range(21)]


@pytest.fixture
def out(tmp_path: Path, images: Path, checkpoint: Path) -> Path:
    score(images, checkpoint, tmp_path / "out", unit_size=128, device="cpu")
    return tmp_path / "out"


def samples(out: Path) -> list[list[tuple[int, float, float]]]:
    """For each sample its (feature, z, value)."""
    found = []
    for path in sorted((out / "parts").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            scale = row["l2"] / row["std"]
            pairs = zip(row["feature"], row["value"], strict=True)
            found.append([(j, value * scale, value) for j, value in pairs])
    return found


def brute_force(
    rows: list[list[tuple[int, float, float]]], eps: float, lower: float, upper: float
) -> tuple[np.ndarray, set[int], list[float]]:
    """Counts, D and the scores at one eps."""
    counts = np.zeros(256, int)
    for row in rows:
        for feature, z, _ in row:
            counts[feature] += z > eps
    low, high = np.percentile(counts, [lower, upper])
    members = {j for j in range(256) if low <= counts[j] <= high and counts[j] > 0}
    scores = []
    for row in rows:
        values = [value for feature, z, value in row if z > eps and feature in members]
        scores.append(sum(values) / len(values) if values else 0.0)
    return counts, members, scores


@pytest.mark.parametrize(
    ("eps", "lower", "upper"), [(4, 50, 95), (3, 50, 95), (2.35, 20, 80), (5.5, 0, 100)]
)
def test_against_brute_force(out: Path, eps: float, lower: float, upper: float) -> None:
    counts, members, scores = brute_force(samples(out), eps, lower, upper)
    found = discover(out, eps=eps, lower=lower, upper=upper)
    assert found.features.counts.tolist() == counts.tolist()
    assert set(found.features.indices.tolist()) == members
    run = ScoreRun(out)
    table = run.scores()
    np.testing.assert_allclose(table["q_score"].to_numpy(), scores, rtol=1e-5)
    assert np.count_nonzero(scores) > 0
    assert found.empty_fraction == np.mean(np.array(scores) == 0)
    assert run.features.eps == eps
    assert run.summary["eps"] == eps
    assert (run.features.lower, run.features.upper) == (lower, upper)
    assert run.features.fingerprint is not None


def test_auto_is_the_largest_eps_of_the_grid_that_leaves_one_percent(out: Path) -> None:
    rows = samples(out)
    empty = {eps: np.mean(np.array(brute_force(rows, eps, 50, 95)[2]) == 0) for eps in GRID}
    best = max(eps for eps in GRID if empty[eps] <= 0.01)
    assert 2 < best < 4  # otherwise this test shows nothing

    at_four = discover(out, eps=4)
    assert at_four.empty == pytest.approx(empty)
    assert at_four.suggested_eps == best
    assert f"eps = {best:g} is the largest" in at_four.notes()[0]
    assert f"{100 * empty[4.0]:.1f} % of the samples" in at_four.notes()[0]

    auto = discover(out, eps="auto")
    assert auto.features.eps == best
    assert [f"eps = {best:g} (auto)" in note for note in auto.notes()] == [True]
    assert ScoreRun(out).summary["empty_fraction"] == empty[best] <= 0.01


def test_auto_in_score_is_auto_in_discover(
    tmp_path: Path, images: Path, checkpoint: Path, out: Path
) -> None:
    run = score(images, checkpoint, tmp_path / "auto", unit_size=128, eps="auto", device="cpu")
    discover(out, eps="auto")
    assert run.scores() == ScoreRun(out).scores()
    assert "(auto)" in run.summary["notes"][0]


def test_scoring_at_an_eps_is_discovering_at_it(
    tmp_path: Path, images: Path, checkpoint: Path, out: Path
) -> None:
    score(images, checkpoint, tmp_path / "other", unit_size=128, eps=3.0, device="cpu")
    discover(out, eps=3.0)
    assert tables_of(tmp_path / "other") == tables_of(out)


class HalfDull(nn.Module):
    """For half of a batch, one feature that is active in all of those images: never in D."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_module()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h = self.inner(images)
        brightness = images.mean((1, 2, 3))
        h[brightness < brightness.median()] = torch.eye(256)[0]
        return h


def test_no_eps_is_good_enough(tmp_path: Path, images: Path) -> None:
    encoder = load_encoder(HalfDull(), preprocess=Preprocess.from_json(PREPROCESS))
    share = score(images, encoder, tmp_path, eps="auto").summary["empty_fraction"]
    found = discover(tmp_path, eps=4)
    assert found.suggested_eps is None
    best = min(found.empty.values())
    assert best > 0.01
    assert f"no eps from 2 to 4 brings that to 1 % (best: {100 * best:.1f} %" in found.notes()[0]
    assert share == best


def test_out_leaves_the_run_alone(out: Path, tmp_path: Path) -> None:
    before = tables_of(out)
    found = discover(out, eps=2.5, out=tmp_path / "features.npz")
    assert tables_of(out) == before
    saved = DiscriminativeFeatures.load(tmp_path / "features.npz")
    assert saved.mask.tolist() == found.features.mask.tolist()
    assert saved.eps == 2.5


def test_discovering_and_scoring_again_ends_where_it_began(
    out: Path, images: Path, checkpoint: Path
) -> None:
    before = tables_of(out)
    discover(out, eps=2.5)
    assert tables_of(out) != before
    run = score(images, checkpoint, out, unit_size=128, device="cpu")
    assert run.session is not None
    assert run.session.parts_done == 0
    assert tables_of(out) == before


def test_few_samples_are_pointed_out(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    run = score(images / "bag", checkpoint, tmp_path, eps=2, device="cpu")
    assert any(f"on {run.summary['num_scored']} images only" in n for n in run.summary["notes"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"eps": 1.9}, "eps = 1.9 is below the run's activation_eps = 2"),
        ({"eps": float("inf")}, "eps must be a number"),
        ({"lower": -1}, "percentiles"),
    ],
)
def test_what_cannot_be_asked(out: Path, settings: dict[str, Any], reason: str) -> None:
    before = tables_of(out)
    with pytest.raises(SettingsError, match=reason):
        discover(out, **settings)
    assert tables_of(out) == before


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no run of qscore \(no run.json\)"):
        discover(tmp_path)


def test_features_that_cannot_be_written(out: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*no/such/features.npz: No such file"):
        discover(out, out=tmp_path / "no" / "such" / "features.npz")
