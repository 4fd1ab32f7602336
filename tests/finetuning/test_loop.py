"""The loop: it goes on exactly, stops when it should, and refuses what makes no sense before it starts."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import pytest
import torch
from small_training import R, SmallNet, features_of, small_encoder, small_settings
from torch import nn

import qscore_fast as qf
from qscore_fast.cli import main
from qscore_fast.errors import EncoderError, QScoreError, SettingsError, SourceError, StoreError
from qscore_fast.finetuning import TrainingStopped, finetune
from qscore_fast.finetuning.checkpoint import Checkpoint, CheckpointFolder
from qscore_fast.finetuning.fine_tune_run import FineTuneRun
from qscore_fast.finetuning.recipes import OFFICIAL, PAPER
from qscore_fast.finetuning.watching import TrainingLog, read_log

SPEED = ("images_per_second", "waiting_share")


class Dropping(SmallNet):
    """Draws random numbers in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.drop(super().forward(images))


class Killed(Exception):
    """In place of a power cut."""


def numbers(run: FineTuneRun | Path) -> list[dict[str, Any]]:
    lines = run.log() if isinstance(run, FineTuneRun) else read_log(run)
    return [{k: v for k, v in line.items() if k not in SPEED} for line in lines]


def dying(at: int) -> Callable[..., None]:
    def progress(done: int, steps: int, values: dict[str, Any]) -> None:
        if done == at:
            raise Killed

    return progress


def test_killed_anywhere_it_goes_on_to_the_bit(few_images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = replace(small_encoder(system="moco_v2"), module=Dropping().eval())
    features = features_of(encoder, few_images)
    settings = small_settings(
        steps=14, batch_size=8, accumulate=2, warm_up_heads=3, save_every=4, seed=5,
        objective={"queue_length": 64}, lambda_schedule="warmup_anneal", lambda1=0.1,
    )  # fmt: skip

    def train(name: str, progress: Any = None) -> FineTuneRun:
        return finetune(
            encoder,
            few_images,
            features,
            tmp_path / name,
            settings,
            device="cpu",
            progress=progress,
        )

    whole = train("whole")
    assert [line["phase"] for line in whole.log()] == ["heads"] * 3 + ["all"] * 14
    for at in (2, 9, 15):
        with pytest.raises(Killed):
            train("killed", dying(at))
    resumed = train("killed")
    assert numbers(resumed) == numbers(whole)
    ours, theirs = resumed.objective.state_dict(), whole.objective.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # A finished training is not done again, whatever the settings that no number depends on.
    stamp = (tmp_path / "killed" / "log.jsonl").stat().st_mtime_ns
    train("killed", dying(1))
    assert (tmp_path / "killed" / "log.jsonl").stat().st_mtime_ns == stamp


def test_sigkill(few_images: Path, checkpoint: Path, tmp_path: Path) -> None:
    arguments = [
        "finetune", "--checkpoint", checkpoint, "--data", few_images, "--features", "auto",
        "--device", "cpu", "--batch-size", 8, "--steps", 18, "--warm-up-heads", 2, "--workers", 1,
        "--log-every", 1, "--save-every", 3, "--lr", 0.01, "--no-tensorboard",
    ]  # fmt: skip
    killed, log = tmp_path / "killed", tmp_path / "killed" / "log.jsonl"
    process = command.start(*arguments, "--out", killed)
    while process.poll() is None and not (log.exists() and len(read_log(killed)) >= 5):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = numbers(killed)
    assert 5 <= len(before) < 20
    left = CheckpointFolder(killed / "checkpoints").latest()
    assert left is not None and 3 <= left.step <= len(before)
    # Taken up here, by another process than the one that was killed; and never stopped at all.
    for out in (killed, tmp_path / "whole"):
        assert main([str(word) for word in [*arguments, "--out", out]]) == 0
    assert numbers(killed) == numbers(tmp_path / "whole")
    assert numbers(killed)[: len(before)] == before and len(numbers(killed)) == 20


def test_other_settings_are_refused_by_name(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)
    settings = small_settings(steps=2, log_every=2)
    finetune(encoder, few_images, features, tmp_path, settings, device="cpu")
    for change, name in (
        ({"lr": 0.02}, "settings.lr: 0.01 -> 0.02"),
        ({"seed": 1}, "settings.seed"),
    ):
        with pytest.raises(SettingsError, match=name):
            finetune(
                encoder, few_images, features, tmp_path, replace(settings, **change), device="cpu"
            )
    other = replace(features, mask=~features.mask)
    with pytest.raises(SettingsError, match=r"features\.mask"):
        finetune(encoder, few_images, other, tmp_path, settings, device="cpu")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(QScoreError, match="nowhere"):
        finetune(encoder, "nowhere", features, tmp_path, settings, device="cpu", overwrite=True)
    assert len(read_log(tmp_path)) > 0  # nothing was deleted for a training that cannot begin
    again = replace(settings, seed=1, log_every=1)
    run = finetune(encoder, few_images, features, tmp_path, again, device="cpu", overwrite=True)
    assert len(run.log()) == 2
    assert notes.read_text() == "mine"


def test_nan_stops_it_and_the_good_checkpoint_stays(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)
    settings = small_settings(steps=9, lr=1e-3, save_every=2)

    def poison(done: int, steps: int, values: dict[str, Any]) -> None:
        if done == 5:
            weight.data.fill_(float("nan"))

    from qscore_fast.finetuning.objectives import simsiam

    weight: Any = None
    build = simsiam.SimSiam.__init__

    def caught(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal weight
        build(self, *args, **kwargs)
        weight = self.backbone.body[0].weight

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simsiam.SimSiam, "__init__", caught)
        with pytest.raises(TrainingStopped, match=r"step 6: the loss is NaN.*--lr.*that of step 4"):
            finetune(
                encoder, few_images, features, tmp_path, settings, device="cpu", progress=poison
            )
    kept = CheckpointFolder(tmp_path / "checkpoints").latest()
    assert kept is not None and kept.step == 4
    assert all(bool(torch.isfinite(value.float()).all()) for value in kept.objective.values())
    assert read_log(tmp_path)[-1]["loss"] is None
    assert (tmp_path / "curves.png").exists()


def test_collapse_stops_it(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)
    settings = small_settings(steps=9, monitor_every=1, collapse_below=0.999, lr=0.05)
    with pytest.raises(TrainingStopped, match=r"representations collapse: .* below 0\.999 of"):
        finetune(encoder, few_images, features, tmp_path, settings, device="cpu")


def test_fresh_heads_warm_up_with_the_backbone_frozen(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)
    notes: list[str] = []
    settings = small_settings(steps=2, warm_up_heads=4, save_every=4, keep=5)
    finetune(encoder, few_images, features, tmp_path, settings, device="cpu", note=notes.append)
    warmed = Checkpoint.read(tmp_path / "checkpoints" / "step-000000004.pt").objective
    start = encoder.module.state_dict()
    for name, value in start.items():
        if "num_batches_tracked" not in name:
            assert torch.equal(warmed[f"backbone.{name}"], value)
    trained = Checkpoint.read(tmp_path / "checkpoints" / "last.pt").objective
    assert not torch.equal(trained["backbone.body.0.weight"], start["body.0.weight"])
    assert not torch.equal(trained["backbone.body.1.running_mean"], start["body.1.running_mean"])
    heads = [name for name in warmed if name.startswith("projector") and name.endswith("weight")]
    assert heads
    assert any("no online.projector, online.predictor" in n and "4 steps" in n for n in notes)


def test_features_are_made_anew(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)
    settings = small_settings(steps=13, refresh_features=1, lr=0.1, log_every=13)
    run = finetune(encoder, few_images, features, tmp_path, settings, device="cpu")
    made = sorted((tmp_path / "features").iterdir())
    assert [path.name for path in made] == ["step-000000006", "step-000000012"]
    last = qf.ScoreRun(made[-1]).features
    assert (last.eps, last.lower, last.upper) == (features.eps, features.lower, features.upper)
    kept = Checkpoint.read(run.path / "checkpoints" / "last.pt").regulariser
    assert torch.equal(kept["loss.features"], last.mask)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"batch_size": 1}, r"batch_size is 1 .*2 or more"),
        ({"lambda1": -0.1}, r"lambda1 is -0.1 \(--lambda1\)"),
        ({"lambda2": float("nan")}, "lambda2 is nan"),
        ({"lr": 0}, "lr is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"preset": "mine"}, "preset is 'mine'.*paper, official"),
        ({"objective": {"temprature": 1}}, "no setting 'temprature'"),
        ({"batch_size": 200}, "96 images"),
        ({"accumulate": 5}, "do not divide"),
        ({"only_from_checkpoint": True}, "lacks online.projector, online.predictor"),
        ({"image_size": 4}, "image_size is 4"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense(
    few_images: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    encoder = small_encoder()
    with pytest.raises((SettingsError, SourceError, EncoderError), match=words):
        finetune(
            encoder, few_images, features_of(encoder, few_images), tmp_path, small_settings(**change),
            device="cpu",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_what_does_not_go_together(few_images: Path, tmp_path: Path) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)

    def refused(words: str, encoder: Any = encoder, images: Any = few_images, D: Any = features,
                system: str | None = None, devices: int = 1, **given: Any) -> None:  # fmt: skip
        with pytest.raises(QScoreError, match=words):
            finetune(
                encoder, images, D, tmp_path / "out", small_settings(**given), system=system,
                device="cpu", devices=devices,
            )  # fmt: skip

    refused("discovered with another encoder", encoder=small_encoder(7))
    refused("features", D=replace(features, mask=features.mask[:-1], fingerprint=None))
    refused("give features", D=None)
    refused("does not tell its system", encoder=replace(encoder, system=None))
    refused("is of dinov3", encoder=replace(encoder, system="dinov3"))
    refused("trained with simsiam, not with byol", system="byol")
    refused("there is no folder", images=tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    refused("no image in", images=tmp_path / "empty")
    moco = replace(encoder, system="moco_v2")
    queue = {"queue_length": 50}
    refused("which the 16 keys of one batch in all", encoder=moco, objective=queue)
    refused("devices is 0", devices=0)
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_whole_few_and_ours(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", keep=2)
    assert folder.latest() is None
    for step in (3, 6, 9):
        folder.write(Checkpoint(step, {}, {}, {}, [], {}))
    assert [path.name for path in folder.numbered()] == ["step-000000006.pt", "step-000000009.pt"]
    latest = folder.latest()
    assert latest is not None and latest.step == 9
    (tmp_path / "c" / "last.pt").write_bytes((tmp_path / "c" / "last.pt").read_bytes()[:100])
    with pytest.raises(StoreError, match="is damaged"):
        folder.latest()
    torch.save({"format": "another"}, tmp_path / "c" / "last.pt")
    with pytest.raises(StoreError, match="no checkpoint of qscore finetune"):
        folder.latest()


def test_a_log_forgets_what_came_after_a_checkpoint(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, {"loss": step / 3})
    log.bad("a.png", "decode: damaged")
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    log = TrainingLog(tmp_path, 2, tensorboard=False)
    log.bad("a.png", "decode: damaged")
    log.write(3, {"loss": 7.0})
    log.close()
    assert read_log(tmp_path) == [
        {"step": 1, "loss": 1 / 3}, {"step": 2, "loss": 2 / 3}, {"step": 3, "loss": 7.0},
    ]  # fmt: skip
    assert len((tmp_path / "bad_images.jsonl").read_text().splitlines()) == 1


def test_event_files_hold_the_log(few_images: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    encoder = small_encoder()
    settings = small_settings(steps=2, tensorboard=True)
    features = features_of(encoder, few_images)
    run = finetune(encoder, few_images, features, tmp_path, settings, device="cpu")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [event.value for event in events.Scalars("loss/loss")]
    assert found == pytest.approx([line["loss"] for line in run.log()], rel=1e-6)
    assert "representation/rankme" in events.Tags()["scalars"]


def test_rates_of_the_recipes() -> None:
    from qscore_fast.finetuning.plan import Plan

    plan = Plan(PAPER, PAPER.peak_lr(512), 5000, 100)
    assert PAPER.peak_lr(512) == 1e-5
    assert plan.lr(0) == 0 and plan.lr(500) == 1e-5
    middle = 500 + 2250
    assert plan.lr(middle) == pytest.approx(0.5e-5)
    assert plan.lr(4999) == pytest.approx(1e-5 * (1 + math.cos(math.pi * 4499 / 4500)) / 2)
    step = OFFICIAL["moco"]
    plan = Plan(step, step.peak_lr(512), 20000, 100, warm_up_heads=10, heads_lr=0.7)
    assert [plan.lr(10 + k * 100) for k in (0, 119, 120, 160)] == pytest.approx(
        [0.06, 0.06, 0.006, 0.0006]
    )
    assert plan.lr(9) == 0.7 and plan.position(9).step == 0 and plan.position(12).step == 2


def test_r_is_what_the_encoder_has() -> None:
    assert small_encoder().num_features == R


@pytest.mark.parametrize(
    "way, tolerance",
    [
        ({"channels_last": True}, 1e-3),
        ({"views_on_device": True}, 1e-3),
        ({"precision": "bf16"}, 0.05),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_ways_of_running_change_little(
    few_images: Path, tmp_path: Path, way: dict[str, Any], tolerance: float
) -> None:
    encoder = small_encoder()
    features = features_of(encoder, few_images)

    def losses(name: str, **given: Any) -> list[float]:
        settings = small_settings(steps=2, keep=0, **given)
        run = finetune(encoder, few_images, features, tmp_path / name, settings, device="cpu")
        return [line["loss"] for line in run.log()]

    assert losses("so", **way) == pytest.approx(losses("plain"), rel=tolerance, abs=tolerance / 10)


def test_a_backbone_that_does_not_compile_runs_eagerly(
    few_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            raise RuntimeError("no compiler here")

        return run

    encoder = small_encoder()
    features = features_of(encoder, few_images)
    eager = finetune(
        encoder, few_images, features, tmp_path / "eager", small_settings(steps=2), device="cpu"
    )
    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    settings = small_settings(steps=2, compile=True)
    run = finetune(
        encoder, few_images, features, tmp_path / "run", settings, device="cpu", note=notes.append
    )
    assert "torch.compile failed, running eagerly instead (no compiler here)" in notes
    assert [line["loss"] for line in run.log()] == [line["loss"] for line in eager.log()]
