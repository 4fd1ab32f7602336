"""Transformers and ConvNeXt from timm's names and their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qscore_fast.encoders.networks.state_shapes import count, shape_of
from qscore_fast.errors import EncoderError

HEAD_WIDTH = 64


def infer_vit(
    state: Mapping[str, Tensor], num_heads: int | None, pool: str, positions: str | None
) -> dict[str, Any]:
    """See ``infer_architecture``."""
    width, in_channels, patch_size, patch_width = shape_of(state, "patch_embed.proj.weight", 4)
    if patch_size != patch_width:
        raise EncoderError(f"patches of {patch_size}x{patch_width} pixels are not square")
    registers = shape_of(state, "reg_token", 3)[1] if "reg_token" in state else 0
    table = shape_of(state, "pos_embed", 3)[1] - (0 if registers else 1)
    side = math.isqrt(max(table, 0))
    if side * side != table or not side:
        raise EncoderError(
            f"pos_embed holds {table} patches, which is no square grid: class token, registers or "
            "patches of another kind of network"
        )
    hidden = shape_of(state, "blocks.0.mlp.fc1.weight", 2)[0]
    swiglu = shape_of(state, "blocks.0.mlp.fc2.weight", 2)[1] * 2 == hidden
    arguments = {
        "patch_size": patch_size,
        "width": width,
        "depth": count(state, r"blocks\.(\d+)\.norm1\."),
        "num_heads": _heads(width) if num_heads is None else num_heads,
        "mlp_width": hidden // 2 if swiglu else hidden,
        "image_size": side * patch_size,
        "in_channels": in_channels,
        "mlp": "swiglu" if swiglu else "gelu",
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "registers": registers,
        "positions": positions or ("antialias" if registers else "dino"),
        "pool": pool,
    }
    return {"name": "vit", "arguments": arguments}


def infer_xcit(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """See ``infer_architecture``."""
    width = shape_of(state, "cls_token", 3)[2]
    # Convolutions of stride 2 are every other member of the stem: four make patches of 16 pixels.
    patch_size = 16 if "patch_embed.proj.6.0.weight" in state else 8
    arguments = {
        "patch_size": patch_size,
        "width": width,
        "depth": count(state, r"blocks\.(\d+)\.norm1\."),
        "num_heads": shape_of(state, "blocks.0.attn.temperature", 3)[0],
        "cls_depth": count(state, r"cls_attn_blocks\.(\d+)\.norm1\."),
        "in_channels": shape_of(state, "patch_embed.proj.0.0.weight", 4)[1],
        # True in all that DINO published; no tensor tells.
        "tokens_norm": True,
    }
    return {"name": "xcit", "arguments": arguments}


def infer_dinov3_vit(state: Mapping[str, Tensor], pool: str) -> dict[str, Any]:
    """See ``infer_architecture``."""
    width, in_channels, patch_size, _ = shape_of(state, "patch_embed.proj.weight", 4)
    swiglu = "blocks.0.mlp.fc1_g.weight" in state
    inner = "blocks.0.mlp.fc1_g.weight" if swiglu else "blocks.0.mlp.fc1.weight"
    head_width = 4 * shape_of(state, "rope.periods", 1)[0]
    if width % head_width:
        raise EncoderError(
            f"rope.periods are those of heads of {head_width} entries, which do not divide {width}"
        )
    arguments = {
        "patch_size": patch_size,
        "width": width,
        "depth": count(state, r"blocks\.(\d+)\.norm1\."),
        "num_heads": width // head_width,
        "mlp_width": shape_of(state, inner, 2)[0],
        "mlp": "swiglu" if swiglu else "gelu",
        "registers": shape_of(state, "reg_token", 3)[1],
        "qkv_bias": "blocks.0.attn.q_bias" in state,
        "in_channels": in_channels,
        "pool": pool,
    }
    return {"name": "dinov3_vit", "arguments": arguments}


def infer_dinov3_convnext(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """See ``infer_architecture``."""
    dw_convolutions = [f"stages.{stage}.blocks.0.conv_dw.weight" for stage in range(4)]
    arguments = {
        "depths": [
            count(state, rf"stages\.{stage}\.blocks\.(\d+)\.conv_dw\.") for stage in range(4)
        ],
        "widths": [shape_of(state, name, 4)[0] for name in dw_convolutions],
        "in_channels": shape_of(state, "stem.0.weight", 4)[1],
    }
    return {"name": "dinov3_convnext", "arguments": arguments}


def _heads(width: int) -> int:
    if width % HEAD_WIDTH:
        raise EncoderError(
            f"a width of {width} is no multiple of {HEAD_WIDTH}, so the number of heads cannot be guessed: "
            "give num_heads"
        )
    return width // HEAD_WIDTH
