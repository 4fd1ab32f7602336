"""``qscore demo``: the main job on the bundled images, end to end, as a newcomer starts it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import qscore
from PIL import Image
from small_networks import small_encoder

from qscore_fast import reference
from qscore_fast.cli import main
from qscore_fast.demo import run_demo
from qscore_fast.demo.fashion_mnist import CLASSES, read_idx
from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import StoreError
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
        "report.html",
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

    report = (out / "report.html").read_text()
    assert report.count('class="card"') > 200
    assert '"map":"data:image/webp' in report.replace('": "', '":"')

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


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    """A colour encoder of 32 x 32 images, untrained."""
    return replace(small_encoder(), name="some/folder/resnet18.pth", system="moco")


def test_another_encoder(resnet: Encoder, tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path / "demo", said.append, encoder=resnet, limit=50)
    assert result.discovery.summary["num_scored"] == result.scoring.summary["num_scored"] == 50
    assert (result.scoring.features.num_samples, result.scoring.summary["num_features"]) == (
        50,
        512,
    )
    assert result.picture.stat().st_size > 10_000
    paths = sorted((tmp_path / "demo/images/score-50").rglob("*.png"))
    assert len(paths) == 50
    labels = read_idx("score", "labels-idx1")[:50]
    names = {f"{CLASSES[label]}/{number:05d}.png" for number, label in enumerate(labels)}
    assert {f"{path.parent.name}/{path.name}" for path in paths} == names
    # What was scored is what the encoder sees of the grey images in colour.
    with Image.open(paths[0]) as image:
        h = resnet(resnet.preprocess(image)[None]).double()
    stats = reference.row_stats(h)
    first = pq.read_table(tmp_path / "demo/score/scores.parquet").to_pylist()[0]
    assert first["sample_id"] == f"{paths[0].parent.name}/{paths[0].name}"
    assert first["l2"] == pytest.approx(stats.l2.item(), rel=1e-4)

    again = run_demo(tmp_path / "demo", said.append, encoder=resnet, limit=50)
    assert again.scoring.session is not None
    assert again.scoring.session.parts_done == 0
    with pytest.raises(StoreError, match="--overwrite"):
        run_demo(tmp_path / "demo", encoder="demo", limit=50)
    other = run_demo(tmp_path / "demo", encoder="demo", limit=50, overwrite=True)
    assert other.scoring.summary["encoder"] == "demo"


def test_options_of_the_command(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "demo", "--encoder", str(checkpoint), "--limit", "20", "--out", str(tmp_path / "d"),
        "--mean", "0", "--std", "1", "--device", "cpu", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["score"]["num_scored"] == 20
    record = json.loads((tmp_path / "d/score/run.json").read_text())
    assert record["asked"]["preprocess"]["mean"] == [0.0]
    assert main(["demo", "--limit", "0", "--out", str(tmp_path / "e"), "--device", "cpu"]) == 2
    assert "limit must be" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
