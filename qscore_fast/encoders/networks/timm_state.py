"""Official state dicts of DINOv2, DINOv3 and XCiT under timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from qscore_fast.errors import EncoderError

ROPE_BASE = 100.0


def timm_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict of a ViT, XCiT or DINOv3 network under the names of this package.

    Names that are timm's already (DINO, MoCo v3) pass unchanged, so it may be called on any of them.
    What the official networks hold for training only is left out: ``mask_token``, DINOv3's
    ``local_cls_norm`` and its second name of the last norm (``norms.3``).

    Raises:
        EncoderError: DINOv3 whose keys have a bias, or whose rotary periods are not those published.

    Sources: facebookresearch/dinov2, dinov3 and xcit, and timm's checkpoint filters for them.
    """
    if "storage_tokens" in state or "rope_embed.periods" in state:
        return _dinov3_vit(state)
    if "downsample_layers.0.0.weight" in state:
        return _dinov3_convnext(state)
    if (
        "cls_attn_blocks.0.attn.qkv.weight" in state
        or "pos_embeder.token_projection.weight" in state
    ):
        return _xcit(state)
    if "register_tokens" in state or "mask_token" in state:
        return _dinov2(state)
    return dict(state)


def _dinov2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if name == "mask_token":
            continue
        name = re.sub(r"(blocks\.\d+\.mlp\.)w12\.", r"\1fc1.", name)
        name = re.sub(r"(blocks\.\d+\.mlp\.)w3\.", r"\1fc2.", name)
        renamed[name] = value
    registers = renamed.pop("register_tokens", None)
    if registers is not None and {"cls_token", "pos_embed"} <= renamed.keys():
        # timm adds no position to the class token where there are registers.
        positions, token = renamed["pos_embed"], renamed["cls_token"]
        if positions.ndim != 3 or token.shape != positions[:, :1].shape:
            raise EncoderError(
                f"cls_token is {tuple(token.shape)} and pos_embed {tuple(positions.shape)}: they must be "
                "(1, 1, width) and (1, 1 + patches, width)"
            )
        renamed["cls_token"] = token + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
        renamed["reg_token"] = registers
    return renamed


_DINOV3_NAMES = (
    ("storage_tokens", "reg_token"),
    ("rope_embed.periods", "rope.periods"),
    (".ls1.gamma", ".gamma_1"),
    (".ls2.gamma", ".gamma_2"),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)


def _dinov3_vit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if name == "mask_token" or name.startswith("local_cls_norm.") or name.endswith("bias_mask"):
            continue
        if name.endswith(".attn.qkv.bias"):
            queries, values = _masked_bias(name, value, state.get(f"{name}_mask"))
            path = name.removesuffix("qkv.bias")
            renamed[f"{path}q_bias"], renamed[f"{path}v_bias"] = queries, values
            continue
        for official, ours in _DINOV3_NAMES:
            name = name.replace(official, ours)
        renamed[name] = value
    if "rope.periods" in renamed:
        _check_periods(renamed["rope.periods"])
    return renamed


def _masked_bias(name: str, bias: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The biases of queries and values; the mask, where there is one, takes the keys' away."""
    if bias.ndim != 1 or bias.numel() % 3 or (mask is not None and mask.shape != bias.shape):
        raise EncoderError(f"{name} is {tuple(bias.shape)}, not a bias of queries, keys and values")
    if mask is not None:
        bias = torch.where(mask == 0, torch.zeros_like(bias), bias * mask)
    queries, keys, values = bias.chunk(3)
    if keys.any():
        raise EncoderError(f"{name} gives the keys a bias; DINOv3's keys have none")
    return queries, values


def _check_periods(periods: Tensor) -> None:
    if periods.ndim != 1 or not periods.numel():
        raise EncoderError(f"rope_embed.periods is {tuple(periods.shape)}, not a list of periods")
    exponents = torch.arange(periods.numel(), dtype=torch.float64) / periods.numel()
    published = ROPE_BASE**exponents
    # Official files round them to bfloat16, which has 8 bits.
    if not torch.allclose(periods.double(), published, rtol=2**-8, atol=0):
        raise EncoderError(
            f"rope_embed.periods from {periods[0]:.4g} to {periods[-1]:.4g} are not DINOv3's "
            f"(base {ROPE_BASE:g}, from {published[0]:.4g} to {published[-1]:.4g})"
        )


_CONVNEXT_NAMES = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv", ".mlp.fc"),
    (r"^norm\.", "head.norm."),
)


def _dinov3_convnext(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if name.startswith("norms."):
            continue
        for pattern, replacement in _CONVNEXT_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _xcit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in state.items():
        if name.startswith("pos_embeder."):
            renamed["pos_embed." + name.removeprefix("pos_embeder.")] = value
        elif match := re.fullmatch(r"(cls_attn_blocks\.\d+\.attn\.)qkv\.(weight|bias)", name):
            if not value.ndim:
                raise EncoderError(f"{name} is a single number, not queries, keys and values")
            for letter, part in zip("qkv", value.chunk(3), strict=False):
                renamed[f"{match[1]}{letter}.{match[2]}"] = part
        else:
            renamed[name] = value
    return renamed
