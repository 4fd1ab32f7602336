"""DINOv2 (facebookresearch/dinov2: models/vision_transformer.py, layers/*.py, hub/backbones.py) and DINOv3
(facebookresearch/dinov3: models/vision_transformer.py, layers/{attention,rope_position_encoding}.py,
hub/backbones.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .parts import State, Weights
from .row import Published, Row, Tower, preprocess
from .saving import save
from .vit import ViTSize, attention, feed_forward, layer_norm, pooled, write_vit

EVALUATION = preprocess(interpolation="bicubic")
V3_EPS = 1e-5


def chosen_size(patch: int, image: int, full: bool = False, **given: int) -> ViTSize:
    width, depth = (384, 12) if full else (given.get("width", 128), given.get("depth", 2))
    return ViTSize(width, depth, width // 64, patch, image)


def scaled(weights: Weights, state: State, size: ViTSize) -> None:
    for index in range(size.depth):
        for number in (1, 2):
            gamma = weights.uniform(size.width, low=0.3, high=0.9)
            state[f"blocks.{index}.ls{number}.gamma"] = gamma


def v2_positions(state: State, rows: int, columns: int, registers: bool) -> Tensor:
    """The grid part of pos_embed, resized as the hub's models do: those with registers antialias and
    give the size, those without give a scale that is off by a tenth of a patch."""
    grid = state["pos_embed"][:, 1:]
    side = math.isqrt(grid.shape[1])
    if (rows, columns) == (side, side):
        return grid
    table = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if registers:
        table = F.interpolate(table, size=(rows, columns), mode="bicubic", antialias=True)
    else:
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        table = F.interpolate(table, scale_factor=factors, mode="bicubic")
    return table.permute(0, 2, 3, 1).flatten(1, 2)


def run_v2(state: State, images: Tensor, heads: int, pool: str) -> Tensor:
    weight = state["patch_embed.proj.weight"]
    x = F.conv2d(images, weight, state["patch_embed.proj.bias"], stride=weight.shape[-1])
    registers = "register_tokens" in state
    positions = v2_positions(state, *x.shape[2:], registers)
    x = x.flatten(2).transpose(1, 2) + positions
    first = [(state["cls_token"] + state["pos_embed"][:, :1]).expand(len(x), -1, -1)]
    if registers:
        first.append(state["register_tokens"].expand(len(x), -1, -1))
    extra = 5 if registers else 1
    x = torch.cat([*first, x], dim=1)
    index = 0
    while f"blocks.{index}.norm1.weight" in state:
        block = f"blocks.{index}"
        y = attention(state, f"{block}.attn", layer_norm(state, f"{block}.norm1", x), heads)
        x = x + state[f"{block}.ls1.gamma"] * y
        y = feed_forward(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", x))
        x = x + state[f"{block}.ls2.gamma"] * y
        index += 1
    return pooled(layer_norm(state, "norm", x), pool, extra)


def write_v2(path: Path, seed: int, *, registers: bool, **given: Any) -> Published:
    """pos_embed is for 518 pixels, a grid of 37."""
    weights, state = Weights(seed), OrderedDict()
    size = chosen_size(14, 518, **given)
    write_vit(weights, state, "", size)
    state["mask_token"] = weights.normal(1, size.width)
    if registers:
        state["register_tokens"] = weights.normal(1, 4, size.width)
    scaled(weights, state, size)
    save(state, path)
    tower = Tower(lambda images, pool: run_v2(state, images, size.heads, pool))
    return Published(path, size.width, {"ema": tower}, "ema", EVALUATION, state=state)


def rotation(state: State, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Sine and cosine (tokens, head width); coordinates are pixel centres in [-1, 1] along each axis."""
    vertical = (torch.arange(rows) + 0.5) / rows * 2 - 1
    horizontal = (torch.arange(columns) + 0.5) / columns * 2 - 1
    coordinates = torch.stack(torch.meshgrid(vertical, horizontal, indexing="ij"), dim=-1).flatten(
        0, 1
    )
    angles = (2 * math.pi * coordinates[:, :, None] / state["rope_embed.periods"]).flatten(1)
    angles = torch.cat([angles, angles], dim=1)
    return angles.sin(), angles.cos()


def run_v3(state: State, images: Tensor, heads: int, pool: str) -> Tensor:
    weight = state["patch_embed.proj.weight"]
    x = F.conv2d(images, weight, state["patch_embed.proj.bias"], stride=weight.shape[-1])
    sine, cosine = rotation(state, *x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    first = [state[name].expand(len(x), -1, -1) for name in ("cls_token", "storage_tokens")]
    x = torch.cat([*first, x], dim=1)
    extra = 1 + state["storage_tokens"].shape[1]

    def rotated(part: Tensor) -> Tensor:
        """Patch tokens alone are turned."""
        kept, moved = part[:, :, :extra], part[:, :, extra:]
        left, right = moved.chunk(2, dim=-1)
        return torch.cat([kept, moved * cosine + torch.cat([-right, left], dim=-1) * sine], dim=2)

    def attend(name: str, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        bias = state[f"{name}.qkv.bias"] * state[f"{name}.qkv.bias_mask"]
        qkv = F.linear(x, state[f"{name}.qkv.weight"], bias)
        q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        scores = rotated(q) @ rotated(k).transpose(2, 3) * (width // heads) ** -0.5
        y = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        return F.linear(y, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])

    index = 0
    while f"blocks.{index}.norm1.weight" in state:
        block = f"blocks.{index}"
        y = attend(f"{block}.attn", layer_norm(state, f"{block}.norm1", x, V3_EPS))
        x = x + state[f"{block}.ls1.gamma"] * y
        y = feed_forward(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", x, V3_EPS))
        x = x + state[f"{block}.ls2.gamma"] * y
        index += 1
    return pooled(layer_norm(state, "norm", x, V3_EPS), pool, extra)


def write_v3(path: Path, seed: int, **given: Any) -> Published:
    weights, state = Weights(seed), OrderedDict()
    size = chosen_size(16, 224, **given)
    write_vit(weights, state, "", size)
    del state["pos_embed"]
    state["storage_tokens"] = weights.normal(1, 4, size.width)
    state["mask_token"] = weights.normal(1, size.width)
    quarter = size.width // size.heads // 4
    state["rope_embed.periods"] = 100 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    for index in range(size.depth):
        mask = torch.ones(3, size.width)
        mask[1] = 0
        state[f"blocks.{index}.attn.qkv.bias_mask"] = mask.flatten()
        # Never read, and never trained: the key's bias stays at zero under its mask.
        state[f"blocks.{index}.attn.qkv.bias"] *= mask.flatten()
    scaled(weights, state, size)
    save(state, path)
    tower = Tower(lambda images, pool: run_v3(state, images, size.heads, pool))
    return Published(path, size.width, {"ema": tower}, "ema", EVALUATION, state=state)


def v2(path: Path, seed: int, **given: Any) -> Published:
    return write_v2(path, seed, registers=False, **given)


def v2_registers(path: Path, seed: int, **given: Any) -> Published:
    return write_v2(path, seed, registers=True, **given)


DINOV2, DINOV3 = "facebookresearch/dinov2", "facebookresearch/dinov3"
ROWS = (
    Row("dinov2-official", "dinov2", DINOV2, "dinov2_vits14_pretrain.pth", v2),
    Row(
        "dinov2-registers-official",
        "dinov2",
        DINOV2,
        "dinov2_vits14_reg4_pretrain.pth",
        v2_registers,
    ),
    Row(
        "dinov3-official",
        "dinov3",
        DINOV3,
        "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
        write_v3,
    ),
)
