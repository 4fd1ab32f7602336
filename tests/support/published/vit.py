"""Vision transformers under the names of timm and DINO, written and run without timm.

Layout and arithmetic of facebookresearch/dino:vision_transformer.py; the fixed positions are those of
facebookresearch/moco-v3:vits.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .parts import State, Weights, linear

LAYER_NORM_EPS = 1e-6
PUBLISHED = {"vit_small": (384, 6), "vit_base": (768, 12)}


@dataclass(frozen=True)
class ViTSize:
    width: int
    depth: int
    heads: int
    patch: int = 16
    image: int = 224

    @property
    def features(self) -> int:
        return self.width

    def scaled(self, published: int) -> int:
        """A head width that is `published` over a width of 768."""
        return max(4, published * self.width // 768)


def vit_size(
    arch: str, *, full: bool = False, patch: int = 16, heads: int | None = None,
    small: dict[str, int] | None = None, **given: Any,
) -> ViTSize:  # fmt: skip
    """The published size of `arch` or a small one of `width` and `depth`; heads of 64 unless told."""
    if full:
        width, usual_heads = PUBLISHED[arch]
        return ViTSize(width, 12, heads or usual_heads, patch)
    chosen = {"width": 128, "depth": 2, "image": 224, **(small or {}), **given}
    chosen.setdefault("heads", heads or chosen["width"] // 64)
    return ViTSize(patch=patch, **chosen)


def sin_cos_positions(grid: int, width: int) -> Tensor:
    """MoCo v3's fixed positions (1, grid * grid + 1, width); zeros for the class token."""
    quarter = width // 4
    omega = 1.0 / 10000.0 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    steps = torch.arange(grid, dtype=torch.float32)
    # The original builds its mesh with the column index varying slowest, so "w" is the row here.
    slow = steps.repeat_interleave(grid)[:, None] * omega
    fast = steps.repeat(grid)[:, None] * omega
    table = torch.cat([slow.sin(), slow.cos(), fast.sin(), fast.cos()], dim=1)
    return torch.cat([torch.zeros(1, width), table])[None]


def write_vit(
    weights: Weights, state: State, prefix: str, size: ViTSize, position: str = "learned"
) -> None:
    width, grid = size.width, size.image // size.patch

    def dense(name: str, out: int, into: int) -> None:
        state[f"{prefix}{name}.weight"] = weights.linear(out, into)
        state[f"{prefix}{name}.bias"] = weights.normal(out, std=0.1)

    state[f"{prefix}cls_token"] = weights.normal(1, 1, width)
    if position == "sin-cos":
        state[f"{prefix}pos_embed"] = sin_cos_positions(grid, width)
    else:
        state[f"{prefix}pos_embed"] = weights.normal(1, grid * grid + 1, width, std=0.5)
    state[f"{prefix}patch_embed.proj.weight"] = weights.conv(width, 3, size.patch)
    state[f"{prefix}patch_embed.proj.bias"] = weights.normal(width, std=0.1)
    for index in range(size.depth):
        block = f"blocks.{index}"
        weights.layer_norm(state, f"{prefix}{block}.norm1", width)
        # Sharper than a unit scale, so that attention is far from uniform and the head count shows.
        dense(f"{block}.attn.qkv", 3 * width, width)
        state[f"{prefix}{block}.attn.qkv.weight"] *= 1.5
        dense(f"{block}.attn.proj", width, width)
        weights.layer_norm(state, f"{prefix}{block}.norm2", width)
        dense(f"{block}.mlp.fc1", 4 * width, width)
        dense(f"{block}.mlp.fc2", width, 4 * width)
    weights.layer_norm(state, f"{prefix}norm", width)


def layer_norm(state: State, name: str, x: Tensor, eps: float = LAYER_NORM_EPS) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attention(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    """Softmax attention spelt out, with one fused qkv projection."""
    batch, tokens, width = x.shape
    qkv = linear(state, f"{name}.qkv", x).reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    mixing = (q @ k.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
    return linear(state, f"{name}.proj", (mixing @ v).transpose(1, 2).flatten(2))


def feed_forward(state: State, name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", F.gelu(linear(state, f"{name}.fc1", x)))


def pooled(tokens: Tensor, pool: str, extra: int = 1) -> Tensor:
    """The class token, or the mean of the tokens behind the `extra` first ones."""
    return tokens[:, 0] if pool == "cls" else tokens[:, extra:].mean(dim=1)


def run_vit(state: State, prefix: str, images: Tensor, heads: int, pool: str) -> Tensor:
    weight = state[f"{prefix}patch_embed.proj.weight"]
    bias = state[f"{prefix}patch_embed.proj.bias"]
    x = F.conv2d(images, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state[f"{prefix}cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + state[f"{prefix}pos_embed"]
    index = 0
    while f"{prefix}blocks.{index}.norm1.weight" in state:
        block = f"{prefix}blocks.{index}"
        x = x + attention(state, f"{block}.attn", layer_norm(state, f"{block}.norm1", x), heads)
        x = x + feed_forward(state, f"{block}.mlp", layer_norm(state, f"{block}.norm2", x))
        index += 1
    return pooled(layer_norm(state, f"{prefix}norm", x), pool)


def vit(
    weights: Weights, state: State, prefix: str, size: ViTSize, position: str = "learned"
) -> Callable[[Tensor, str], Tensor]:
    """Write a vision transformer and return its forward."""
    write_vit(weights, state, prefix, size, position)
    return lambda images, pool: run_vit(state, prefix, images, size.heads, pool)
