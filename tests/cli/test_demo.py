"""``qscore demo``: the main job on the bundled images, end to end, as a newcomer starts it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import qscore
from PIL import Image

from qscore_fast import reference
from qscore_fast.demo.fashion_mnist import CLASSES, read_idx
from qscore_fast.encoders import load_encoder
from qscore_fast.features import DiscriminativeFeatures


def test_demo_twice(tmp_path: Path) -> None:
    start = time.monotonic()
    first = qscore("demo", cwd=tmp_path)
    first_seconds = time.monotonic() - start
    out = tmp_path / "qscore-demo"
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    for words in (
        "2,000, 2,000 scored",
        "discriminative at eps",
        "images/s",
        "backend",
        "demo.png",
    ):
        assert words in first.stdout
    assert "(auto)" in first.stderr or "no eps from" in first.stderr

    scores = pq.read_table(out / "score" / "scores.parquet")
    labels = read_idx("score", "labels-idx1")
    names = [f"{CLASSES[label]}/{number:05d}.png" for number, label in enumerate(labels)]
    assert sorted(names) == scores["sample_id"].to_pylist()
    assert scores["label"].to_pylist() == [name.split("/")[0] for name in sorted(names)]

    discovered = DiscriminativeFeatures.load(out / "discover" / "features.npz")
    used = DiscriminativeFeatures.load(out / "score" / "features.npz")
    assert discovered.num_samples == 4000
    assert torch.equal(discovered.mask, used.mask)
    encoder = load_encoder("demo", device="cpu")
    pixels = torch.from_numpy(read_idx("score", "images-idx3").copy())[:, None]
    by_name = np.argsort(names)
    h = encoder(encoder.preprocess.normalise(pixels[by_name])).double()
    stats = reference.row_stats(h)
    z = (h - stats.mean[:, None]) / stats.std[:, None]
    clear = ((z - used.eps).abs() > 1e-4).all(1)
    assert clear.sum() > 1900
    expected = reference.q_score(h, used.mask, used.eps)
    found = torch.from_numpy(scores["q_score"].to_numpy().copy()).double()
    torch.testing.assert_close(found[clear], expected[clear], atol=1e-5, rtol=1e-4)

    with Image.open(out / "demo.png") as picture:
        picture.load()
        assert picture.width >= 1200
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) > 200

    written = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    start = time.monotonic()
    second = qscore("demo", "--json", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "nothing was done again" in second.stderr
    assert time.monotonic() - start < max(30, first_seconds)
    summary = json.loads(second.stdout)["score"]
    assert summary["session"]["parts_done"] == 0
    assert summary["q_score"]["median"] == pytest.approx(float(found.median()), abs=1e-3)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == written
