"""``qscore heatmap``: what it writes, from images, for features of a run, by two encoders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import save_checkpoint, save_images

import qscore_fast as qf
from qscore_fast.cli import main
from qscore_fast.images import path_of_sample_id


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_images(tmp_path_factory.mktemp("source"), 40)
    first = next((folder / "bag").glob("0*.png"))
    inverted = 255 - np.asarray(Image.open(first))
    Image.fromarray(inverted).save(folder / "bag" / "a<b>\n$x$.png")
    (folder / "ankle-boot" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def run(source: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    assert (
        main(["score", str(source), "--encoder", str(checkpoint), "--out", str(out), "--eps", "2"])
        == 0
    )
    return out


def listing(out: Path) -> dict[str, list[dict[str, object]]]:
    found = json.loads((out / "heatmaps.json").read_text())
    assert all(Path(file).is_file() for file in found["files"])
    return found


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_images_with_their_own_features(
    source: Path, run: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "maps"
    command = ["heatmap", str(source), "--encoder", str(checkpoint), "--features", str(run)]
    assert main([*command, "--out", str(out), "--limit", "6", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = listing(out)
    assert printed == found
    # The damaged image is one of the six that were asked for.
    assert len(found["images"]) == 5
    assert list(found["errors"]) == ["ankle-boot/0.png"]
    scores = {row["sample_id"]: row for row in qf.ScoreRun(run).scores().to_pylist()}
    for row in found["images"]:
        expected = scores[row["sample_id"]]
        assert row["q_score"] == pytest.approx(expected["q_score"], rel=1e-5)
        assert len(row["features"]) == expected["num_active"]
    overlays = sorted(out.glob("0*.png"))
    assert len(overlays) == 5
    assert {size_of(path) for path in overlays} == {(28, 28)}
    assert np.asarray(Image.open(overlays[0])).std() > 0
    assert size_of(out / "sheet.png")[0] > 800


def test_a_features_top_images(source: Path, run: Path, checkpoint: Path, tmp_path: Path) -> None:
    features, scored = qf.ScoreRun(run).features, qf.ScoreRun(run).scores()["sample_id"].to_pylist()
    command = ["heatmap", str(source), "--encoder", str(checkpoint), "--features", str(run)]
    assert main([*command, "--top", "3", "--out", str(tmp_path / "top")]) == 0
    shown = [row["features"][0] for row in listing(tmp_path / "top")["images"]]
    often = sorted(features.indices.tolist(), key=lambda j: (-int(features.counts[j]), j))[:6]
    assert sorted(set(shown)) == sorted(often)
    j = often[0]
    assert main([*command, "--top", "3", "--feature", str(j), "--out", str(tmp_path / "one")]) == 0
    encoder = qf.load_encoder(checkpoint, device="cpu")
    pictures = [Image.open(os.path.join(os.fsencode(source), path_of_sample_id(n))) for n in scored]
    h = torch.cat([encoder(encoder.preprocess(picture)[None]) for picture in pictures])
    stands_out = ((h - h.mean(1, keepdim=True)) / h.norm(dim=1, keepdim=True))[:, j]
    best = [scored[i] for i in stands_out.argsort(descending=True)[:3].tolist()]
    assert [row["sample_id"] for row in listing(tmp_path / "one")["images"]] == best[
        : features.counts[j]
    ]


def test_two_encoders_beside_each_other(
    source: Path, checkpoint: Path, run: Path, tmp_path: Path
) -> None:
    other = save_checkpoint(tmp_path / "other.pth", seed=1)
    command = ["heatmap", str(source), "--encoder", str(checkpoint), "--features", str(run)]
    command += ["--compare-encoder", str(other), "--limit", "3", "--out", str(tmp_path / "two")]
    assert main(command) == 0
    rows = listing(tmp_path / "two")["images"]
    assert [row["encoder"] for row in rows] == [str(checkpoint)] * 2 + [str(other)] * 2
    compared = sorted((tmp_path / "two").glob("*-compared.png"))
    assert len(compared) == 2
    first = np.asarray(Image.open(compared[0].with_name(compared[0].name.replace("-compared", ""))))
    assert (first != np.asarray(Image.open(compared[0]))).any()


def test_hostile_names_stay_in_the_folder(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps"
    command = ["heatmap", str(source / "bag"), "--encoder", str(checkpoint), "--out", str(out)]
    assert main([*command, "--feature", "1", "2", "--layer", "stages.0"]) == 0
    assert all(path.parent == out for path in map(Path, listing(out)["files"]))
    assert [path.name[5:] for path in out.glob("*a_b*")] == ["a_b_x.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--feature", "256"], "feature 256 is out of range: the encoder has features 0 to 255"),
        (["--top", "3"], "give its folder as --features"),
        (["--compare-features", "x"], "give --compare-encoder"),
        (["--layer", "stages.9"], "no layer 'stages.9'"),
        (["--features", "nowhere.npz"], "nowhere.npz"),
        (["--limit", "0"], "0"),
    ],
)
def test_wrong_options(
    source: Path, checkpoint: Path, tmp_path: Path, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = ["heatmap", str(source), "--encoder", str(checkpoint), "--out", str(tmp_path / "out")]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_encoder(
    source: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_checkpoint(tmp_path / "other.pth", seed=1)
    command = ["heatmap", str(source), "--encoder", str(other), "--features", str(run)]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert main([*command, "--top", "2", "--out", str(tmp_path / "out")]) == 2
    assert "another encoder" in capsys.readouterr().err
