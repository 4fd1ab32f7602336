"""Features that float16 cannot hold: the score stays, and the run says whose embedding is not finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sample_data import PREPROCESS, save_images, small_module
from torch import nn

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.images import Preprocess
from qscore_fast.scoring import ScoreRun, rescore, score


class Scaled(nn.Module):
    """Every image's features, so large that the largest entry is 40,000 times the image's brightness."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = small_module(), factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h = self.inner(images)
        brightness = images.mean((1, 2, 3)) + 1.5
        return h / h.amax(1, keepdim=True) * (self.factor * brightness)[:, None]


def encoder(factor: float) -> Encoder:
    return load_encoder(Scaled(factor), preprocess=Preprocess.from_json(PREPROCESS))


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_the_score_stays_and_the_run_says_so(tmp_path: Path, kind: str) -> None:
    images = save_images(tmp_path / "images", 40)
    large = score(
        images, encoder(40_000), tmp_path / "large", embeddings=kind, unit_size=16, eps=2.5
    )
    small = score(images, encoder(1), tmp_path / "small", embeddings="npy", unit_size=16, eps=2.5)
    finite = np.isfinite(large.embeddings()).all(1)
    assert 0 < (~finite).sum() < 40  # otherwise this test shows nothing
    assert len(large.errors()) == 0
    # Q does not depend on the scale.
    q = [run.scores()["q_score"].to_numpy() for run in (large, small)]
    assert (q[0] > 0).any()
    np.testing.assert_allclose(q[0], q[1], rtol=1e-4, atol=1e-6)
    ids = [
        i
        for i, fits in zip(large.scores()["sample_id"].to_pylist(), finite, strict=True)
        if not fits
    ]
    (note,) = [note for note in large.summary["notes"] if "float16" in note]
    assert note.startswith(f"{len(ids)} images have features beyond 65,504")
    assert all(repr(i) in note for i in ids[:3])
    assert note in rescore(large.path, eps=2.4).summary["notes"]
    assert not [note for note in small.summary["notes"] if "float16" in note]


def test_a_large_norm_of_small_entries_is_no_overflow(tmp_path: Path) -> None:
    images = save_images(tmp_path / "images", 12)
    run = score(images, encoder(20_000), tmp_path / "run", embeddings="npy", eps=2.5)
    assert (run.scores()["l2"].to_numpy() > 65504).any()
    assert np.isfinite(ScoreRun(run.path).embeddings()).all()
    assert not [note for note in run.summary["notes"] if "float16" in note]
