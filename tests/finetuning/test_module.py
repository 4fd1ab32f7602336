"""FineTuningModule under a Trainer of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from small_training import small_encoder
from torch.utils.data import DataLoader

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import (
    FineTuningModule,
    Lambdas,
    RepresentationRegulariser,
    build_objective,
)
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.recipes import Recipe
from qscore_fast.reference import q_score_loss

RECIPE = Recipe("simsiam", "sgd", 0.1, 2, 8, 0.0, scaled=False, schedule="constant")
MASK = torch.arange(48) % 3 != 0


def batches(count: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        [torch.randn(8, 1, 28, 28, generator=generator) for _ in range(2)] for _ in range(count)
    ]


def loader(count: int) -> DataLoader:
    return DataLoader(batches(count), batch_size=None)  # type: ignore[arg-type]


def module(**plan: Any) -> FineTuningModule:
    torch.manual_seed(0)
    objective = build_objective(None, small_encoder()).objective
    regulariser = RepresentationRegulariser("qscore", MASK, Lambdas(0.5, 0.01), eps=1.0)
    return FineTuningModule(objective, regulariser, Plan(RECIPE, 0.1, 4, 2, **plan))


def trainer(folder: Path, **given: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, **given,
    )  # fmt: skip


def test_it_makes_the_steps_of_a_plain_loop(tmp_path: Path) -> None:
    ours, plain = module(), module().objective
    trainer(tmp_path, max_steps=4, enable_checkpointing=False).fit(ours, loader(4))
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for views in batches(4):
        output = plain(views)
        h = output.representations
        loss = output.loss + q_score_loss(h, MASK, 1.0, 0.5, 0.01, "sum", False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ours.done == 4
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.objective.state_dict()[name], value, msg=name)


def test_lightnings_own_checkpoints_carry_the_step(tmp_path: Path) -> None:
    first = trainer(tmp_path, max_steps=2, enable_checkpointing=False)
    first.fit(module(), loader(2))
    first.save_checkpoint(tmp_path / "two.ckpt")
    again = module()
    trainer(tmp_path, max_steps=3, enable_checkpointing=False).fit(
        again, loader(4), ckpt_path=tmp_path / "two.ckpt", weights_only=True
    )
    assert again.done == 3


def test_an_accumulation_that_differs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="accumulates 2 batches and the plan 1"):
        trainer(tmp_path, max_steps=2, accumulate_grad_batches=2, enable_checkpointing=False).fit(
            module(), loader(4)
        )
