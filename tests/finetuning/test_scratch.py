"""Pre-training: an untrained encoder trains whole from its first step, and is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from small_training import GREY, small_settings

import qscore_fast as qf
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import finetune, untrained_encoder
from qscore_fast.finetuning.export import export


def test_the_network_is_torchvisions_and_the_seed_decides() -> None:
    encoder = untrained_encoder("simsiam", qf.Preprocess(), block="basic", layers=(2, 2, 2, 2))
    plain = torchvision.models.resnet18(weights=None)
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(encoder.module.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(encoder(images), plain.eval()(images))
    small = [
        untrained_encoder("simsiam", GREY, layers=(1, 1, 1, 1), width=8, seed=s) for s in (0, 0, 1)
    ]
    assert small[0].fingerprint == small[1].fingerprint != small[2].fingerprint
    assert small[0].num_features == 256


@pytest.mark.parametrize("system", ["simclr", "byol"])
def test_pre_training_from_scratch(system: str, few_images: Path, tmp_path: Path) -> None:
    start = untrained_encoder(system, GREY, block="basic", layers=(1, 1, 1, 1), width=8)
    said: list[str] = []
    # Fresh heads, and no warm-up of them by default.
    settings = small_settings(
        regulariser="none", steps=3, optimiser="adamw", lr=1e-3, warm_up_heads=None
    )
    run = finetune(
        start, few_images, None, tmp_path / "run", settings, device="cpu", note=said.append
    )
    assert [line["phase"] for line in run.log()] == ["all"] * 3
    assert said == []
    before, after = (e.module.state_dict() for e in (start, run.encoder()))
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert run.encoder().source is None
    path = export(run.objective, start, tmp_path / "trained.pth")
    found = qf.load_encoder(path, device="cpu")
    assert (found.system, found.preprocess) == (system, GREY)
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found(images), run.encoder()(images), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(SettingsError, match="no objective for 'mae'"):
        untrained_encoder("mae", GREY)
    with pytest.raises(SettingsError, match="no such ResNet"):
        untrained_encoder("simsiam", GREY, layers=(1, 1))
    with pytest.raises(SettingsError, match="no such ResNet"):
        untrained_encoder("simsiam", GREY, block="wide")  # type: ignore[arg-type]
