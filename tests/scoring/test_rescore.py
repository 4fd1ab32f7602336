"""Rescoring from parts gives what the equations give on the embeddings, and what scoring anew gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from run_tables import tables_of
from sample_data import save_images
from torch import nn

from qscore_fast.cli import main
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring import discover, rescore, score


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_images(tmp_path_factory.mktemp("few"), 120)
    (folder / "bag" / "bad.png").write_bytes(b"")
    return folder


@pytest.fixture
def run_dir(tmp_path: Path, folder: Path, encoder: Encoder) -> Path:
    score(folder, encoder, tmp_path / "run", unit_size=50, batch_size=16, embeddings="npy")
    return tmp_path / "run"


def scores_in_float64(h: np.ndarray, mask: np.ndarray, eps: float) -> np.ndarray:
    """The equations, a row at a time."""
    result = []
    for row in h.astype(np.float64):
        mean, std, norm = row.mean(), row.std(ddof=1), np.sqrt((row * row).sum())
        active = [j for j in range(len(row)) if mask[j] and row[j] > mean + eps * std]
        result.append(sum(row[j] - mean for j in active) / norm / len(active) if active else 0.0)
    return np.array(result)


@pytest.mark.parametrize(("eps", "lower", "upper"), [(2.5, 40, 95), (3.0, 0, 100), (3.5, 60, 90)])
def test_any_eps_and_percentiles(run_dir: Path, eps: float, lower: float, upper: float) -> None:
    run = rescore(run_dir, eps=eps, lower=lower, upper=upper)
    features = run.features
    assert (features.eps, features.lower, features.upper) == (eps, lower, upper)
    q = run.scores()["q_score"].to_numpy()
    expected = scores_in_float64(run.embeddings(), features.mask.numpy(), eps)
    # The embeddings are rounded to float16, so an entry at the threshold may fall on its other side.
    agree = np.isclose(q, expected, rtol=2e-3, atol=2e-3)
    assert agree.mean() >= 0.97
    assert len(run.errors()) == 1


def test_the_same_bytes_as_scoring_with_that_request(
    tmp_path: Path, run_dir: Path, folder: Path, encoder: Encoder
) -> None:
    rescore(run_dir, eps=3.0, lower=40, upper=95)
    anew = tmp_path / "anew"
    score(
        folder, encoder, anew, eps=3.0, lower=40, upper=95,
        unit_size=50, batch_size=16, embeddings="npy",
    )  # fmt: skip
    assert tables_of(run_dir) == tables_of(anew)
    for name in ("scores.parquet", "errors.parquet"):
        assert (run_dir / name).read_bytes() == (anew / name).read_bytes()


def test_given_features(tmp_path: Path, run_dir: Path, folder: Path, encoder: Encoder) -> None:
    found = discover(run_dir, eps=2.5, lower=30, upper=80, out=tmp_path / "features.npz")
    run = rescore(run_dir, tmp_path / "features.npz")
    assert run.features.eps == 2.5
    assert torch.equal(run.features.mask, found.features.mask)
    again = score(
        folder, encoder, run_dir, tmp_path / "features.npz",
        unit_size=50, batch_size=16, embeddings="npy",
    )  # fmt: skip
    assert again.session is not None
    assert again.session.parts_done == 0
    assert again.scores().equals(run.scores())


def test_what_a_run_cannot_answer(tmp_path: Path, run_dir: Path, folder: Path) -> None:
    before = tables_of(run_dir)
    with pytest.raises(SettingsError, match="below the run's activation_eps = 2"):
        rescore(run_dir, eps=1.5)
    with pytest.raises(SettingsError, match="percentiles"):
        rescore(run_dir, lower=80, upper=20)
    with pytest.raises(SettingsError, match="eps = 3 contradicts the features"):
        rescore(run_dir, run_dir, eps=3)
    own = DiscriminativeFeatures.load(run_dir / "features.npz")
    other = score(
        folder, nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 8)), tmp_path / "other", device="cpu"
    )  # fmt: skip
    with pytest.raises(SettingsError, match=f"of 8 features, the encoder has {own.mask.numel()}"):
        rescore(run_dir, other.features)
    assert tables_of(run_dir) == before
    next((run_dir / "parts").glob("*.parquet")).unlink()
    with pytest.raises(StoreError, match=r"not complete \(2 of 3 parts\)"):
        rescore(run_dir)


def test_the_command(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", str(run_dir), "--eps", "3", "--percentiles", "40", "95"]) == 0
    out = capsys.readouterr().out
    assert "eps = 3 (percentiles 40 to 95)" in out
    assert "q-score" in out
    assert main(["rescore", str(run_dir), "--eps", "1"]) == 2
    assert "activation_eps" in capsys.readouterr().err
