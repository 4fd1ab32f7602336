"""Names and shapes of official transformer files, at any size, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.encoders.networks.random_weights import random_state

Shapes = dict[str, tuple[int, ...]]


def _affine(name: str, *shape: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": shape}
    if bias:
        shapes[f"{name}.bias"] = (shape[0],)
    return shapes


def vit(
    width: int = 48,
    depth: int = 2,
    patch: int = 8,
    side: int = 4,
    registers: int = 0,
    dinov2: bool = False,
    swiglu: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """DINO or MoCo v3 (timm's names); DINOv2 with mask token and layer scale."""
    shapes: Shapes = {"cls_token": (1, 1, width), "pos_embed": (1, side**2 + 1, width)}
    shapes |= _affine("patch_embed.proj", width, 3, patch, patch) | _affine("norm", width)
    if dinov2:
        shapes["mask_token"] = (1, width)
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    for block in range(depth):
        path = f"blocks.{block}."
        shapes |= _affine(path + "norm1", width) | _affine(path + "norm2", width)
        shapes |= _affine(path + "attn.qkv", 3 * width, width)
        shapes |= _affine(path + "attn.proj", width, width)
        hidden = 4 * width
        if swiglu:
            hidden = 2 * width + 16
            shapes |= _affine(path + "mlp.w12", 2 * hidden, width)
            shapes |= _affine(path + "mlp.w3", width, hidden)
        else:
            shapes |= _affine(path + "mlp.fc1", hidden, width)
            shapes |= _affine(path + "mlp.fc2", width, hidden)
        if dinov2:
            shapes |= {path + "ls1.gamma": (width,), path + "ls2.gamma": (width,)}
    return random_state(shapes, seed)


def dinov3_vit(
    width: int = 48,
    depth: int = 2,
    patch: int = 8,
    heads: int = 3,
    swiglu: bool = False,
    bias: bool = True,
    local_norm: bool = False,
) -> dict[str, Tensor]:
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "storage_tokens": (1, 4, width),
    }
    shapes |= _affine("patch_embed.proj", width, 3, patch, patch) | _affine("norm", width)
    if local_norm:
        shapes |= _affine("local_cls_norm", width)
    for block in range(depth):
        path = f"blocks.{block}."
        shapes |= _affine(path + "norm1", width) | _affine(path + "norm2", width)
        shapes |= _affine(path + "attn.qkv", 3 * width, width, bias=bias)
        shapes |= _affine(path + "attn.proj", width, width)
        shapes |= {path + "ls1.gamma": (width,), path + "ls2.gamma": (width,)}
        hidden = 3 * width if swiglu else 4 * width
        names = ("w1", "w2") if swiglu else ("fc1",)
        for name in names:
            shapes |= _affine(f"{path}mlp.{name}", hidden, width)
        shapes |= _affine(path + ("mlp.w3" if swiglu else "mlp.fc2"), width, hidden)
    state = random_state(shapes)
    entries = width // heads // 4
    periods = 100.0 ** (torch.arange(entries) / entries)
    state["rope_embed.periods"] = periods.bfloat16().float()
    mask = torch.cat([torch.ones(width), torch.zeros(width), torch.ones(width)])
    for block in range(depth if bias else 0):
        state[f"blocks.{block}.attn.qkv.bias_mask"] = mask
    return state


def dinov3_convnext(
    depths: tuple[int, ...] = (1, 2, 1, 1), widths: tuple[int, ...] = (8, 16, 24, 32)
) -> dict[str, Tensor]:
    shapes: Shapes = _affine("norm", widths[-1])
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        down = f"downsample_layers.{stage}"
        if stage == 0:
            shapes |= _affine(f"{down}.0", width, 3, 4, 4) | _affine(f"{down}.1", width)
        else:
            before = widths[stage - 1]
            shapes |= _affine(f"{down}.0", before) | _affine(f"{down}.1", width, before, 2, 2)
        for block in range(depth):
            path = f"stages.{stage}.{block}."
            shapes |= _affine(path + "dwconv", width, 1, 7, 7) | _affine(path + "norm", width)
            shapes |= _affine(path + "pwconv1", 4 * width, width)
            shapes |= _affine(path + "pwconv2", width, 4 * width)
            shapes[path + "gamma"] = (width,)
    state = random_state(shapes)
    state |= {"norms.3.weight": state["norm.weight"], "norms.3.bias": state["norm.bias"]}
    return state


def xcit(width: int = 48, depth: int = 2, patch: int = 16, heads: int = 4) -> dict[str, Tensor]:
    shapes: Shapes = {"cls_token": (1, 1, width)}
    shapes |= _affine("pos_embeder.token_projection", width, 64, 1, 1) | _affine("norm", width)
    steps = {16: (8, 4, 2, 1), 8: (4, 2, 1)}[patch]
    before = 3
    for member, divisor in enumerate(steps):
        channels, path = width // divisor, f"patch_embed.proj.{2 * member}."
        shapes[path + "0.weight"] = (channels, before, 3, 3)
        shapes |= _batch_norm(path + "1", channels)
        before = channels
    for block in range(depth):
        path = f"blocks.{block}."
        shapes |= _transformer_block(path, width)
        shapes |= _affine(path + "norm3", width) | _batch_norm(path + "local_mp.bn", width)
        shapes |= _affine(path + "local_mp.conv1", width, 1, 3, 3)
        shapes |= _affine(path + "local_mp.conv2", width, 1, 3, 3)
        shapes |= {path + "gamma3": (width,), path + "attn.temperature": (heads, 1, 1)}
    for block in range(2):
        shapes |= _transformer_block(f"cls_attn_blocks.{block}.", width)
    return random_state(shapes)


def _transformer_block(path: str, width: int) -> Shapes:
    shapes = _affine(path + "norm1", width) | _affine(path + "norm2", width)
    shapes |= _affine(path + "attn.qkv", 3 * width, width)
    shapes |= _affine(path + "attn.proj", width, width)
    shapes |= _affine(path + "mlp.fc1", 4 * width, width)
    shapes |= _affine(path + "mlp.fc2", width, 4 * width)
    return shapes | {path + "gamma1": (width,), path + "gamma2": (width,)}


def _batch_norm(name: str, channels: int) -> Shapes:
    fields = ("weight", "bias", "running_mean", "running_var")
    return {
        **{f"{name}.{field}": (channels,) for field in fields},
        f"{name}.num_batches_tracked": (),
    }
