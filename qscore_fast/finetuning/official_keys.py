"""What each system's official code would save: the keys of a training state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.finetuning.objectives.barlow_twins import BarlowTwins
from qscore_fast.finetuning.objectives.byol import BYOL
from qscore_fast.finetuning.objectives.dino import DINO
from qscore_fast.finetuning.objectives.moco import MoCo
from qscore_fast.finetuning.objectives.moco_v3 import MoCoV3
from qscore_fast.finetuning.objectives.simclr import SimCLR
from qscore_fast.finetuning.objectives.simsiam import SimSiam
from qscore_fast.finetuning.objectives.swav import SwAV
from qscore_fast.finetuning.objectives.vicreg import VICReg
from qscore_fast.finetuning.official_backbones import (
    haiku_backbone,
    haiku_head,
    simclr_v2_backbone,
    xcit_backbone,
)

Content = dict[str, Any]
Writer = Callable[[Any], Content]
_COMPILED = "_orig_mod."


def tensors(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """A module's state on the CPU, under a prefix, without what torch.compile adds to names."""
    return {
        f"{prefix}{name.replace(_COMPILED, '')}": value.detach().cpu().clone()
        for name, value in module.state_dict().items()
    }


def numbered(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A head's state by the places of its layers, activations counted: "0.weight", "1.bias", "3.weight"."""
    places = {name: place for place, name in enumerate(dict(head.named_children()))}
    split = ((name.partition("."), value) for name, value in tensors(head).items())
    return {f"{prefix}{places[layer]}.{field}": value for (layer, _, field), value in split}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _fc(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A single linear layer without a place, or as ``numbered``."""
    if len(list(head.children())) == 1:
        return {f"{prefix}{name.partition('.')[2]}": value for name, value in tensors(head).items()}
    return numbered(head, prefix)


def simclr(objective: SimCLR) -> Content:
    """google-research/simclr's own are TensorFlow's; this is their form in Separius/SimCLRv2-Pytorch."""
    head = numbered(objective.projector, "layers.")
    return {"resnet": simclr_v2_backbone(tensors(objective.backbone)), "head": head}


def swav(objective: SwAV) -> Content:
    """facebookresearch/swav, main_swav.py. Its queue is in files of its own, which nobody publishes."""
    state = {
        **tensors(objective.backbone, "module."),
        **numbered(objective.projector, "module.projection_head."),
        "module.prototypes.weight": objective.prototypes.weight.detach().cpu().clone(),
    }
    if objective.prototypes.bias is not None:
        state["module.prototypes.bias"] = objective.prototypes.bias.detach().cpu().clone()
    return {"state_dict": state}


def moco(objective: MoCo) -> Content:
    """facebookresearch/moco, moco/builder.py: v1 and v2."""
    state = {
        **tensors(objective.backbone, "module.encoder_q."),
        **_fc(objective.projector, "module.encoder_q.fc."),
        **tensors(objective.ema_backbone, "module.encoder_k."),
        **_fc(objective.ema_projector, "module.encoder_k.fc."),
        "module.queue": objective.queue.detach().cpu().T.contiguous(),
        "module.queue_ptr": objective.queue_ptr.detach().cpu().clone(),
    }
    return {"state_dict": state}


def moco_v3(objective: MoCoV3) -> Content:
    """facebookresearch/moco-v3, moco/builder.py; a ViT's projector takes the place of ``head``."""
    head = "head" if hasattr(objective.backbone, "patch_embed") else "fc"
    state = {
        **tensors(objective.backbone, "module.base_encoder."),
        **numbered(objective.projector, f"module.base_encoder.{head}."),
        **tensors(objective.ema_backbone, "module.momentum_encoder."),
        **numbered(objective.ema_projector, f"module.momentum_encoder.{head}."),
        **numbered(objective.predictor, "module.predictor."),
    }
    return {"state_dict": state}


def byol(objective: BYOL) -> Content:
    """deepmind-research, byol/byol_experiment.py: Haiku's paths, though with torch's tensors."""
    root = "res_net50"
    fields: dict[str, dict[str, Any]] = {
        name: {} for name in ("online_params", "target_params", "online_state", "target_state")
    }
    for tower, backbone, heads in (
        (
            "online",
            objective.backbone,
            {"projector": objective.projector, "predictor": objective.predictor},
        ),
        ("target", objective.ema_backbone, {"projector": objective.ema_projector}),
    ):
        parts = [haiku_backbone(tensors(backbone), root)]
        parts += [haiku_head(tensors(head), name) for name, head in heads.items()]
        for params, states in parts:
            fields[f"{tower}_params"] |= params
            fields[f"{tower}_state"] |= states
    return {"experiment_state": fields}


def dino(objective: DINO) -> Content:
    """facebookresearch/dino, main_dino.py; a teacher with batch norms is in DistributedDataParallel."""
    norms = any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for layer in objective.ema_backbone.modules()
    )
    student = {
        **_under("module.backbone.", xcit_backbone(tensors(objective.backbone))),
        **_dino_head(objective.projector, objective.prototypes, "module.head."),
    }
    prefix = "module." if norms else ""
    teacher = {
        **_under(f"{prefix}backbone.", xcit_backbone(tensors(objective.ema_backbone))),
        **_dino_head(objective.ema_projector, objective.ema_prototypes, f"{prefix}head."),
    }
    center = objective.center.detach().cpu()[None].clone()
    return {"student": student, "teacher": teacher, "dino_loss": {"center": center}}


def _dino_head(projector: nn.Module, prototypes: nn.Module, prefix: str) -> dict[str, Tensor]:
    last = tensors(prototypes)
    if "weight_g" not in last:
        last = {"weight": last.pop("weight_v"), **last}
    return {
        **numbered(projector, f"{prefix}mlp."),
        **{f"{prefix}last_layer.{name}": value for name, value in last.items()},
    }


def simsiam(objective: SimSiam) -> Content:
    """facebookresearch/simsiam, simsiam/builder.py."""
    state = {
        **tensors(objective.backbone, "module.encoder."),
        **numbered(objective.projector, "module.encoder.fc."),
        **numbered(objective.predictor, "module.predictor."),
    }
    return {"state_dict": state}


def vicreg(objective: VICReg) -> Content:
    """facebookresearch/vicreg, main_vicreg.py."""
    state = {
        **tensors(objective.backbone, "module.backbone."),
        **numbered(objective.projector, "module.projector."),
    }
    return {"model": state}


def barlow_twins(objective: BarlowTwins) -> Content:
    """facebookresearch/barlowtwins, main.py."""
    state = {
        **tensors(objective.backbone, "module.backbone."),
        **numbered(objective.projector, "module.projector."),
        **tensors(objective.loss_norm, "module.bn."),
    }
    return {"model": state}


def openmmlab(objective: SimCLR | BYOL) -> Content:
    """mmpretrain's, for networks that pad as PyTorch does, which the official ones of these two do not."""
    state = {**tensors(objective.backbone, "backbone."), **_neck(objective.projector, "neck.")}
    if isinstance(objective, BYOL):
        state |= _neck(objective.predictor, "head.predictor.")
        state |= tensors(objective.ema_backbone, "target_net.module.0.")
        state |= _neck(objective.ema_projector, "target_net.module.1.")
        state["target_net.steps"] = torch.zeros((), dtype=torch.long)
    return {"state_dict": state}


def _neck(head: nn.Module, prefix: str) -> dict[str, Tensor]:
    """``fc0``, ``bn0``, ``fc1``: layers counted from 0."""
    named = {}
    for name, value in tensors(head).items():
        layer, _, field = name.partition(".")
        kind = "fc" if layer.startswith("linear") else "bn"
        number = int(layer.removeprefix("linear").removeprefix("norm")) - 1
        named[f"{prefix}{kind}{number}.{field}"] = value
    return named


WRITERS: Mapping[str, tuple[Writer, ...]] = {
    "simclr": (simclr, openmmlab),
    "swav": (swav,),
    "moco": (moco,),
    "moco_v2": (moco,),
    "moco_v3": (moco_v3,),
    "byol": (byol, openmmlab),
    "dino": (dino,),
    "simsiam": (simsiam,),
    "vicreg": (vicreg,),
    "barlow_twins": (barlow_twins,),
}
"""By system, the layout to try first; the later ones hold networks that the first one cannot."""
