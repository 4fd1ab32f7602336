"""XCiT as DINO publishes it (facebookresearch/xcit: xcit.py; facebookresearch/dino: hubconf.py)."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dino import DINO, EVALUATION
from .parts import State, Weights, batch_norm, linear
from .row import Published, Row, Tower
from .saving import save
from .vit import feed_forward, layer_norm, pooled

HEADS = 8
HIDDEN = 32


def write_weights(weights: Weights, state: State, width: int, depth: int, patch: int) -> None:
    def dense(name: str, out: int, into: int) -> None:
        state[f"{name}.weight"] = weights.linear(out, into)
        state[f"{name}.bias"] = weights.normal(out, std=0.1)

    def depthwise(name: str) -> None:
        state[f"{name}.weight"] = weights.normal(width, 1, 3, 3, std=1 / 3)
        state[f"{name}.bias"] = weights.normal(width, std=0.1)

    def gamma(name: str) -> None:
        state[name] = weights.uniform(width, low=0.3, high=0.9)

    state["cls_token"] = weights.normal(1, 1, width)
    widths = (
        [width // 8, width // 4, width // 2, width]
        if patch == 16
        else [width // 4, width // 2, width]
    )
    into = 3
    for index, out in enumerate(widths):
        state[f"patch_embed.proj.{2 * index}.0.weight"] = weights.conv(out, into, 3)
        weights.batch_norm(state, f"patch_embed.proj.{2 * index}.1", out)
        into = out
    for index in range(depth):
        block = f"blocks.{index}"
        for number in (1, 2, 3):
            gamma(f"{block}.gamma{number}")
            weights.layer_norm(state, f"{block}.norm{number}", width)
        state[f"{block}.attn.temperature"] = weights.uniform(HEADS, 1, 1, low=1.0, high=4.0)
        dense(f"{block}.attn.qkv", 3 * width, width)
        dense(f"{block}.attn.proj", width, width)
        dense(f"{block}.mlp.fc1", 4 * width, width)
        dense(f"{block}.mlp.fc2", width, 4 * width)
        depthwise(f"{block}.local_mp.conv1")
        weights.batch_norm(state, f"{block}.local_mp.bn", width)
        depthwise(f"{block}.local_mp.conv2")
    for index in range(2):
        block = f"cls_attn_blocks.{index}"
        for number in (1, 2):
            gamma(f"{block}.gamma{number}")
            weights.layer_norm(state, f"{block}.norm{number}", width)
        dense(f"{block}.attn.qkv", 3 * width, width)
        dense(f"{block}.attn.proj", width, width)
        dense(f"{block}.mlp.fc1", 4 * width, width)
        dense(f"{block}.mlp.fc2", width, 4 * width)
    weights.layer_norm(state, "norm", width)
    state["pos_embeder.token_projection.weight"] = weights.normal(width, 2 * HIDDEN, 1, 1, std=0.1)
    state["pos_embeder.token_projection.bias"] = weights.normal(width, std=0.1)


def positions(state: State, rows: int, columns: int) -> Tensor:
    """Fourier positions (1, rows * columns, width)."""

    def axis(count: int) -> Tensor:
        steps = torch.arange(1, count + 1, dtype=torch.float32)
        angle = steps / (steps[-1] + 1e-6) * 2 * math.pi
        power = 10000 ** (2 * (torch.arange(HIDDEN) // 2) / HIDDEN)
        waves = angle[:, None] / power
        return torch.stack([waves[:, 0::2].sin(), waves[:, 1::2].cos()], dim=2).flatten(1)

    vertical = axis(rows)[:, None].expand(rows, columns, HIDDEN)
    horizontal = axis(columns)[None].expand(rows, columns, HIDDEN)
    table = torch.cat([vertical, horizontal], dim=2).reshape(1, rows * columns, 2 * HIDDEN)
    weight = state["pos_embeder.token_projection.weight"][:, :, 0, 0]
    return F.linear(table, weight, state["pos_embeder.token_projection.bias"])


def split(state: State, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v, each (B, heads, tokens, width of a head)."""
    batch, tokens, width = x.shape
    qkv = linear(state, f"{name}.qkv", x).reshape(batch, tokens, 3, HEADS, width // HEADS)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return q, k, v


def cross_covariance(state: State, name: str, x: Tensor) -> Tensor:
    """Attention between channels: the scores are (head width, head width)."""
    q, k, v = (part.transpose(2, 3) for part in split(state, name, x))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(2, 3)
    mixing = (scores * state[f"{name}.temperature"]).softmax(dim=-1)
    return linear(state, f"{name}.proj", (mixing @ v).permute(0, 3, 1, 2).flatten(2))


def local_patches(state: State, name: str, x: Tensor, rows: int, columns: int) -> Tensor:
    batch, _, width = x.shape
    grid = x.transpose(1, 2).reshape(batch, width, rows, columns)
    for number in (1, 2):
        weight, bias = state[f"{name}.conv{number}.weight"], state[f"{name}.conv{number}.bias"]
        grid = F.conv2d(grid, weight, bias, padding=1, groups=width)
        if number == 1:
            grid = batch_norm(state, f"{name}.bn", F.gelu(grid))
    return grid.flatten(2).transpose(1, 2)


def class_block(state: State, block: str, x: Tensor) -> Tensor:
    """Only the class token attends; the patch tokens pass through both residual sums as they are."""
    y = layer_norm(state, f"{block}.norm1", x)
    q, k, v = split(state, f"{block}.attn", y)
    scores = (q[:, :, :1] * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    token = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    token = linear(state, f"{block}.attn.proj", token)
    x = x + state[f"{block}.gamma1"] * torch.cat([token, y[:, 1:]], dim=1)
    x = layer_norm(state, f"{block}.norm2", x)
    token = state[f"{block}.gamma2"] * feed_forward(state, f"{block}.mlp", x[:, :1])
    return x + torch.cat([token, x[:, 1:]], dim=1)


def run(state: State, images: Tensor, pool: str) -> Tensor:
    x = images
    convolutions = sum(
        name.startswith("patch_embed") and name.endswith(".0.weight") for name in state
    )
    for index in range(convolutions):
        name = f"patch_embed.proj.{2 * index}"
        x = batch_norm(
            state, f"{name}.1", F.conv2d(x, state[f"{name}.0.weight"], stride=2, padding=1)
        )
        x = F.gelu(x) if index < convolutions - 1 else x
    rows, columns = x.shape[2:]
    x = x.flatten(2).transpose(1, 2) + positions(state, rows, columns)
    index = 0
    while f"blocks.{index}.gamma1" in state:
        block = f"blocks.{index}"
        y = cross_covariance(state, f"{block}.attn", layer_norm(state, f"{block}.norm1", x))
        x = x + state[f"{block}.gamma1"] * y
        y = local_patches(
            state, f"{block}.local_mp", layer_norm(state, f"{block}.norm3", x), rows, columns
        )
        x = x + state[f"{block}.gamma3"] * y
        y = feed_forward(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", x))
        x = x + state[f"{block}.gamma2"] * y
        index += 1
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    for index in range(2):
        x = class_block(state, f"cls_attn_blocks.{index}", x)
    return pooled(layer_norm(state, "norm", x), pool)


def write(path: Path, seed: int, *, patch: int, full: bool = False, **given: Any) -> Published:
    width, depth = (384, 12) if full else (given.get("width", 96), given.get("depth", 2))
    weights, state = Weights(seed), OrderedDict()
    write_weights(weights, state, width, depth, patch)
    save(state, path)

    def features(images: Tensor, pool: str) -> Tensor:
        return run(state, images, pool)

    return Published(path, width, {"ema": Tower(features)}, "ema", EVALUATION, state=state)


def patch_16(path: Path, seed: int, **given: Any) -> Published:
    return write(path, seed, patch=16, **given)


def patch_8(path: Path, seed: int, **given: Any) -> Published:
    return write(path, seed, patch=8, **given)


ROWS = (
    Row("dino-xcit-p16-official", "dino", DINO, "dino_xcit_small_12_p16_pretrain.pth", patch_16),
    Row("dino-xcit-p8-official", "dino", DINO, "dino_xcit_small_12_p8_pretrain.pth", patch_8),
)
