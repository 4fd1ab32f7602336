"""Fresh heads, settings, and what cannot be built or exported."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_objectives import SETTINGS, SYSTEMS, small_objective, small_resnet_encoder
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.encoders import Encoder, TrainingState
from qscore_fast.encoders.networks.small_resnet import SmallResNet
from qscore_fast.errors import EncoderError, SettingsError, StoreError
from qscore_fast.finetuning import export as export_file
from qscore_fast.finetuning.export import export
from qscore_fast.finetuning.objectives import build_objective, objective_settings
from qscore_fast.finetuning.objectives.heads import hidden_width
from qscore_fast.images import Preprocess

R = 64
# Section by section of the official codes' arguments.
OFFICIAL: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": 0.1, "out": 128, "layers": 3},
    "swav": {"temperature": 0.1, "epsilon": 0.05, "sinkhorn_iterations": 3, "out": 128,
             "prototypes": 3000, "freeze_prototypes_steps": 313, "queue_start_epoch": 15},
    "moco": {"temperature": 0.07, "momentum": 0.999, "out": 128, "symmetric": False},
    "moco_v2": {"temperature": 0.2, "momentum": 0.999, "out": 128},
    "moco_v3": {"momentum": 0.99, "out": 256, "frozen_patch_embedding": True},
    "byol": {"momentum": 0.996, "out": 256},
    "dino": {"out_dim": 65536, "hidden": 2048, "bottleneck": 256, "student_temperature": 0.1,
             "teacher_temperature": 0.04, "momentum": 0.996, "center_momentum": 0.9,
             "freeze_last_layer_epochs": 1, "norm_last_layer": True},
    "simsiam": {},
    "vicreg": {"invariance": 25, "variance": 25, "covariance": 1},
    "barlow_twins": {"off_diagonal": 0.0051},
}  # fmt: skip


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_defaults_are_the_official_ones(system: str) -> None:
    settings = objective_settings(system)
    assert {name: getattr(settings, name) for name in OFFICIAL[system]} == OFFICIAL[system]


@pytest.mark.parametrize(
    ("r", "official", "expected"),
    [(2048, 8192, 8192), (4096, 4096, 4096), (512, 8192, 2048), (512, 4096, 1024), (8, 2048, 16)],
)
def test_hidden_layers_follow_small_backbones(r: int, official: int, expected: int) -> None:
    assert hidden_width(official, r) == expected


def weights(head: nn.Module, bias: bool = False) -> list[Tensor]:
    name = "bias" if bias else "weight"
    found = [getattr(m, name) for m in head.modules() if isinstance(m, nn.Linear)]
    return [tensor.detach() for tensor in found if tensor is not None]


def test_fresh_heads_start_as_the_official_ones() -> None:
    for weight in weights(small_objective("simclr").projector):
        assert weight.std().item() == pytest.approx(0.01, rel=0.1)
    byol = small_objective("byol")
    for weight in (*weights(byol.projector), *weights(byol.predictor)):
        # A normal distribution cut at two standard deviations has 0.88 of its width.
        inputs = weight.shape[1]
        assert weight.abs().max().item() <= 2 / inputs**0.5
        assert weight.std().item() * inputs**0.5 == pytest.approx(0.88, rel=0.1)
    dino = small_objective("dino")
    assert torch.stack([w.std() for w in weights(dino.projector)]).allclose(
        torch.tensor(0.02, dtype=torch.float64), rtol=0.1
    )
    for head in (byol.projector, byol.predictor, dino.projector):
        assert not any(bias.any() for bias in weights(head, bias=True))
    assert torch.equal(dino.prototypes.weight_g, torch.ones_like(dino.prototypes.weight_g))
    assert not dino.prototypes.weight_g.requires_grad
    assert small_objective("dino", norm_last_layer=False).prototypes.weight_g.requires_grad
    assert not dino.center.any()
    # PyTorch's own initialisation: uniform within 1 / sqrt(inputs).
    for system in ("moco_v2", "moco_v3", "simsiam", "vicreg", "barlow_twins", "swav"):
        for weight in weights(small_objective(system).projector):
            bound = weight.shape[1] ** -0.5
            assert 0.9 * bound < weight.abs().max().item() <= bound
    queue = small_objective("moco").queue
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(24).double())
    assert abs(F.cosine_similarity(queue[0], queue[1], dim=0).item()) < 0.9
    simclr = small_objective("simclr").projector[-1]
    assert simclr.weight.requires_grad
    assert not simclr.bias.requires_grad
    assert not small_objective("simsiam").projector.linear3.bias.requires_grad
    for system in ("simsiam", "moco_v3"):
        assert small_objective(system).projector[-1].weight is None


def test_the_same_seed_makes_the_same_heads_and_the_encoder_stays() -> None:
    encoder = small_resnet_encoder()
    settings = objective_settings("byol", SETTINGS["byol"])
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(build_objective("byol", encoder, settings).objective)
    states = [torch.cat([p.flatten() for p in o.projector.parameters()]) for o in made]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    average = [p for name, p in made[0].named_parameters() if name.startswith("ema_projector")]
    assert all(map(torch.equal, average, made[0].projector.parameters()))
    with torch.no_grad():
        made[0].backbone.conv1.weight.zero_()
    assert encoder.module.conv1.weight.any()
    assert not encoder.module.training
    assert made[0].backbone.training


def with_state(tensors: dict[str, Tensor], system: str, **more: Any) -> Encoder:
    return replace(
        small_resnet_encoder(), system=system, training_state=TrainingState(tensors), **more
    )


def test_only_what_the_checkpoint_holds() -> None:
    head = {
        "online.projector.linear1.weight": torch.randn(16, R),
        "online.projector.norm1.running_mean": torch.zeros(16),
        "online.projector.norm1.running_var": torch.ones(16),
    }
    encoder = with_state(head, "byol")
    with pytest.raises(
        EncoderError, match=r"small lacks online.predictor, which byol needs.*online.projector"
    ):
        build_objective(None, encoder, only_from_checkpoint=True)
    built = build_objective(None, encoder)
    assert built.fresh == built.fresh_heads == ("online.predictor",)
    assert torch.equal(
        built.objective.projector.linear1.weight, head["online.projector.linear1.weight"]
    )
    bare = replace(encoder, training_state=None)
    with pytest.raises(
        EncoderError, match=r"lacks online.projector, online.predictor.*has nothing"
    ):
        build_objective("byol", bare, only_from_checkpoint=True)


def test_a_queue_of_another_length_is_made_anew() -> None:
    state = {
        "online.projector.linear1.weight": torch.randn(16, R),
        "queue": F.normalize(torch.randn(1, 32, 16), dim=2),
        "queue_ptr": torch.tensor([8]),
    }
    kept = build_objective("moco", with_state(state, "moco"))
    assert kept.fresh == ()
    assert torch.equal(kept.objective.queue, state["queue"][0])
    assert kept.objective.queue_ptr.tolist() == [8]
    settings = objective_settings("moco", {"queue_length": 48})
    made = build_objective("moco", with_state(state, "moco"), settings)
    assert made.fresh == ("queue",)
    assert made.fresh_heads == ()
    assert made.objective.queue.shape == (48, 16)
    assert made.objective.queue_ptr.tolist() == [0]
    # Keys of another head mean nothing.
    lone = {name: value for name, value in state.items() if "queue" in name}
    assert build_objective("moco", with_state(lone, "moco")).fresh == ("online.projector", "queue")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_objective("dinov2", small_resnet_encoder()), "no objective for 'dinov2'"),
        (lambda: build_objective(None, small_resnet_encoder()), "does not tell its system"),
        (lambda: build_objective("byol", small_resnet_encoder(system="dino")), "trained with dino"),
        (lambda: build_objective("byol", small_resnet_encoder(), objective_settings("simclr")),
         "takes BYOLSettings, got SimCLRSettings"),
        (lambda: build_objective("byol", small_resnet_encoder().optimised("bfloat16")), "runs as bfl"),
        (lambda: objective_settings("simclr", {"temprature": 1}), "no setting 'temprature'; it has"),
        (lambda: build_objective("vicreg", with_state(
            {"online.projector.linear1.weight": torch.ones(8, R + 1)}, "vicreg")),
         "projector takes vectors of 65 numbers, but is given 64"),
        (lambda: build_objective("barlow_twins", with_state(
            {"online.projector.linear1.weight": torch.ones(8, R), "loss_norm.running_mean": torch.ones(9)},
            "barlow_twins")), r"running_mean between projector and loss is \(9,\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_built(make: Any, message: str) -> None:
    with pytest.raises((EncoderError, SettingsError), match=message):
        make()


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings_that_make_no_sense(system: str) -> None:
    for setting in fields(type(objective_settings(system))):
        if setting.type == "bool":
            continue
        with pytest.raises(SettingsError, match=rf"{setting.name} must"):
            objective_settings(system, {setting.name: -1})
        wrong = ["many", True, *([2.5] if "float" not in setting.type else [])]
        for value in wrong:
            with pytest.raises(SettingsError, match=f"{setting.name} of {system} must be"):
                objective_settings(system, {setting.name: value})


def test_a_network_without_an_official_layout_is_not_exported(tmp_path: Path) -> None:
    grey = Encoder(
        SmallResNet(8, 1, (4, 4), (1, 1), (1, 2)), Preprocess("L", 8, 8, mean=(0.5,), std=(0.5,))
    )
    objective = build_objective("simsiam", grey).objective
    with pytest.raises(EncoderError, match="no checkpoint layout of simsiam.*ResNets and ViTs"):
        export(objective, grey, tmp_path / "out" / "a.pth")
    assert not (tmp_path / "out").exists()


def test_heads_that_the_official_layout_has_no_place_for(tmp_path: Path) -> None:
    objective = small_objective("vicreg").float()
    objective.projector.linear3 = nn.Linear(48, 32, bias=True)
    with pytest.raises(EncoderError, match="must not have module.projector.6.bias"):
        export(objective, small_resnet_encoder(), tmp_path / "a.pth")


def test_an_export_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(b"before")

    def full(content: object, to: Path) -> None:
        to.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_file.torch, "save", full)
    with pytest.raises(StoreError, match="No space left"):
        export(small_objective("simsiam").float(), small_resnet_encoder(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]
    assert path.read_bytes() == b"before"
