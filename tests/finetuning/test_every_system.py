"""Every system trains from its own checkpoint layout on real images: the loss falls, all terms are finite."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
import torch
from published import ROWS
from small_training import features_of, small_settings

import qscore_fast as qf
from qscore_fast.finetuning import finetune, open_run
from qscore_fast.finetuning.trained import export_run

STEPS = 50
SMALL = qf.Preprocess(resize=32, crop=32)
# Batches, rates and settings with which 50 steps from random weights show: averages that move, temperatures.
CASES = {
    "simclr-v2-sk0-official": (16, 5e-4, {"temperature": 0.2}),
    "swav-official": (8, 2e-3, {"freeze_prototypes_steps": 0, "epsilon": 0.1}),
    "moco-v1-official": (8, 1e-3, {"momentum": 0.9}),
    "moco-v2-official": (8, 5e-4, {"momentum": 0.9, "queue_length": 16}),
    "moco-v3-r50-official": (8, 3e-3, {"momentum": 0.9, "temperature": 0.1}),
    "byol-official": (8, 1e-3, {}),
    "dino-r50-official-full": (8, 1e-3, {"freeze_last_layer_epochs": 0, "center_momentum": 0.5}),
    "simsiam-official": (8, 1e-3, {}),
    "vicreg-official-full": (8, 1e-3, {}),
    "barlow-official-full": (8, 1e-3, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps(name: str, few_images: Path, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.id == name)
    published = row.write(tmp_path / "published", stem=4)
    encoder = qf.load_encoder(published.path, row.system, device="cpu", preprocess=SMALL)
    batch_size, lr, objective = CASES[name]
    settings = small_settings(
        steps=STEPS, batch_size=batch_size, optimiser="adamw", lr=lr, weight_decay=0.0, save_every=STEPS,
        monitor_every=STEPS, keep=0, image_size=32, objective=objective, only_from_checkpoint=True,
        lambda1=1e-2, crop_scale=4,
    )  # fmt: skip
    features = features_of(encoder, few_images, eps=2.0)
    run = finetune(encoder, few_images, features, tmp_path / "run", settings, device="cpu")
    log = run.log()
    assert len(log) == STEPS
    names = ("loss", "ssl", "q_term", "column_term", "mean_q", "below_alpha", "column_gini")
    assert all(math.isfinite(line[name]) for line in log for name in names)
    assert all(abs(line["ssl"] + line["q_term"] + line["column_term"] - line["loss"])
               < 1e-4 * max(1, abs(line["loss"])) for line in log)  # fmt: skip
    first, last = (statistics.fmean(line["ssl"] for line in part) for part in (log[:10], log[-10:]))
    assert last < first
    reopened = open_run(tmp_path / "run", encoder)
    state = reopened.objective.state_dict()
    assert all(
        torch.equal(value, state[name]) for name, value in run.objective.state_dict().items()
    )
    written = export_run(tmp_path / "run", tmp_path / "exported.pth", encoder)
    again = qf.load_encoder(written, device="cpu", system=row.system)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(images), run.encoder()(images), rtol=1e-4, atol=1e-4)
