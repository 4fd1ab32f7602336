"""solo-learn's files (vturrisi/solo-learn: solo/methods/*.py, solo/utils/checkpointer.py,
main_linear.py): a Lightning checkpoint with args.json beside it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .lightning import save_lightning
from .moco import projector as v3_projector
from .parts import GELU, RELU, BatchNorm, Layer, Linear, Weights, mlp, weight_normed
from .resnet import Size, resnet, size_of
from .row import Published, Row, Tower, preprocess

CIFAR = preprocess((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261), None, None)
METHODS = {
    "simclr": "simclr",
    "moco_v2": "mocov2plus",
    "moco_v3": "mocov3",
    "byol": "byol",
    "dino": "dino",
    "simsiam": "simsiam",
    "swav": "swav",
    "vicreg": "vicreg",
    "barlow_twins": "barlow_twins",
}
MOMENTUM = ("moco_v2", "moco_v3", "byol", "dino")


def perceptron(widths: list[int], *, norm: bool) -> list[Layer]:
    """Linears with bias, each but the last followed by [BatchNorm and] ReLU; numbered as in a
    Sequential."""
    steps: list[Layer] = []
    number = 0
    for index, (into, out) in enumerate(pairwise(widths)):
        steps.append(Linear(str(number), into, out))
        number += 1
        if index < len(widths) - 2:
            steps += [BatchNorm(str(number), out)] if norm else []
            steps.append(RELU)
            number += 1 + norm
    return steps


def parts(system: str, size: Size) -> tuple[list[Layer], list[Layer] | None]:
    wide, hidden, out = size.features, size.scaled(2048), size.scaled(256)
    if system in ("simclr", "moco_v2"):
        return perceptron([wide, hidden, out], norm=False), None
    if system == "byol":
        return perceptron([wide, hidden, out], norm=True), perceptron([out, hidden, out], norm=True)
    if system == "swav":
        return perceptron([wide, hidden, out], norm=True), None
    if system in ("vicreg", "barlow_twins"):
        return perceptron([wide, hidden, hidden, hidden], norm=True), None
    if system == "moco_v3":
        # The official builder's names without the leading ".".
        first = v3_projector(wide, hidden, out, 2, "")
        second = v3_projector(out, hidden, out, 2, "")[:-1]
        return [bare(step) for step in first], [bare(step) for step in second]
    if system == "dino":
        return [
            Linear("0", wide, hidden), GELU,
            Linear("2", hidden, hidden), GELU, Linear("4", hidden, out),
        ], None  # fmt: skip
    narrow = max(4, hidden // 4)
    return [
        Linear("0", wide, hidden, False), BatchNorm("1", hidden), RELU,
        Linear("3", hidden, hidden, False), BatchNorm("4", hidden), RELU,
        Linear("6", hidden, hidden), BatchNorm("7", hidden, affine=False),
    ], [
        Linear("0", hidden, narrow, False), BatchNorm("1", narrow), RELU, Linear("3", narrow, hidden),
    ]  # fmt: skip


def bare(step: Layer) -> Layer:
    if isinstance(step, Linear):
        return Linear(step.name.lstrip("."), step.into, step.out, step.bias)
    if isinstance(step, BatchNorm):
        return BatchNorm(step.name.lstrip("."), step.width, step.affine)
    return step


def write(
    path: Path, seed: int, *, system: str, cifar: bool = False, old: bool = False, **given: Any
) -> Published:
    """`cifar` has the 3x3 stem of padding 2; `old` the prefix `encoder.` of the first releases."""
    weights, state = Weights(seed), OrderedDict()
    size = size_of(**{"published_layers": (2, 2, 2, 2), "block": "basic", **given})
    padding = "cifar2" if cifar else "torch"
    layers, predictor_layers = parts(system, size)
    hidden_name, name = ("encoder", "projector") if old else ("backbone", "projector")
    if system == "dino":
        name = "head.mlp"
    run = resnet(weights, state, f"{hidden_name}.", size, padding=padding)
    classes = 100
    mlp(weights, state, "", Linear("classifier", size.features, classes))
    towers = {"online": Tower(run, mlp(weights, state, f"{name}.", *layers))}
    found = {"projector", "classifier"}
    predictor = prototypes = keys = center = None
    out = layers[-1].out if isinstance(layers[-1], Linear) else size.scaled(256)
    if predictor_layers is not None:
        predictor = mlp(weights, state, "predictor.", *predictor_layers)
        found.add("predictor")
    if system in MOMENTUM:
        run = resnet(weights, state, "momentum_backbone.", size, padding=padding)
        towers["ema"] = Tower(run, mlp(weights, state, f"momentum_{name}.", *layers))
        found |= {"ema_backbone", "ema_projector"}
    if system in ("dino", "swav"):
        clusters = max(8, size.scaled(4096 if system == "dino" else 3000))
        last = "head.last_layer" if system == "dino" else "prototypes"
        for prefix in ("", "momentum_") if system == "dino" else ("",):
            state[f"{prefix}{last}.weight_g"] = weights.uniform(clusters, 1, low=0.5, high=1.5)
            state[f"{prefix}{last}.weight_v"] = weights.normal(clusters, out)
        prototypes = weight_normed(state[f"{last}.weight_g"], state[f"{last}.weight_v"])
        found.add("prototypes")
    if system == "dino":
        center = state["dino_loss_func.center"] = weights.normal(1, clusters)
        found |= {"ema_prototypes", "center"}
    if system in ("moco_v2", "swav"):
        # One queue per view; MoCo's keys are columns, SwAV's are rows.
        keys = F.normalize(weights.normal(2, out, 64), dim=1)
        state["queue"] = keys = keys if system == "moco_v2" else keys.transpose(1, 2).contiguous()
        if system == "moco_v2":
            state["queue_ptr"] = torch.tensor([32])
        found.add("queue")
    dataset = "cifar100" if cifar else "imagenet100"
    settings = {
        "method": METHODS[system],
        "backbone": {"name": "resnet18", "kwargs": {}},
        "data": {"dataset": dataset, "num_classes": classes},
        "max_epochs": 400,
    }
    save_lightning(state, path, "1.7.4", settings)
    path.with_name("args.json").write_text(json.dumps(settings))
    evaluation = CIFAR if cifar else preprocess()
    return Published(
        path, size.features, towers, "online", evaluation, frozenset(found), predictor,
        prototypes, keys, center, (state["classifier.weight"], state["classifier.bias"]), state=state,
    )  # fmt: skip


def writer(system: str, **options: Any) -> Callable[..., Published]:
    return lambda path, seed, **given: write(path, seed, system=system, **options, **given)


SOLO = "solo-learn"


def row(system: str, suffix: str = "", **options: Any) -> Row:
    dataset = "cifar100" if options.get("cifar") else "imagenet100"
    filename = f"{METHODS[system]}-{dataset}-abc123de-ep=399.ckpt"
    return Row(
        f"{system.replace('_', '-')}-solo-learn{suffix}",
        system,
        SOLO,
        filename,
        writer(system, **options),
    )


ROWS = (
    *(row(system) for system in METHODS),
    row("barlow_twins", "-cifar", cifar=True),
    row("byol", "-cifar", cifar=True),
    row("simclr", "-old", old=True),
)
