"""``qscore score``, ``discover`` and ``info`` as processes, on folders as they are."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import finish, qscore, start
from hostile_images import save_hostile_folder
from sample_data import save_checkpoint

from qscore_fast import reference
from qscore_fast.cli import main
from qscore_fast.features import DiscriminativeFeatures


def test_a_hostile_folder(tmp_path: Path, checkpoint: Path) -> None:
    """Scored twice at once: for a person, and for a machine with an encoder of 224 pixels."""
    good, bad = save_hostile_folder(tmp_path / "images")
    for_person = start(
        "score", "images", "--encoder", checkpoint, "--out", "a", "--eps", "2", cwd=tmp_path
    )
    for_machine = qscore(
        "score", "images", "--encoder", "torchvision:shufflenet_v2_x0_5", "--no-pretrained",
        "--out", "b", "--json", "--embeddings", "npy", "--eps", "2", cwd=tmp_path,
    )  # fmt: skip
    person = finish(for_person)

    assert person.returncode == 0, person.stderr
    assert "20, 13 scored, 7 bad images left out" in person.stdout
    assert "a/errors.parquet" in person.stdout
    assert "2 files of other kinds ignored" in person.stdout
    assert "Traceback" not in person.stderr
    assert "Warning" not in person.stderr

    assert for_machine.returncode == 0, for_machine.stderr
    summary = json.loads(for_machine.stdout)
    assert (summary["num_scored"], summary["num_failed"]) == (12, 8)
    errors = {r["sample_id"]: r for r in pq.read_table(tmp_path / "b/errors.parquet").to_pylist()}
    assert errors.keys() == bad.keys()
    for sample_id, reason in bad.items():
        assert reason in errors[sample_id]["error"]
    scores = pq.read_table(tmp_path / "b/scores.parquet")
    assert set(scores["sample_id"].to_pylist()) == good

    h = torch.from_numpy(np.load(tmp_path / "b/parts/part-000000.npy")).double()
    mask = DiscriminativeFeatures.load(tmp_path / "b/features.npz").mask
    expected = reference.q_score(h, mask, eps=2.0).numpy()
    found = scores["q_score"].to_numpy()
    assert (found > 0).any()
    # float16 moves entries across the threshold in some of the twelve rows; most must agree.
    assert np.isclose(found, expected, atol=2e-3).mean() > 0.7


def test_discover_after_score(
    tmp_path: Path, images: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = qscore("score", images, "--encoder", checkpoint, "--out", tmp_path / "run")
    assert first.returncode == 0, first.stderr
    assert "images      600, 600 scored\n" in first.stdout
    assert "600 images to do" in first.stderr
    assert "largest at which at most 1 % have none (--eps auto takes it)" in first.stdout

    assert main(["discover", str(tmp_path / "run"), "--eps", "auto", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["empty_fraction"] <= 0.01
    assert content["eps"] == content["suggested_eps"] < 4
    scores = pq.read_table(tmp_path / "run/scores.parquet")
    assert (scores["num_active"].to_numpy() == 0).mean() == content["empty_fraction"]

    words = ["discover", str(tmp_path / "run"), "--eps", "4", "--out", str(tmp_path / "four.npz")]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "discriminative at eps = 4 (percentiles 50 to 95, 600 images)" in text
    assert f"written     {tmp_path}/four.npz\n" in text
    assert f"eps = {content['eps']:g} is the largest" in text


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["torch"] == torch.__version__.split("+")[0]
    assert info["backends"]["cpu"]
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"torch       {info['versions']['torch']}\n" in text
    assert info["backends"]["cpu"] in text


def wait_for_parts(out: Path, count: int, process: object) -> None:
    while len(list((out / "parts").glob("part-*.parquet"))) < count:
        assert process.poll() is None, "it ended before it could be stopped"  # type: ignore[attr-defined]
        time.sleep(0.002)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    command = (
        "score", images, "--encoder", checkpoint, "--out", tmp_path / "run",
        "--unit-size", 8, "--batch-size", 2,
    )  # fmt: skip
    process = start(*command)
    wait_for_parts(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert stopped.returncode == 130
    assert "same command again" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not list(tmp_path.rglob(".tmp-*"))
    done = len(list((tmp_path / "run/parts").glob("*.parquet")))
    assert 3 <= done < 75

    again = qscore(*command)
    assert again.returncode == 0
    assert f"{8 * done} of 600 images are in finished parts: going on" in again.stderr
    assert "600 scored" in again.stdout


def test_names_cannot_write_to_the_terminal(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsencode(tmp_path) + b"/\x1b[31mred\n\xff"
    os.mkdir(name)
    code = main(
        ["score", os.fsdecode(name), "--encoder", str(checkpoint), "--out", str(tmp_path / "o")]
    )
    assert code == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1
    assert r"\x1b[31mred\n\udcff" in error


def test_resume_with_another_encoder_is_refused(
    tmp_path: Path, images: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_checkpoint(tmp_path / "other.pth", seed=1)
    command = ["score", str(images / "bag"), "--out", str(tmp_path / "run"), "--encoder"]
    assert main([*command, str(checkpoint)]) == 0
    capsys.readouterr()
    assert main([*command, str(other)]) == 2
    error = capsys.readouterr().err
    assert "other settings (encoder.fingerprint: " in error
    assert "--overwrite" in error
    assert error.count("\n") == 1
