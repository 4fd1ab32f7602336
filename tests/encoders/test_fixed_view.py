"""Fixed views: against Pillow and torchvision on the preprocessed image, and in a run's record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sample_data import save_images
from torchvision.transforms import functional as F

from qscore_fast.cli.main import main
from qscore_fast.encoders import load_encoder
from qscore_fast.encoders.fixed_view import VIEWS, seen
from qscore_fast.errors import EncoderError, SettingsError, StoreError
from qscore_fast.scoring import ScoreRun, score


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_images(tmp_path_factory.mktemp("views") / "images", 20)


def test_every_view_is_torchvisions() -> None:
    x = torch.rand(3, 2, 32, 48)
    torch.testing.assert_close(seen(x, "flip"), F.hflip(x), rtol=0, atol=0)
    padded = F.pad(x, [3, 2, 0, 0], padding_mode="edge")[..., :32, :48]
    torch.testing.assert_close(seen(x, "shift"), padded, rtol=0, atol=0)
    cut = F.resize(F.center_crop(x, [28, 42]), [32, 48], antialias=False)
    torch.testing.assert_close(seen(x, "crop"), cut, rtol=0, atol=1e-6)
    # The smallest images move, too, and low precision stays what it is.
    assert seen(torch.rand(1, 1, 4, 4), "shift").shape == (1, 1, 4, 4)
    for view in VIEWS:
        assert seen(x.bfloat16(), view).dtype == torch.bfloat16


def test_a_run_of_the_view_is_a_run_of_mirrored_files(images, checkpoint, tmp_path) -> None:
    """The files mirrored by Pillow have the same features; the record differs by the view alone."""
    encoder = load_encoder(checkpoint, device="cpu")
    flipped = score(images, encoder.with_view("flip"), tmp_path / "flip", embeddings="npy")
    for path in images.rglob("*.png"):
        target = tmp_path / "mirrored" / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.mirror(Image.open(path)).save(target)
    by_hand = score(tmp_path / "mirrored", encoder, tmp_path / "hand", embeddings="npy")
    plain = score(images, encoder, tmp_path / "plain", embeddings="npy")
    np.testing.assert_allclose(flipped.embeddings(), by_hand.embeddings(), atol=2e-3)
    assert np.abs(flipped.embeddings() - plain.embeddings()).max() > 0.1
    asked = [json.loads((r.path / "run.json").read_text())["asked"] for r in (flipped, plain)]
    assert asked[0].pop("view") == "flip"
    assert asked[0] == asked[1]
    with pytest.raises(StoreError, match="holds a run with other settings"):
        score(images, encoder, tmp_path / "flip", embeddings="npy")


def test_the_command_names_the_view(images, checkpoint, tmp_path, capsys) -> None:
    out = tmp_path / "shift"
    words = ["score", str(images), "--encoder", str(checkpoint), "--out", str(out)]
    assert main([*words, "--view", "shift", "--embeddings", "npy", "--device", "cpu"]) == 0
    assert "every image is seen moved right and down" in capsys.readouterr().err
    encoder = load_encoder(checkpoint, device="cpu").with_view("shift")
    again = score(images, encoder, out, embeddings="npy")  # the same run: nothing is left to do
    assert again.session.parts_done == 0
    assert len(ScoreRun(out).scores()) == 20


def test_what_is_no_view(checkpoint) -> None:
    encoder = load_encoder(checkpoint, device="cpu")
    with pytest.raises(SettingsError, match="view is 'turn': give one of flip, shift, crop"):
        encoder.with_view("turn")
    with pytest.raises(EncoderError, match="sees the view flip already"):
        encoder.with_view("flip").with_view("crop")
