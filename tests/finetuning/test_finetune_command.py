"""``qscore finetune`` and its export, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from published import ROWS

import qscore_fast as qf
from qscore_fast.cli import main
from qscore_fast.finetuning import record
from qscore_fast.finetuning.watching import read_log


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    row = next(row for row in ROWS if row.id == "simsiam-official")
    return row.write(tmp_path_factory.mktemp("published"), stem=4).path


def test_train_from_a_file_of_options_and_export(
    published: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "options.yaml"
    options = {
        "batch_size": 8, "steps": 50, "lr": 0.01, "image_size": 32, "workers": 0, "lambda1": 0.1,
        "log_every": 1, "regulariser": "lasso",
    }  # fmt: skip
    config.write_text(yaml.safe_dump(options))
    out = tmp_path / "run"
    words = ["finetune", "--config", config, "--checkpoint", published, "--data", few_images,
             "--out", out, "--steps", 3, "--device", "cpu", "--json", "--no-tensorboard",
             "--warm-up-heads", 0]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert summary["system"] == "simsiam" and summary["steps"] == 3
    assert "step 3 of 3: loss" in printed.err
    asked = record.read(out)["asked"]
    assert asked["settings"]["lambda1"] == 0.1 and asked["settings"]["steps"] == 3
    assert len(read_log(out)) == 3
    file = tmp_path / "tuned.pth"
    assert main(["finetune", "export", str(out), "--layout", "official", "--out", str(file)]) == 0
    tuned, start = (qf.load_encoder(path, device="cpu") for path in (file, published))
    assert tuned.system == "simsiam" and tuned.num_features == start.num_features
    assert tuned.training_state.parts == start.training_state.parts
    assert tuned.fingerprint != start.fingerprint


@pytest.mark.parametrize(
    "words, error",
    [
        ([], "--checkpoint is missing"),
        (["--checkpoint", "demo"], "--data is missing"),
        (["--lambda1", "-1"], "lambda1 is -1.0 (--lambda1)"),
        (["--batch-size", "1"], "batch_size is 1"),
        (["--batch-size", "many"], "--batch-size: not valid: many"),
        (["--objective.temprature", "1"], "no setting 'temprature'"),
        (["--compare", "control"], "--probe-train"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    error: str,
    few_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = [
        "--checkpoint",
        "demo",
        "--data",
        str(few_images),
        "--features",
        "auto",
        "--system",
        "simclr",
    ]
    given = words if words[:1] in ([], ["--checkpoint"]) else [*usual, *words]
    assert main(["finetune", "--out", str(tmp_path / "out"), *given]) == 2
    printed = capsys.readouterr().err.strip().split("\n")
    assert error in printed[-1] and printed[-1].startswith("qscore: error:")
    assert not (tmp_path / "out").exists()
