"""Files of mmpretrain and mmselfsup (open-mmlab/mmpretrain: models/selfsup/*.py,
models/necks/{nonlinear,swav}_neck.py, models/heads/*.py, configs/*/*_resnet50_*.py;
open-mmlab/mmselfsup, branch 0.x: models/algorithms/{moco,byol}.py,
tools/model_converters/extract_backbone_weights.py; open-mmlab/mmengine: model/averaged_model.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .moco import queue
from .parts import RELU, BatchNorm, Layer, Linear, Weights, mlp
from .resnet import Size, resnet, size_of
from .row import Published, Row, Tower, preprocess
from .saving import save


def neck(
    into: int, hidden: int, out: int, layers: int = 2, *, bias: bool = False, last_norm: bool = True,
    last_affine: bool = True, last_bias: bool = False,
) -> list[Layer]:  # fmt: skip
    """NonLinearNeck: fc0, bn0, ReLU, fc1, [bn1, ReLU, ...]."""
    steps: list[Layer] = [Linear("fc0", into, hidden, bias), BatchNorm("bn0", hidden)]
    for index in range(1, layers):
        last = index == layers - 1
        wide = out if last else hidden
        steps += [RELU, Linear(f"fc{index}", hidden, wide, last_bias if last else bias)]
        if not last or last_norm:
            steps.append(BatchNorm(f"bn{index}", wide, affine=last_affine or not last))
    return steps


def parts(system: str, size: Size) -> tuple[list[Layer], list[Layer] | None]:
    """The neck and, where there is one, the predictor."""
    wide, big, out = size.features, size.scaled(4096), size.scaled(256)
    small, dim = size.scaled(512), size.scaled(128)
    if system == "simclr":
        return neck(wide, wide, dim), None
    if system == "moco_v2":
        return [Linear("mlp.0", wide, wide), RELU, Linear("mlp.2", wide, dim)], None
    if system == "byol":
        options: dict[str, Any] = {"bias": True, "last_norm": False}
        return neck(wide, big, out, **options), neck(out, big, out, **options)
    if system == "simsiam":
        predictor = neck(wide, small, wide, last_norm=False, last_bias=True)
        return neck(wide, wide, wide, 3, last_affine=False), predictor
    if system == "moco_v3":
        return neck(wide, big, out, last_affine=False), neck(out, big, out, last_norm=False)
    if system == "swav":
        name = "projection_neck"
        return [
            Linear(f"{name}.0", wide, wide), BatchNorm(f"{name}.1", wide), RELU,
            Linear(f"{name}.3", wide, dim),
        ], None  # fmt: skip
    hidden = size.scaled(8192)
    return neck(wide, hidden, hidden, 3, last_norm=False), None


AVERAGED = {"moco_v2": "encoder_k", "byol": "target_net", "moco_v3": "momentum_encoder"}


def write_new(path: Path, seed: int, *, system: str, **given: Any) -> Published:
    """mmpretrain and mmselfsup 1.x: an EMA tower is an averaged model of Sequential(backbone, neck)."""
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    found, keys, prototypes, predictor = {"projector"}, None, None, None
    layers, predictor_layers = parts(system, size)
    if system == "moco_v2":
        keys = queue(weights, state, "", size.scaled(128), 65536 if given.get("full") else 64)
        found.add("queue")
    run = resnet(weights, state, "backbone.", size)
    towers = {"online": Tower(run, mlp(weights, state, "neck.", *layers))}
    if system == "swav":
        # The neck keeps its normalisation both by itself and inside the projection: one tensor, two names.
        for name in [key for key in state if key.startswith("neck.projection_neck.1.")]:
            state[name.replace("projection_neck.1", "norm")] = state[name]
        prototypes = weights.linear(size.scaled(3000), size.scaled(128))
        state["head.loss_module.prototypes.weight"] = prototypes
        found.add("prototypes")
    if predictor_layers is not None:
        predictor = mlp(weights, state, "head.predictor.", *predictor_layers)
        found.add("predictor")
    if system == "barlow_twins":
        weights.batch_norm(state, "head.bn", size.scaled(8192), affine=False)
    if system in AVERAGED:
        prefix = AVERAGED[system]
        state[f"{prefix}.steps"] = torch.tensor(1000)
        run = resnet(weights, state, f"{prefix}.module.0.", size)
        towers["ema"] = Tower(run, mlp(weights, state, f"{prefix}.module.1.", *layers))
        found |= {"ema_backbone", "ema_projector"}
    state["data_preprocessor.mean"] = torch.tensor([123.675, 116.28, 103.53]).reshape(3, 1, 1)
    state["data_preprocessor.std"] = torch.tensor([58.395, 57.12, 57.375]).reshape(3, 1, 1)
    meta = {"epoch": 200, "iter": 62400, "mmengine_version": "0.1.0", "experiment_name": system}
    save({"meta": meta, "state_dict": state}, path, cuda=False)
    return Published(
        path, size.features, towers, "online", preprocess(), frozenset(found), predictor,
        prototypes, keys, state=state,
    )  # fmt: skip


def write_old(path: Path, seed: int, *, system: str, **given: Any) -> Published:
    """mmselfsup 0.x: the same module under two names, so the same tensors twice."""
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    layers, predictor_layers = parts(system, size)
    online, target = (
        ("encoder_q", "encoder_k") if system == "moco_v2" else ("online_net", "target_net")
    )
    keys = predictor = None
    found = {"projector", "ema_backbone", "ema_projector"}
    if system == "moco_v2":
        keys = queue(weights, state, "", size.scaled(128), 64)
        found.add("queue")
    run = resnet(weights, state, "backbone.", size)
    towers = {"online": Tower(run, mlp(weights, state, "neck.", *layers))}
    for name in list(state):
        for part, index in (("backbone.", "0."), ("neck.", "1.")):
            if name.startswith(part):
                state[f"{online}.{index}{name[len(part) :]}"] = state[name]
    run = resnet(weights, state, f"{target}.0.", size)
    towers["ema"] = Tower(run, mlp(weights, state, f"{target}.1.", *layers))
    if predictor_layers is not None:
        predictor = mlp(weights, state, "head.predictor.", *predictor_layers)
        found.add("predictor")
    meta = {"mmselfsup_version": "0.9.1", "epoch": 200, "iter": 1000}
    save({"meta": meta, "state_dict": state}, path, legacy=True, cuda=False)
    return Published(
        path, size.features, towers, "online", preprocess(), frozenset(found), predictor,
        queue=keys, state=state,
    )  # fmt: skip


def extracted(path: Path, seed: int, **given: Any) -> Published:
    """extract_backbone_weights.py: {'state_dict': bare names, 'author': 'MMSelfSup'}."""
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    run = resnet(weights, state, "", size)
    save({"state_dict": state, "author": "MMSelfSup"}, path, legacy=True, cuda=False)
    return Published(
        path, size.features, {"online": Tower(run)}, "online", preprocess(), state=state
    )


Writer = Callable[..., Published]


def new(system: str) -> Writer:
    return lambda path, seed, **given: write_new(path, seed, system=system, **given)


def old(system: str) -> Writer:
    return lambda path, seed, **given: write_old(path, seed, system=system, **given)


def filename(system: str) -> str:
    return f"{system.replace('_', '')}_resnet50_8xb32-coslr-200e_in1k_20220825-b5f2b1d4.pth"


SYSTEMS = ("simclr", "moco_v2", "moco_v3", "byol", "simsiam", "swav", "barlow_twins")
ROWS = (
    *(
        Row(
            f"{system.replace('_', '-')}-mmpretrain",
            system,
            "mmpretrain",
            filename(system),
            new(system),
        )
        for system in SYSTEMS
    ),
    *(
        Row(
            f"{system.replace('_', '-')}-mmselfsup-0x",
            system,
            "mmselfsup 0.x",
            f"{system}_epoch_200.pth",
            old(system),
        )
        for system in ("moco_v2", "byol")
    ),
    Row("mmselfsup-extracted", None, "mmselfsup 0.x", "backbone_200e.pth", extracted, SYSTEMS),
)
