"""lightly's files (lightly-ai/lightly: benchmarks/imagenet/resnet50/*.py, lightly/models/modules/heads.py,
lightly/models/{resnet,zoo}.py, lightly/embedding/_base.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from .lightning import save_lightning
from .parts import GELU, RELU, BatchNorm, Layer, Linear, Weights, batch_norm, mlp, weight_normed
from .resnet import Size, resnet, run_resnet, size_of, write_resnet
from .row import Published, Row, Tower, preprocess
from .saving import save

# The prefixes of the momentum (or, for DINO, of the student) tower.
SECOND = {"moco_v2": "key_", "byol": "teacher_", "dino": "student_"}


def projection(widths: list[int], *, norm: bool = True, last_norm: bool = False) -> list[Layer]:
    """ProjectionHead: a Linear has a bias unless a BatchNorm follows."""
    steps: list[Layer] = []
    number = 0
    for index, (into, out) in enumerate(pairwise(widths)):
        last = index == len(widths) - 2
        normed = last_norm if last else norm
        steps.append(Linear(f"layers.{number}", into, out, not normed))
        if normed:
            steps.append(BatchNorm(f"layers.{number + 1}", out))
        steps += [] if last else [RELU]
        number += 2 + normed
    return steps


def layers_of(system: str, size: Size) -> tuple[list[Layer], list[Layer] | None]:
    wide, dim, out, big = size.features, size.scaled(128), size.scaled(256), size.scaled(4096)
    huge = size.scaled(8192)
    if system == "simclr":
        return projection([wide, wide, dim], last_norm=True), None
    if system == "moco_v2":
        return projection([wide, wide, dim], norm=False), None
    if system == "byol":
        return projection([wide, big, out]), projection([out, big, out])
    if system == "swav":
        return projection([wide, wide, dim]), None
    if system == "vicreg":
        return projection([wide, huge, huge]), None
    if system == "barlow_twins":
        return projection([wide, huge, huge, huge]), None
    steps = projection([wide, wide, wide, out], norm=False)
    return [GELU if step is RELU else step for step in steps], None


def write(path: Path, seed: int, *, system: str, **given: Any) -> Published:
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    layers, predictor_layers = layers_of(system, size)
    found, predictor, prototypes, center = {"projector", "classifier"}, None, None, None
    first, second = ("ema", "online") if system == "dino" else ("online", "ema")
    towers = {}
    clusters = max(8, size.scaled(65536)) if given.get("full") else 80
    out = layers[-1].out if isinstance(layers[-1], Linear) else 0
    for tower, prefix in ((first, ""), (second, SECOND.get(system))):
        if prefix is None:
            continue
        run = resnet(weights, state, f"{prefix}backbone.", size)
        head = f"{prefix}projection_head."
        towers[tower] = Tower(run, mlp(weights, state, head, *layers))
        if system == "dino":
            state[f"{head}last_layer.weight_g"] = weights.uniform(clusters, 1, low=0.5, high=1.5)
            state[f"{head}last_layer.weight_v"] = weights.normal(clusters, out)
    if len(towers) == 2:
        found |= {"ema_backbone", "ema_projector"}
    if predictor_layers is not None:
        predictor = mlp(weights, state, "prediction_head.", *predictor_layers)
        found.add("predictor")
    if system == "dino":
        last = "projection_head.last_layer.weight"
        prototypes = weight_normed(state[f"{last}_g"], state[f"{last}_v"])
        center = state["criterion.center"] = weights.normal(1, 1, clusters)
        found |= {"prototypes", "ema_prototypes", "center"}
    if system == "swav":
        mlp(weights, state, "prototypes.", Linear("heads.0", out, size.scaled(3000)))
        prototypes = state["prototypes.heads.0.weight"]
        found.add("prototypes")
    mlp(weights, state, "online_classifier.", Linear("classification_head", size.features, 1000))
    save_lightning(state, path, "2.0.6", {"batch_size_per_device": 128, "num_classes": 1000})
    name = "online_classifier.classification_head"
    return Published(
        path, size.features, towers, first, preprocess(), frozenset(found), predictor,
        prototypes, None, center, (state[f"{name}.weight"], state[f"{name}.bias"]), state=state,
    )  # fmt: skip


def zoo(path: Path, seed: int, **given: Any) -> Published:
    """The small zoo's SimCLR, under the names of before version 1.0.6: `model.features.N` is a
    normalisation of the image, ResNetGenerator's children (3x3 stem of stride 1, no max-pool,
    `shortcut`) and a 1x1 convolution to the 16 features that are pooled. No ReLU follows the stem: the
    generator applies it outside of its children."""
    weights, size = Weights(seed), size_of(**{"block": "basic", **given})
    plain: OrderedDict[str, Tensor] = OrderedDict()
    write_resnet(weights, plain, "", size, stem_kernel=3)
    state: OrderedDict[str, Tensor] = OrderedDict()
    body, dim = "model.features.", 16
    weights.batch_norm(state, f"{body}0", 3)
    numbers = {"conv1": 1, "bn1": 2, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
    for name, value in plain.items():
        part, rest = name.split(".", 1)
        state[f"{body}{numbers[part]}.{rest}".replace("downsample", "shortcut")] = value
    state[f"{body}7.weight"] = weights.conv(dim, size.features, 1)
    state[f"{body}7.bias"] = weights.normal(dim, std=0.2)
    head = "model.projection_head."
    projector = mlp(weights, state, head, Linear("0", dim, dim), RELU, Linear("2", dim, dim))
    save({"state_dict": state}, path, legacy=True)

    def features(images: Tensor, pool: str) -> Tensor:
        images = batch_norm(state, f"{body}0", images)
        x = run_resnet(plain, "", images, padding="cifar1", stem_relu=False)
        # A 1x1 convolution before the pooling is a linear map after it.
        return x @ state[f"{body}7.weight"][:, :, 0, 0].t() + state[f"{body}7.bias"]

    towers = {"online": Tower(features, projector)}
    return Published(
        path, dim, towers, "online", preprocess(), frozenset({"projector"}), state=state
    )


def writer(system: str) -> Callable[..., Published]:
    return lambda path, seed, **given: write(path, seed, system=system, **given)


SYSTEMS = ("simclr", "moco_v2", "byol", "dino", "swav", "vicreg", "barlow_twins")
ROWS = (
    *(
        Row(
            f"{system.replace('_', '-')}-lightly",
            system,
            "lightly",
            "epoch=99-step=500400.ckpt",
            writer(system),
        )
        for system in SYSTEMS
    ),
    Row(
        "simclr-lightly-zoo",
        "simclr",
        "lightly",
        "whattolabel-resnet9-simclr-d16-w0.125-i-7269c38d.pth",
        zoo,
    ),
)
