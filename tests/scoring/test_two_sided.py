"""Runs of an encoder whose features have signs, against a computation from its representations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_data import PREPROCESS, Signed, save_images
from torch import Tensor

from qscore_fast import reference
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.images import FolderSource, Preprocess, decode_image
from qscore_fast.scoring import ScoreRun, discover, score

SETTINGS: dict[str, Any] = {"unit_size": 50, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Signed(), preprocess=Preprocess.from_json(PREPROCESS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("signed"), 120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, folder: Path, encoder: Encoder) -> ScoreRun:
    out = tmp_path_factory.mktemp("run")
    return score(folder, encoder, out, eps=3.0, two_sided=True, embeddings="npy", **SETTINGS)


def representations(folder: Path, encoder: Encoder) -> Tensor:
    """(samples, r) float64, in the order of the run, by the encoder as the run calls it."""
    source, preprocess = FolderSource(folder), encoder.preprocess
    images = [preprocess(decode_image(source.file(i), preprocess.mode)) for i in range(len(source))]
    units = [images[i : i + 50] for i in range(0, len(images), 50)]
    batches = [unit[i : i + 16] for unit in units for i in range(0, len(unit), 16)]
    rows = [encoder(torch.stack(batch)) for batch in batches]
    return torch.cat(rows).double()


def expected_scores(h: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Counts, D, Q and |L and D| at one eps with the default percentiles."""
    active = reference.highly_active(h, eps, two_sided=True)
    counts = active.sum(0)
    low, high = np.percentile(counts.numpy(), [50, 95])
    mask = (counts >= low) & (counts <= high) & (counts > 0)
    return counts, mask, reference.q_score(h, mask, eps, True), (active & mask).sum(1)


def check_against(run: ScoreRun, h: Tensor, eps: float) -> None:
    counts, mask, q, num_active = expected_scores(h, eps)
    assert run.features.two_sided
    assert run.summary["two_sided"] is True
    assert run.features.eps == eps
    assert torch.equal(run.features.counts, counts)
    assert torch.equal(run.features.mask, mask)
    table = run.scores()
    np.testing.assert_allclose(table["q_score"].to_numpy(), q.numpy(), rtol=1e-5)
    assert table["num_active"].to_pylist() == num_active.tolist()
    assert (q > 0).any()


def test_scores_and_rediscovery_equal_a_direct_computation(
    run: ScoreRun, folder: Path, encoder: Encoder
) -> None:
    """Scored at eps = 3, asked again at 3.5 and at 2.2 without an image."""
    h = representations(folder, encoder)
    one_sided = reference.highly_active(h, 3.0)
    assert not torch.equal(one_sided, reference.highly_active(h, 3.0, two_sided=True))
    check_against(ScoreRun(run.path), h, 3.0)
    for eps in (3.5, 2.2, 3.0):
        assert discover(run.path, eps=eps).features.two_sided
        check_against(ScoreRun(run.path), h, eps)


def test_the_run_says_that_features_have_signs(
    tmp_path: Path, folder: Path, encoder: Encoder, checkpoint: Path, run: ScoreRun
) -> None:
    """Only where one side alone was counted, whether D was discovered or given."""
    one_sided = score(folder, encoder, tmp_path / "one", eps=2.5, **SETTINGS)
    told = [note for note in one_sided.summary["notes"] if "--two-sided" in note]
    assert len(told) == 1
    h = representations(folder, encoder)
    share = 100 * (h.clamp(max=0).sum() / -h.abs().sum()).item()
    assert f"{share:.3g} % of their absolute sum is below zero" in told[0]
    again = score(folder, encoder, tmp_path / "two", features=one_sided.features, **SETTINGS)
    assert again.summary["notes"] == told
    discover(tmp_path / "one", eps=3)
    assert told[0] in ScoreRun(tmp_path / "one").summary["notes"]

    assert not any("sign" in note for note in run.summary["notes"])
    relu = score(folder, checkpoint, tmp_path / "relu", eps=2.5, **SETTINGS)
    assert not any("sign" in note for note in relu.summary["notes"])


def test_features_bring_their_sides(
    tmp_path: Path, folder: Path, encoder: Encoder, run: ScoreRun
) -> None:
    features = DiscriminativeFeatures.load(run.path / "features.npz")
    again = score(folder, encoder, tmp_path / "again", features=features, **SETTINGS)
    assert again.features.two_sided
    assert again.scores() == ScoreRun(run.path).scores()
    with pytest.raises(SettingsError, match=r"two_sided = False contradicts .*two_sided = True"):
        score(folder, encoder, tmp_path / "no", features=features, two_sided=False, **SETTINGS)
    assert not (tmp_path / "no").exists()


def test_the_bound_on_the_entries_of_a_part(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    """Chebyshev's r / eps^2 two-sided, Cantelli's r / (1 + eps^2) one-sided."""
    unit_size = 2**31 * 5 // 256 - 1  # at eps = 2 the last that fits one-sided
    with pytest.raises(SettingsError, match="too large for one part"):
        score(
            folder,
            encoder,
            tmp_path / "two",
            two_sided=True,
            **{**SETTINGS, "unit_size": unit_size},
        )
    score(folder, encoder, tmp_path / "one", **{**SETTINGS, "unit_size": unit_size})
