"""DINO's backbones and full checkpoints (facebookresearch/dino: main_dino.py, vision_transformer.py,
hubconf.py, utils.py). The ResNet-50 full file's head is as its users report it (dino issues 189 and 251).
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from .parts import GELU, Layer, Linear, Weights, mlp, weight_normed
from .resnet import Size, resnet, size_of
from .row import Published, Row, Tower, preprocess
from .saving import adamw_state, grad_scaler_state, save, sgd_state
from .vit import ViTSize, vit, vit_size

EVALUATION = preprocess(interpolation="bicubic")


def write_backbone(path: Path, seed: int, *, arch: str, patch: int = 16, **given: Any) -> Published:
    weights, state = Weights(seed), OrderedDict()
    size: Size | ViTSize
    if arch == "resnet50":
        size = size_of(**given)
        run = resnet(weights, state, "", size)
    else:
        size = vit_size(arch, patch=patch, **given)
        run = vit(weights, state, "", size)
    save(state, path)
    return Published(path, size.features, {"ema": Tower(run)}, "ema", EVALUATION, state=state)


def write_full(path: Path, seed: int, *, arch: str, **given: Any) -> Published:
    weights = Weights(seed)
    size = size_of(**given) if arch == "resnet50" else vit_size(arch, **given)
    full = bool(given.get("full"))
    hidden, bottleneck, out = (2048, 256, 65536) if full else (64, 32, 80)
    head: tuple[Layer, ...] = (
        Linear("0", size.features, hidden), GELU,
        Linear("2", hidden, hidden), GELU, Linear("4", hidden, bottleneck),
    )  # fmt: skip
    if arch == "resnet50":
        hidden = 2 * hidden
        head = Linear("0", size.features, hidden), GELU, Linear("2", hidden, bottleneck)

    # Only networks with batch normalisation have a teacher inside DistributedDataParallel.
    teacher_prefix = "module." if arch == "resnet50" else ""
    towers, states, prototypes = {}, {}, {}
    for tower, prefix in (("online", "module."), ("ema", teacher_prefix)):
        state: OrderedDict[str, torch.Tensor] = OrderedDict()
        if isinstance(size, Size):
            run = resnet(weights, state, f"{prefix}backbone.", size)
        else:
            run = vit(weights, state, f"{prefix}backbone.", size)
        towers[tower] = Tower(run, mlp(weights, state, f"{prefix}head.mlp.", *head))
        last = f"{prefix}head.last_layer.weight"
        if arch == "resnet50":
            state[last] = prototypes[tower] = weights.linear(out, bottleneck)
        else:
            state[f"{last}_g"] = weights.uniform(out, 1, low=0.5, high=1.5)
            state[f"{last}_v"] = weights.normal(out, bottleneck)
            prototypes[tower] = weight_normed(state[f"{last}_g"], state[f"{last}_v"])
        states[tower] = state

    center = weights.normal(1, out)
    optimizer = adamw_state if arch != "resnet50" else sgd_state
    options = {
        "arch": arch,
        "patch_size": 16,
        "out_dim": out,
        "norm_last_layer": False,
        "lr": 0.0005,
    }
    options |= {
        "use_fp16": True,
        "global_crops_scale": (0.25, 1.0),
        "data_path": "imagenet",
        "seed": 0,
    }
    content = {
        "student": states["online"],
        "teacher": states["ema"],
        "optimizer": optimizer(states["online"]),
        "epoch": 800,
        "args": Namespace(**options),
        "dino_loss": OrderedDict(center=center),
        "fp16_scaler": grad_scaler_state(),
    }
    save(content, path)
    heads = {"projector", "prototypes", "ema_backbone", "ema_projector", "ema_prototypes", "center"}
    return Published(
        path,
        size.features,
        towers,
        "ema",
        EVALUATION,
        frozenset(heads),
        prototypes_weight=prototypes["ema"],
        center=center,
        state=states,
    )


def vit_small_16(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, arch="vit_small", **given)


def vit_small_8(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, arch="vit_small", patch=8, **given)


def vit_base_16(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, arch="vit_base", **given)


def resnet50(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, arch="resnet50", **given)


def vit_full(path: Path, seed: int, **given: Any) -> Published:
    return write_full(path, seed, arch="vit_small", **given)


def resnet50_full(path: Path, seed: int, **given: Any) -> Published:
    return write_full(path, seed, arch="resnet50", **given)


DINO = "facebookresearch/dino"
FULL = "pretrain_full_checkpoint.pth"
ROWS = (
    Row("dino-vit-s16-official", "dino", DINO, "dino_deitsmall16_pretrain.pth", vit_small_16),
    Row("dino-vit-s8-official", "dino", DINO, "dino_deitsmall8_pretrain.pth", vit_small_8),
    Row("dino-vit-b16-official", "dino", DINO, "dino_vitbase16_pretrain.pth", vit_base_16),
    Row(
        "dino-r50-official", None, DINO, "dino_resnet50_pretrain.pth", resnet50,
        ("dino", "barlow_twins", "vicreg"),
    ),
    Row("dino-vit-s16-official-full", "dino", DINO, f"dino_deitsmall16_{FULL}", vit_full),
    Row("dino-r50-official-full", "dino", DINO, f"dino_resnet50_{FULL}", resnet50_full),
)  # fmt: skip
