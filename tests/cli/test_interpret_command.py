"""``qscore interpret``: the options reach the measurement, and wrong ones are said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from planted_patches import WNIDS, planted_images
from salient_tree import save_salient_tree
from sample_data import save_checkpoint

from qscore_fast.cli import main
from qscore_fast.encoders import load_encoder
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.saliency import Compared, OverlapSettings, SalientImageNet, interpret


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/, the masks and answers, two encoders with their features, outcomes."""
    root = tmp_path_factory.mktemp("interpret")
    images = planted_images(2)
    for image in images:
        path = root / "train" / image.wnid / f"{image.name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encoded())
    masks = {
        wnid: {59 + n: {i.name: i.mask(n == 0) for i in images if i.wnid == wnid} for n in range(2)}
        for wnid in WNIDS
    }
    kinds = {wnid: {59: "core", 60: "spurious"} for wnid in WNIDS}
    save_salient_tree(root, masks, kinds, {wnid: n for n, wnid in enumerate(WNIDS)})
    for seed, name in enumerate(("base", "tuned")):
        encoder = load_encoder(save_checkpoint(root / f"{name}.pth", seed))
        DiscriminativeFeatures(
            counts=torch.ones(256, dtype=torch.int64), num_samples=2, eps=2.0, lower=0.0, upper=100.0,
            mask=torch.ones(256, dtype=torch.bool), fingerprint=encoder.fingerprint,
        ).save(root / f"{name}.npz")  # fmt: skip
    outcomes = {
        "sample_id": [f"{i.wnid}/{i.name}.JPEG" for i in images],
        "correct": [True, False] * 2,
    }
    pd.DataFrame(outcomes).to_parquet(root / "probe.parquet")
    return root


def command(tree: Path, out: Path, *more: object) -> list[str]:
    return [
        "interpret", "--encoder", str(tree / "base.pth"), "--features", str(tree / "base.npz"),
        "--images", str(tree / "train"), "--salient", str(tree), "--out", str(out), "--device", "cpu",
        *map(str, more),
    ]  # fmt: skip


def test_every_option_reaches_the_measurement(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more: list[Any] = [
        "--compare-encoder", tree / "tuned.pth", "--compare-features", tree / "tuned.npz",
        "--correct", tree / "probe.parquet", "--combine", "max", "--heat-threshold", "0.25",
        "--mask-threshold", "0.75", "--hard-masks", "--pointing-tolerance", "3", "--salient-compat",
        "--resamples", "50", "--seed", "3", "--examples", "0", "--batch-size", "3",
        "--unit-size", "3", "--json",
    ]  # fmt: skip
    assert main(command(tree, tmp_path / "a", *more)) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert all(Path(name).exists() for name in content["files"]) and "written" in printed.err
    base, tuned = (load_encoder(tree / f"{name}.pth", device="cpu") for name in ("base", "tuned"))
    same = interpret(
        tree / "train", base, SalientImageNet(tree, compat=True), tree / "base.npz", tmp_path / "b",
        compared=Compared(tuned, tree / "tuned.npz"), correct=tree / "probe.parquet", combine="max",
        settings=OverlapSettings(0.25, 0.75, True, 3), num_resamples=50, seed=3, examples=0, batch_size=3,
        unit_size=3,
    )  # fmt: skip
    assert content["means"] == json.loads(json.dumps(same.to_json()["means"]))
    assert (tmp_path / "a" / "asked.json").read_text() == (
        tmp_path / "b" / "asked.json"
    ).read_text()
    table = pq.read_table(tmp_path / "a" / "interpretation.parquet")
    assert table.equals(pq.read_table(tmp_path / "b" / "interpretation.parquet"))
    assert table["q_score"].to_pylist() != table["compare_q_score"].to_pylist()


def test_for_a_person(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tree, tmp_path, "--limit", 3)) == 0
    printed = capsys.readouterr()
    assert "3 of 4 with masks measured; 1 are not in the source" in printed.out
    assert "mIoU" in printed.out and "4 images to do" in printed.err
    # Again: nothing is left to do, and nothing is said to be.
    assert main(command(tree, tmp_path, "--limit", 3)) == 0
    again = capsys.readouterr()
    assert again.out == printed.out and "to do" not in again.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--compare-encoder", "x.pth"], "--compare-encoder and --compare-features go together"),
        (["--compare-correct", "x.csv"], "--compare-correct is of a second encoder"),
        (["--salient-answers", "none.csv"], "none.csv cannot be opened"),
        (["--correct", "none.csv"], "none.csv cannot be read"),
        (["--heat-threshold", "1"], "heat_threshold = 1"),
        (["--combine", "median"], "combine"),
        (["--resamples", "-1"], "num_resamples"),
        (["--split", "train"], "has no split"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    more: list[str], words: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tree, tmp_path, *more)) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in message and "Traceback" not in message


def test_what_does_not_go_together(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tree, tmp_path / "out")
    words[words.index("--salient") + 1] = str(tree / "train")
    assert main(words) == 2
    assert "give the unpacked salient_imagenet_dataset" in capsys.readouterr().err
    second = ["--compare-encoder", tree / "tuned.pth", "--compare-features", tree / "tuned.npz"]
    more = [*second, "--compare-correct", tree / "probe.parquet"]
    assert main(command(tree, tmp_path / "out", *more)) == 2
    assert "give --correct, too" in capsys.readouterr().err
    words = command(tree, tmp_path / "out")
    words[words.index("--features") + 1] = str(tree / "tuned.npz")
    assert main(words) == 2
    assert "discovered with another encoder" in capsys.readouterr().err
