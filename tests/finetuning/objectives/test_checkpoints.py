"""From published checkpoints to objectives and back: nothing is lost, invented or renamed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from published import ROWS, Published
from small_objectives import MULTI_CROP, sgd, small_resnet_encoder, train_step
from torch import Tensor

import qscore_fast as qf
from qscore_fast.encoders import Encoder
from qscore_fast.encoders.containers import read_container
from qscore_fast.errors import EncoderError
from qscore_fast.finetuning.export import export, official_state
from qscore_fast.finetuning.objective import Objective, StepPosition
from qscore_fast.finetuning.objectives import build_objective, objective_settings
from qscore_fast.finetuning.objectives.crops import represent
from qscore_fast.images import IMAGENET

SMALL = replace(IMAGENET, resize=64, crop=64)
# Fresh heads as wide as those of the files, which are an eighth of the published ones.
WIDTHS: dict[str, dict[str, Any]] = {
    "simclr": {"out": 16},
    "swav": {"out": 16, "prototypes": 375},
    "moco": {"out": 16, "queue_length": 64},
    "moco_v2": {"out": 16, "queue_length": 64},
    "moco_v3": {"out": 32},
    "byol": {"out": 32},
    "dino": {"hidden": 64, "bottleneck": 32, "out_dim": 80},
}
FRESH = {
    "simclr": ("online.projector",),
    "swav": ("online.projector", "online.prototypes"),
    "moco": ("online.projector", "queue"),
    "moco_v2": ("online.projector", "queue"),
    "moco_v3": ("online.projector", "online.predictor"),
    "byol": ("online.projector", "online.predictor"),
    "dino": ("online.projector", "online.prototypes", "center"),
    "simsiam": ("online.projector", "online.predictor"),
    "vicreg": ("online.projector",),
    "barlow_twins": ("online.projector",),
}
OFFICIAL = (
    "simclr-v2-sk0-converted", "simclr-v2-sk1-converted", "swav-official-training", "moco-v1-official",
    "moco-v2-official", "moco-v3-r50-official", "moco-v3-vit-s-official", "byol-official",
    "dino-vit-s16-official-full", "simsiam-official", "vicreg-official-full", "barlow-official-full",
)  # fmt: skip
# Layouts whose network the official one is not: padding of PyTorch, other heads, another stem.
ELSEWHERE = {
    "dino-r50-official-full": "facebookresearch/dino",
    "simclr-vissl": "mmpretrain",
    "byol-lightly": "mmpretrain",
    "swav-solo-learn": "facebookresearch/swav",
    "moco-v2-solo-learn": "facebookresearch/moco",
    "barlow-twins-solo-learn-cifar": "solo-learn",
    "byol-solo-learn-cifar": "solo-learn",
}
State = dict[str, tuple[int, ...]]


class Given:
    """A published file, its encoder and the objective that it makes."""

    def __init__(self, row_id: str, folder: Path) -> None:
        (row,) = (row for row in ROWS if row.id == row_id)
        size = {"image": 64} if "vit" in row_id else {}
        self.published: Published = row.write(folder, **size)
        self.encoder: Encoder = qf.load_encoder(self.published.path, device="cpu", preprocess=SMALL)
        assert self.encoder.system is not None
        self.system: str = self.encoder.system


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def views(system: str, images: Tensor) -> list[Tensor]:
    small = [images[:, :, :32, :32], images[:, :, 32:, 32:]] if system in MULTI_CROP else []
    return [images, images.flip(-1), *small]


def shapes(tree: Any, prefix: str = "") -> State:
    if isinstance(tree, Mapping):
        found: State = {}
        for key, value in tree.items():
            found |= shapes(value, f"{prefix}/{key}" if prefix else str(key))
        return found
    return {prefix: tuple(tree.shape)} if hasattr(tree, "shape") else {}


def published_shapes(given: Given) -> State:
    """Of the file's networks and heads: no optimiser, no classifier, no second predictor."""
    if given.system == "byol":
        online, target = given.published.state
        tree = {
            "online_params": online.params, "online_state": online.states,
            "target_params": target.params, "target_state": target.states,
        }  # fmt: skip
        found = shapes({"experiment_state": tree})
        out = ("/classifier/", "target_params/predictor/", "target_state/predictor/")
        return {k: v for k, v in found.items() if not any(name in k for name in out)}
    found = shapes(read_container(given.published.path).content)
    out = ("optimizer/", "resnet/fc.", "fp16_scaler", "scaler")
    return {key: value for key, value in found.items() if not key.startswith(out)}


def exported_shapes(content: Mapping[str, Any]) -> State:
    return shapes({key: value for key, value in content.items() if key != "qscore_fast"})


@torch.no_grad()
def check_parts(objective: Objective, published: Published, images: Tensor) -> None:
    """The plain forward over the file's own tensors gives what the objective's modules give."""
    o = copy.deepcopy(objective).eval()

    def equal(found: Tensor, expected: Tensor | None) -> None:
        assert expected is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * scale)

    for tower, prefix in (("online", ""), ("ema", "ema_")):
        backbone = getattr(o, f"{prefix}backbone", None)
        if backbone is None or tower not in published.towers:
            continue
        equal(represent(backbone, images), published.features(images, tower))
        z = published.projection(images, tower)
        equal(getattr(o, f"{prefix}projector")(represent(backbone, images)), z)
    if published.predictor is not None:
        equal(o.predictor(z := published.projection(images, "online")), published.prediction(z))
    if published.prototypes_weight is not None:
        head = o.ema_prototypes if o.system == "dino" else o.prototypes
        equal(head.weight, published.prototypes_weight)
    if published.queue is not None and o.system == "swav":
        equal(o.queue, published.queue)
    elif published.queue is not None:
        expected = published.queue[0] if published.queue.ndim == 3 else published.queue
        equal(o.queue.T, expected)
    if published.center is not None:
        equal(o.center, published.center.flatten())


def trained_names(objective: Objective) -> set[str]:
    return {name for name, p in objective.named_parameters() if p.requires_grad}


def check_round_trip(given: Given, objective: Objective, images: Tensor, path: Path) -> Encoder:
    written = export(objective, given.encoder, path, epoch=3)
    again = qf.load_encoder(written, device="cpu")
    assert again.system == given.system
    assert again.preprocess == given.encoder.preprocess
    evaluated = copy.deepcopy(objective.evaluated_backbone).eval()
    with torch.no_grad():
        expected = represent(evaluated, images)
    scale = float(expected.abs().max())
    torch.testing.assert_close(again(images), expected, rtol=0, atol=1e-6 * scale)
    rebuilt = build_objective(None, again, only_from_checkpoint=True)
    assert rebuilt.fresh == ()
    assert trained_names(rebuilt.objective) == trained_names(objective)
    # SwAV's official code keeps its queue in files of its own.
    left_out = ["num_batches_tracked", *(["queue"] if given.system == "swav" else [])]
    if again.source == "solo-learn":  # whose batch norm of the loss has no state
        left_out += ["loss_norm.running_mean", "loss_norm.running_var"]
    states = [
        {k: v for k, v in o.state_dict().items() if not k.endswith(tuple(left_out))}
        for o in (objective, rebuilt.objective)
    ]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
    return again


@pytest.mark.parametrize("row_id", [*OFFICIAL, *ELSEWHERE])
def test_what_the_checkpoint_holds_is_used_trained_and_written_back(
    row_id: str, images: Tensor, tmp_path: Path
) -> None:
    given = Given(row_id, tmp_path / "published")
    before = {name: value.clone() for name, value in given.encoder.module.state_dict().items()}
    built = build_objective(None, given.encoder, only_from_checkpoint=True)
    objective = built.objective
    assert built.fresh == ()
    check_parts(objective, given.published, images)

    official = row_id in OFFICIAL
    if official:
        content = official_state(objective, given.encoder)
        assert exported_shapes(content) == published_shapes(given)
    position = StepPosition(400, 1000, 10)
    train_step(objective, sgd(objective, 1e-3), views(given.system, images), position)
    again = check_round_trip(given, objective, images, tmp_path / "out" / "trained.pth")
    if not official:
        assert again.source == ELSEWHERE[row_id]
    assert again.fingerprint != given.encoder.fingerprint
    after = given.encoder.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)

    if official:  # the same backbone alone: fresh heads are those of the official code
        bare = replace(given.encoder, training_state=None)
        widths = WIDTHS.get(given.system, {})
        if "vit" in row_id and given.system == "moco_v3":
            widths = {"out": objective.projector[-1].num_features, "hidden": 512}
            widths["hidden"] = objective.projector[0].out_features
        fresh = build_objective(None, bare, objective_settings(given.system, widths))
        assert fresh.fresh == FRESH[given.system]
        assert trained_names(fresh.objective) >= trained_names(objective) - {"prototypes.weight_g"}
        found = exported_shapes(official_state(fresh.objective, bare))
        assert found == published_shapes(given)


def test_xcit_keeps_its_own_names(tmp_path: Path, images: Tensor) -> None:
    given = Given("dino-xcit-p16-official", tmp_path)
    settings = objective_settings("dino", WIDTHS["dino"])
    objective = build_objective(None, given.encoder, settings).objective
    content = official_state(objective, given.encoder)
    expected = shapes(read_container(given.published.path).content)
    found = shapes(content["teacher"])
    backbone = {k.removeprefix("module.backbone."): v for k, v in found.items() if "backbone." in k}
    assert backbone == expected
    check_round_trip(given, objective, images, tmp_path / "trained.pth")


@pytest.mark.parametrize(
    "beside",
    [{"preprocess": {"mode": "RGB"}}, {"preprocess": 3}, {"preprocess": {"resize": 10**9}}],
)
def test_a_transform_beside_the_keys_that_makes_no_sense(beside: object, tmp_path: Path) -> None:
    encoder = small_resnet_encoder()
    objective = build_objective("simsiam", encoder).objective
    content = official_state(objective, encoder)
    torch.save({**content, "qscore_fast": beside}, tmp_path / "a.pth")
    with pytest.raises(
        EncoderError, match=r"cannot load the checkpoint .*preprocess: needs the fields"
    ):
        qf.load_encoder(tmp_path / "a.pth")
    torch.save({**content, "qscore_fast": "of another program"}, tmp_path / "b.pth")
    assert qf.load_encoder(tmp_path / "b.pth").preprocess == IMAGENET
