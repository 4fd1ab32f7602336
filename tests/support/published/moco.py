"""MoCo v1, v2 (facebookresearch/moco at 7397dfe: moco/builder.py, main_moco.py) and v3's ResNet and ViT
(facebookresearch/moco-v3: moco/builder.py, vits.py, main_moco.py).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .parts import RELU, BatchNorm, Layer, Linear, State, Weights, mlp
from .resnet import Size, resnet, size_of
from .row import Published, Row, Tower, preprocess
from .saving import adamw_state, grad_scaler_state, save, sgd_state
from .vit import ViTSize, vit, vit_size


def queue(weights: Weights, state: State, prefix: str, dim: int, size: int) -> torch.Tensor:
    """Put a queue of normalised keys (dim, K) and its pointer under `prefix`."""
    state[f"{prefix}queue"] = F.normalize(weights.normal(dim, size), dim=0)
    state[f"{prefix}queue_ptr"] = torch.tensor([size // 2])
    return state[f"{prefix}queue"]


def write_queue_moco(path: Path, seed: int, *, hidden: bool, **given: Any) -> Published:
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    dim, features = size.scaled(128), size.features
    head: tuple[Layer, ...] = (Linear("fc", features, dim),)
    if hidden:
        head = (Linear("fc.0", features, features), RELU, Linear("fc.2", features, dim))
    keys = queue(weights, state, "module.", dim, 65536 if given.get("full") else 64)
    towers = {}
    for name, prefix in (("online", "module.encoder_q."), ("ema", "module.encoder_k.")):
        run = resnet(weights, state, prefix, size)
        towers[name] = Tower(run, mlp(weights, state, prefix, *head))
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": sgd_state(state)}
    save(content, path, legacy=True)
    heads = frozenset({"projector", "ema_backbone", "ema_projector", "queue"})
    return Published(path, features, towers, "online", preprocess(), heads, queue=keys, state=state)


def projector(into: int, hidden: int, out: int, layers: int, prefix: str) -> list[Layer]:
    """v3's MLP: bias-free Linears, BatchNorm after each, the last one without affine part."""
    steps: list[Layer] = []
    for number in range(layers):
        last = number == layers - 1
        wide = out if last else hidden
        steps.append(Linear(f"{prefix}.{3 * number}", into if number == 0 else hidden, wide, False))
        steps.append(BatchNorm(f"{prefix}.{3 * number + 1}", wide, affine=not last))
        steps += [] if last else [RELU]
    return steps


def write_v3(path: Path, seed: int, *, arch: str, scaler: bool = True, **given: Any) -> Published:
    weights, state = Weights(seed), OrderedDict()
    size: Size | ViTSize
    if arch == "resnet50":
        size = size_of(**given)
        hidden, out, layers, name = size.scaled(4096), size.scaled(256), 2, "fc"
    else:
        # Twelve heads whatever the width, hence a small width that twelve divides.
        size = vit_size(arch, small={"width": 96}, **{"heads": 12, **given})
        hidden, out, layers, name = size.scaled(4096), size.scaled(256), 3, "head"
    towers = {}
    for tower, prefix in (("online", "module.base_encoder."), ("ema", "module.momentum_encoder.")):
        if isinstance(size, Size):
            run = resnet(weights, state, prefix, size)
        else:
            run = vit(weights, state, prefix, size, position="sin-cos")
        steps = projector(size.features, hidden, out, layers, name)
        towers[tower] = Tower(run, mlp(weights, state, prefix, *steps))
    steps = projector(out, hidden, out, 2, "predictor")
    predictor = mlp(weights, state, "module.", *(steps[:-1] if arch == "resnet50" else steps))
    content = {"epoch": 300, "arch": arch, "state_dict": state}
    content["optimizer"] = adamw_state(state) if arch != "resnet50" else sgd_state(state, "mu")
    if scaler:
        content["scaler"] = grad_scaler_state()
    save(content, path)
    heads = frozenset({"projector", "predictor", "ema_backbone", "ema_projector"})
    return Published(
        path, size.features, towers, "online", preprocess(), heads, predictor, state=state
    )


def v3(path: Path, seed: int, **given: Any) -> Published:
    return write_v3(path, seed, arch="resnet50", **given)


def v3_vit_small(path: Path, seed: int, **given: Any) -> Published:
    return write_v3(path, seed, arch="vit_small", **given)


def v3_vit_base(path: Path, seed: int, **given: Any) -> Published:
    return write_v3(path, seed, arch="vit_base", scaler=False, **given)


def v1(path: Path, seed: int, **given: Any) -> Published:
    return write_queue_moco(path, seed, hidden=False, **given)


def v2(path: Path, seed: int, **given: Any) -> Published:
    return write_queue_moco(path, seed, hidden=True, **given)


MOCO, MOCO_V3 = "facebookresearch/moco", "facebookresearch/moco-v3"
ROWS = (
    Row("moco-v1-official", "moco", MOCO, "moco_v1_200ep_pretrain.pth.tar", v1),
    Row("moco-v2-official", "moco_v2", MOCO, "moco_v2_800ep_pretrain.pth.tar", v2),
    Row("moco-v3-r50-official", "moco_v3", MOCO_V3, "r-50-1000ep.pth.tar", v3),
    Row("moco-v3-vit-s-official", "moco_v3", MOCO_V3, "vit-s-300ep.pth.tar", v3_vit_small),
    Row("moco-v3-vit-b-official", "moco_v3", MOCO_V3, "vit-b-300ep.pth.tar", v3_vit_base),
)
