"""Forward passes of the transformers on official state dicts, written on plain functions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    out = x @ state[f"{name}.weight"].T
    return out + state[f"{name}.bias"] if f"{name}.bias" in state else out


def layer_norm(state: State, name: str, x: Tensor, epsilon: float = 1e-6) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + epsilon).sqrt() * state[f"{name}.weight"] + state[
        f"{name}.bias"
    ]


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def heads_of(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 D) to three (B, heads, N, D / heads)."""
    batch, tokens, width = qkv.shape
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention; (B, heads, N, d) to (B, N, heads * d)."""
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def mlp(state: State, path: str, x: Tensor) -> Tensor:
    if f"{path}.w12.weight" in state:
        gate, value = linear(state, f"{path}.w12", x).chunk(2, dim=-1)
        return linear(state, f"{path}.w3", F.silu(gate) * value)
    if f"{path}.w1.weight" in state:
        gate, value = linear(state, f"{path}.w1", x), linear(state, f"{path}.w2", x)
        return linear(state, f"{path}.w3", F.silu(gate) * value)
    return linear(state, f"{path}.fc2", gelu(linear(state, f"{path}.fc1", x)))


def scaled(state: State, name: str, x: Tensor) -> Tensor:
    return x * state[name] if name in state else x


def positions(state: State, images: Tensor, patch: int, antialias: bool) -> Tensor:
    """Position embeddings of DINO and DINOv2 for the size of these images."""
    table = state["pos_embed"]
    side = math.isqrt(table.shape[1] - 1)
    height, width = images.shape[2] // patch, images.shape[3] // patch
    if height * width == side * side and images.shape[2] == images.shape[3]:
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if antialias:
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
    else:
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, height * width, -1)], dim=1)


def vit(
    state: State, images: Tensor, heads: int, antialias: bool = False, pool: str = "cls"
) -> Tensor:
    """DINO, MoCo v3 and DINOv2 (``register_tokens``, ``ls1``, ``w12``)."""
    weight = state["patch_embed.proj.weight"]
    patch = weight.shape[-1]
    x = F.conv2d(images, weight, state["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + positions(state, images, patch, antialias)
    registers = 0
    if "register_tokens" in state:
        registers = state["register_tokens"].shape[1]
        x = torch.cat([x[:, :1], state["register_tokens"].expand(len(x), -1, -1), x[:, 1:]], dim=1)
    block = 0
    while f"blocks.{block}.norm1.weight" in state:
        path = f"blocks.{block}."
        y = linear(state, path + "attn.qkv", layer_norm(state, path + "norm1", x))
        y = linear(state, path + "attn.proj", attend(*heads_of(y, heads)))
        x = x + scaled(state, path + "ls1.gamma", y)
        y = mlp(state, path + "mlp", layer_norm(state, path + "norm2", x))
        x = x + scaled(state, path + "ls2.gamma", y)
        block += 1
    x = layer_norm(state, "norm", x)
    return x[:, 0] if pool == "cls" else x[:, 1 + registers :].mean(1)


def dinov3_vit(state: State, images: Tensor, heads: int, pool: str = "cls") -> Tensor:
    weight = state["patch_embed.proj.weight"]
    x = F.conv2d(images, weight, state["patch_embed.proj.bias"], stride=weight.shape[-1])
    sine, cosine = _rotary(state["rope_embed.periods"], *x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    prefix = torch.cat([state["cls_token"], state["storage_tokens"]], dim=1)
    x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
    skip = prefix.shape[1]
    block = 0
    while f"blocks.{block}.norm1.weight" in state:
        path = f"blocks.{block}."
        y = layer_norm(state, path + "norm1", x, 1e-5) @ state[path + "attn.qkv.weight"].T
        if path + "attn.qkv.bias" in state:
            y = y + state[path + "attn.qkv.bias"] * state[path + "attn.qkv.bias_mask"]
        q, k, v = heads_of(y, heads)
        q, k = (
            torch.cat([t[:, :, :skip], _rotate(t[:, :, skip:], sine, cosine)], dim=2)
            for t in (q, k)
        )
        y = linear(state, path + "attn.proj", attend(q, k, v))
        x = x + y * state[path + "ls1.gamma"]
        y = mlp(state, path + "mlp", layer_norm(state, path + "norm2", x, 1e-5))
        x = x + y * state[path + "ls2.gamma"]
        block += 1
    x = layer_norm(state, "norm", x, 1e-5)
    return x[:, 0] if pool == "cls" else x[:, skip:].mean(1)


def _rotary(periods: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    rows = (torch.arange(height) + 0.5) / height * 2 - 1
    columns = (torch.arange(width) + 0.5) / width * 2 - 1
    coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * coordinates[:, :, None] / periods).flatten(1).tile(2)
    return angles.sin(), angles.cos()


def _rotate(x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def dinov3_convnext(state: State, images: Tensor) -> Tensor:
    x = images
    for stage in range(4):
        down = f"downsample_layers.{stage}"
        if stage == 0:
            x = F.conv2d(x, state[f"{down}.0.weight"], state[f"{down}.0.bias"], stride=4)
            x = _channel_norm(state, f"{down}.1", x)
        else:
            x = _channel_norm(state, f"{down}.0", x)
            x = F.conv2d(x, state[f"{down}.1.weight"], state[f"{down}.1.bias"], stride=2)
        block = 0
        while f"stages.{stage}.{block}.gamma" in state:
            path = f"stages.{stage}.{block}."
            kernel, bias = state[path + "dwconv.weight"], state[path + "dwconv.bias"]
            y = F.conv2d(x, kernel, bias, padding=3, groups=len(kernel)).permute(0, 2, 3, 1)
            y = gelu(linear(state, path + "pwconv1", layer_norm(state, path + "norm", y)))
            y = linear(state, path + "pwconv2", y) * state[path + "gamma"]
            x = x + y.permute(0, 3, 1, 2)
            block += 1
    return layer_norm(state, "norm", x.mean((2, 3)))


def _channel_norm(state: State, name: str, x: Tensor) -> Tensor:
    return layer_norm(state, name, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + 1e-5).sqrt()
    shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def xcit(state: State, images: Tensor, heads: int) -> Tensor:
    x = images
    members = [n for n in (0, 2, 4, 6) if f"patch_embed.proj.{n}.0.weight" in state]
    for member in members:
        if member:
            x = gelu(x)
        x = F.conv2d(x, state[f"patch_embed.proj.{member}.0.weight"], stride=2, padding=1)
        x = _batch_norm(state, f"patch_embed.proj.{member}.1", x)
    height, width = x.shape[2:]
    x = (x + _fourier_positions(state, height, width)).flatten(2).transpose(1, 2)
    block = 0
    while f"blocks.{block}.gamma1" in state:
        path = f"blocks.{block}."
        y = linear(state, path + "attn.qkv", layer_norm(state, path + "norm1", x))
        q, k, v = (t.transpose(-1, -2) for t in heads_of(y, heads))
        q, k = (t / t.norm(dim=-1, keepdim=True) for t in (q, k))
        weights = (q @ k.transpose(-1, -2) * state[path + "attn.temperature"]).softmax(-1)
        y = linear(state, path + "attn.proj", (weights @ v).flatten(1, 2).transpose(1, 2))
        x = x + y * state[path + "gamma1"]
        y = layer_norm(state, path + "norm3", x).transpose(1, 2).unflatten(2, (height, width))
        y = _local_interaction(state, path + "local_mp.", y).flatten(2).transpose(1, 2)
        x = x + y * state[path + "gamma3"]
        y = mlp(state, path + "mlp", layer_norm(state, path + "norm2", x))
        x = x + y * state[path + "gamma2"]
        block += 1
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    block = 0
    while f"cls_attn_blocks.{block}.gamma1" in state:
        path = f"cls_attn_blocks.{block}."
        normed = layer_norm(state, path + "norm1", x)
        q, k, v = heads_of(linear(state, path + "attn.qkv", normed), heads)
        y = linear(state, path + "attn.proj", attend(q[:, :, :1], k, v))
        y = torch.cat([y, normed[:, 1:]], dim=1)
        x = layer_norm(state, path + "norm2", x + y * state[path + "gamma1"])
        y = mlp(state, path + "mlp", x[:, :1]) * state[path + "gamma2"]
        # The patches meet the residual sum too: they are doubled.
        x = x + torch.cat([y, x[:, 1:]], dim=1)
        block += 1
    return layer_norm(state, "norm", x)[:, 0]


def _local_interaction(state: State, path: str, x: Tensor) -> Tensor:
    channels = x.shape[1]
    x = F.conv2d(
        x, state[path + "conv1.weight"], state[path + "conv1.bias"], padding=1, groups=channels
    )
    x = _batch_norm(state, path + "bn", gelu(x))
    return F.conv2d(
        x, state[path + "conv2.weight"], state[path + "conv2.bias"], padding=1, groups=channels
    )


def _fourier_positions(state: State, height: int, width: int) -> Tensor:
    weight = state["pos_embeder.token_projection.weight"]
    hidden = weight.shape[1] // 2
    turn = 10000.0 ** (2 * (torch.arange(hidden) // 2) / hidden)
    even = torch.arange(hidden) % 2 == 0
    tables = []
    for size in (height, width):
        place = torch.arange(1.0, size + 1) / (size + 1e-6) * 2 * math.pi
        angle = place[:, None] / turn
        tables.append(torch.where(even, angle.sin(), angle.cos()))
    rows = tables[0][:, None].expand(height, width, hidden)
    columns = tables[1][None, :].expand(height, width, hidden)
    grid = torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None]
    return F.conv2d(grid, weight, state["pos_embeder.token_projection.bias"])
