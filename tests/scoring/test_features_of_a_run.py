"""D of another run is taken only where its images were prepared alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_data import PREPROCESS, save_images

from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.images import Preprocess
from qscore_fast.scoring import rescore, score


def test_the_folder_of_a_run_with_other_preprocessing_is_refused(
    tmp_path: Path, checkpoint: Path
) -> None:
    images = save_images(tmp_path / "images", 20)
    other = load_encoder(
        checkpoint, device="cpu", preprocess=Preprocess.from_json({**PREPROCESS, "resize": 32})
    )
    train = score(images, other, tmp_path / "train", eps=3.0)
    plain = load_encoder(checkpoint, device="cpu")
    assert plain.fingerprint == other.fingerprint
    said = r"features of .*train were discovered with another preprocess \(resize: 32 -> 28\)"
    with pytest.raises(SettingsError, match=said):
        score(images, plain, tmp_path / "val", train.path)
    assert not (tmp_path / "val").exists()
    # The file does not say how its images were prepared.
    val = score(images, plain, tmp_path / "val", train.path / "features.npz")
    before = val.scores()
    with pytest.raises(SettingsError, match=said):
        rescore(val.path, train.path)
    assert rescore(val.path, train.features).scores() == before
    same = score(images, other, tmp_path / "same", train.path)
    assert same.scores()["q_score"].equals(train.scores()["q_score"])
