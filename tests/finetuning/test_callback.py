"""QScoreCallback against the same loss written by hand."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torch import Tensor, nn

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import QScoreCallback
from qscore_fast.reference import q_score_loss

VIEWS = [(torch.randn(12, 5, generator=torch.Generator().manual_seed(k)),
          torch.randn(12, 5, generator=torch.Generator().manual_seed(9 + k))) for k in range(3)]  # fmt: skip
MASK = torch.arange(20) % 4 != 0


class Somebodys(lightning.LightningModule):
    """Two views through an encoder, once more through its frozen copy."""

    def __init__(self, returns: str = "tensor", manual: bool = False, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, 20), nn.ReLU())
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.head = nn.Linear(20, 4)
        self.returns = returns
        self.automatic_optimization = not manual
        if frozen:
            self.encoder.requires_grad_(False)

    def ssl(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        first, second = (self.head(self.encoder(view)) for view in batch)
        return (first - second - self.head(self.target(batch[0]))).square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.ssl(batch)
        return {"loss": loss, "more": 1} if self.returns == "mapping" else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.encoder.parameters(), lr=0.1)


def fit(module: Somebodys, callback: QScoreCallback, **given: Any) -> None:
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback], **given,
    )  # fmt: skip
    # A bare list would be taken for several loaders.
    trainer.fit(module, torch.utils.data.DataLoader(VIEWS, batch_size=None))


def by_hand(lambda1: float, lambda2: float, views: int = 2) -> list[Tensor]:
    module = Somebodys()
    optimiser = module.configure_optimizers()
    for batch in VIEWS:
        h = torch.cat([module.encoder(view) for view in batch[:views]])
        loss = module.ssl(batch) + q_score_loss(h, MASK, 1.0, lambda1, lambda2, "sum", False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [p.detach() for p in module.encoder.parameters()]


@pytest.mark.parametrize("returns", ["tensor", "mapping"])
def test_the_regulariser_is_added_and_the_module_left_as_it_was(returns: str) -> None:
    module = Somebodys(returns)
    fit(module, QScoreCallback("encoder", MASK, 0.5, 0.01, eps=1.0))
    for ours, theirs in zip(module.encoder.parameters(), by_hand(0.5, 0.01), strict=True):
        torch.testing.assert_close(ours.detach(), theirs)
    assert "training_step" not in vars(module)
    assert not module.encoder._forward_hooks


def test_some_calls_and_a_schedule() -> None:
    module = Somebodys()
    fit(module, QScoreCallback("encoder", MASK, 0.5, 0.01, eps=1.0, most_calls=1))
    for ours, theirs in zip(module.encoder.parameters(), by_hand(0.5, 0.01, 1), strict=True):
        torch.testing.assert_close(ours.detach(), theirs)
    # A warm-up over a tenth of three steps is none.
    warm = Somebodys()
    fit(warm, QScoreCallback("encoder", MASK, 0.5, 0.01, eps=1.0, lambda_schedule="warmup"))
    for ours, theirs in zip(warm.encoder.parameters(), by_hand(0.5, 0.01), strict=True):
        torch.testing.assert_close(ours.detach(), theirs)


@pytest.mark.parametrize(
    "module, callback, words",
    [
        (Somebodys(), ("body", MASK), "no submodule 'body'; it has encoder, target, head"),
        (Somebodys(manual=True), ("encoder", MASK), "optimises by hand"),
        (Somebodys(), ("target", MASK), "target was not called with a gradient"),
        (Somebodys(), ("encoder", MASK[:7]), "7 features and encoder returns 20"),
    ],
    ids=["name", "manual", "frozen", "features"],
)
def test_errors_name_the_remedy(module: Somebodys, callback: tuple, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        fit(module, QScoreCallback(*callback))
    assert "training_step" not in vars(module)


def test_a_negative_lambda_is_refused() -> None:
    with pytest.raises(SettingsError, match="lambda2 is -1"):
        QScoreCallback("encoder", None, lambda2=-1)
