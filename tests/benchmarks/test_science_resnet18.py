"""The experiment's own encoder: rounds that double, until it is sparse; stopped and gone on with."""

from __future__ import annotations

import argparse
import functools
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.science import pretraining, resnet18
from benchmarks.science.__main__ import _subjects, main
from benchmarks.science.fashion_mnist import PREPROCESS, class_folders
from benchmarks.science.planted_result import planted_results
from benchmarks.science.resnet18 import Rounds, pretrained, training_time
from benchmarks.table2.small_systems import small_encoder
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import untrained_encoder
from qscore_fast.images import Source, open_source

IMAGES = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files of Fashion-MNIST under their own names, with the images that the demo has."""
    folder = tmp_path_factory.mktemp("data")
    bundled = Path(str(files("qscore_fast.demo") / "data"))
    for ours, theirs in (("discover", "train"), ("score", "t10k")):
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{kind}-ubyte.gz"
            shutil.copyfile(bundled / f"{ours}-{name}", folder / f"{theirs}-{name}")
    return folder


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folders(data, tmp_path_factory.mktemp("images"), IMAGES)["train"]


@pytest.fixture
def images(folder: Path) -> Source:
    return open_source(folder)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eighth of the width, r = 64: as many layers, little to compute."""

    def untrained():
        return untrained_encoder("simclr", PREPROCESS, block="basic", layers=(2, 2, 2, 2), width=8)

    monkeypatch.setattr(resnet18, "untrained", untrained)


def share_by_hand(checkpoint: Path, folder: Path) -> float:
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
    h = load_encoder(checkpoint, "simclr", device="cpu")(
        (torch.from_numpy(pixels)[:, None].float() / 255 - 0.286) / 0.353
    )
    return float((h > 0).double().mean())


def test_it_is_a_resnet_18_of_512_features():
    encoder = resnet18.untrained()
    assert (encoder.num_features, encoder.architecture) == (512, "ResNet-18 (SAME max-pool)")
    # He et al. 2016 of one channel: 11.2 million, the first stage's projection of SimCLR's code among them.
    count = sum(parameter.numel() for parameter in encoder.module.parameters())
    assert count == 11_176_512 - 2 * 64 * 49 + 64 * 64 + 2 * 64


def test_rounds_double():
    settings = Rounds(3, 4).settings()
    assert [one.epochs for one in settings] == [3, 6, 12, 24]
    assert len({one.seed for one in settings}) == 4
    assert {one.regulariser for one in settings} == {"none"}
    for wrong in ((0, 2), (1, 0)):
        with pytest.raises(SettingsError, match="are no training: give --pretraining-rounds"):
            Rounds(*wrong)


def test_every_round_goes_on_and_nothing_is_done_twice(
    narrow, images, folder, tmp_path, monkeypatch
):
    told: list[str] = []
    time = training_time(images, Rounds(1, 2), tmp_path, "cpu")
    assert "3 steps of" in time.note  # one of 256 images, and two
    # Stopped while the second round's training ran.
    export = pretraining.export

    def stopped(objective, start, checkpoint):
        if checkpoint.name == "round-2.pth":
            raise KeyboardInterrupt
        return export(objective, start, checkpoint)

    monkeypatch.setattr(pretraining, "export", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrained(images, Rounds(1, 2), tmp_path, told.append)
    assert not (tmp_path / "resnet18.pth").exists()
    time = training_time(images, Rounds(1, 2), tmp_path, "cpu")
    assert "2 steps of" in time.note
    monkeypatch.setattr(pretraining, "export", export)
    told.clear()
    path, found = pretrained(images, Rounds(1, 2), tmp_path, told.append)
    assert [line for line in told if "done before" in line] == [
        "untrained: done before",
        "round-1: done before",
    ]
    assert [(one["epochs"], one["steps"]) for one in found["rounds"]] == [(1, 1), (2, 2)]
    assert not found["sparse"]
    # From round to round the weights move on from where they were.
    states = [
        load_encoder(tmp_path / name, "simclr", device="cpu").module.state_dict()
        for name in ("round-1.pth", "round-2.pth")
    ]
    weights = [state["layer4.1.conv2.weight"] for state in states]
    distance = float((weights[1] - weights[0]).norm() / weights[0].norm())
    assert 0 < distance < 0.2
    assert path.read_bytes() == (tmp_path / "round-2.pth").read_bytes()
    for checkpoint, one in zip((tmp_path / "round-1.pth", path), found["rounds"], strict=True):
        assert one["active"] == pytest.approx(share_by_hand(checkpoint, folder), abs=1e-4)
    assert training_time(images, Rounds(1, 2), tmp_path, "cpu").seconds == 0
    assert "4 steps of" in training_time(images, Rounds(1, 3), tmp_path, "cpu").note


def test_it_ends_where_it_is_sparse(narrow, images, tmp_path, monkeypatch):
    monkeypatch.setattr(resnet18, "SPARSE", 0.9)
    path, found = pretrained(images, Rounds(1, 3), tmp_path, lambda _: None)
    assert len(found["rounds"]) == 1
    assert found["sparse"] and found["rounds"][0]["active"] <= 0.9
    assert path.exists()
    assert training_time(images, Rounds(1, 3), tmp_path, "cpu").seconds == 0


def test_the_experiment_trains_it_and_says_whether_it_is_sparse(
    narrow, data, tmp_path, capsys, monkeypatch
):
    one_seed = functools.partial(planted_results, seeds=(0,))
    monkeypatch.setattr("benchmarks.science.__main__.planted_results", one_seed)
    words = [
        "--data", str(data), "--limit", str(IMAGES), "--out", str(tmp_path / "work"), "--device", "cpu",
        "--encoder", "resnet18", "--pretraining-epochs", "1", "--pretraining-rounds", "1",
        "--resamples", "20", "--seeds", "1", "--results", str(tmp_path / "results"),
        "--document", str(tmp_path / "docs"),
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().err
    assert said.index("pre-training: ") < said.index("round-1 ...") < said.index("probe ...")
    (file,) = tmp_path.joinpath("results").rglob("science-resnet18-*.json")
    found = json.loads(file.read_text())
    active = found["pretraining"]["rounds"][0]["active"]
    assert found["chain"]["measures"]["measures"]["sparsity_l0"]["value"] == pytest.approx(active)
    text = (tmp_path / "docs" / "science-resnet18.md").read_text()
    assert "1 epoch, NT-Xent from" in " ".join(text.split())
    assert f"not 0 before training and {100 * active:.1f} % after" in " ".join(text.split())
    assert "**it is not sparse**" in " ".join(text.split())
    assert (tmp_path / "docs" / "images" / "science-resnet18-compression.svg").exists()

    tree = ["--imagenet", str(tmp_path), "--encoder", "resnet18", "--out", str(tmp_path / "other")]
    assert main(tree) == 2
    assert "with --imagenet give --encoder CKPT" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"device": "cpu"}, [("demo", None, 4.0)]),
        ({"device": "cuda"}, [("demo", None, 4.0), ("resnet18", "resnet18", "auto")]),
        ({"device": "cuda", "label": "h200"}, [("demo", "h200", 4.0), ("resnet18", "resnet18", "auto")]),
        ({"device": "cuda", "imagenet": Path("i")}, [("demo", None, 4.0)]),
        ({"device": "cuda", "encoder": "a.pth", "eps": 3.0}, [("a.pth", None, 3.0)]),
        ({"device": "cpu", "encoder": "resnet18", "label": "r"}, [("resnet18", "r", "auto")]),
    ],
)  # fmt: skip
def test_a_gpu_takes_it_beside_the_bundled_one(given, expected):
    options = {"encoder": None, "imagenet": None, "label": None, "eps": None, "out": Path("o")}
    subjects = _subjects(argparse.Namespace(**options | given))
    assert [(one.encoder, one.label, one.eps) for one in subjects] == expected
    assert len({one.folder for one in subjects}) == len(subjects)


def test_table_2_trains_on_the_same_images():
    assert small_encoder("simclr").preprocess == PREPROCESS
