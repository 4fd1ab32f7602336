"""The architecture of a state dict, from its names and shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from qscore_fast.encoders.networks.build import build_network
from qscore_fast.encoders.networks.infer_resnets import (
    infer_lightly_zoo_resnet,
    infer_resnet,
    infer_simclr_v2_resnet,
)
from qscore_fast.encoders.networks.infer_transformers import (
    infer_dinov3_convnext,
    infer_dinov3_vit,
    infer_vit,
    infer_xcit,
)
from qscore_fast.encoders.networks.words import words
from qscore_fast.encoders.weights import few
from qscore_fast.errors import EncoderError, SettingsError

Architecture = dict[str, Any]

# A classifier on top does not belong to the backbone.
HEADS = ("fc.", "head.")
POOLS = ("cls", "patch_mean")
# Converters leave this counter out; nothing that is frozen reads it.
COUNTER = ".num_batches_tracked"

# Names that only this family has together; the first family with most of them is the nearest.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "lightly_zoo_resnet": (
        "input_norm.weight",
        "reduce.weight",
        "conv1.weight",
        "layer4.0.conv1.weight",
    ),
    "resnet": ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
    "simclr_v2_resnet": (
        "stem.0.weight",
        "stem.6.weight",
        "layer1.0.sk.conv.weight",
        "layer4.0.sk.conv.weight",
    ),
    "vit": ("pos_embed", "cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"),
    "xcit": (
        "patch_embed.proj.0.0.weight",
        "cls_attn_blocks.0.norm1.weight",
        "blocks.0.attn.temperature",
        "blocks.0.local_mp.conv1.weight",
    ),
    "dinov3_vit": ("rope.periods", "reg_token", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight"),
    "dinov3_convnext": (
        "stem.0.weight",
        "stages.0.blocks.0.conv_dw.weight",
        "stages.1.downsample.1.weight",
        "head.norm.weight",
    ),
}


def infer_architecture(
    state: Mapping[str, Tensor],
    *,
    padding: str = "torch",
    stem_padding: int = 1,
    num_heads: int | None = None,
    pool: str = "cls",
    positions: str | None = None,
) -> Architecture:
    """The architecture whose names and shapes are exactly those of ``state``.

    A classifier (``fc.*``, ``head.*``) is left out of account, and so is a missing
    ``num_batches_tracked``. What shapes cannot tell comes from the caller, who knows the system.

    Args:
        state: torchvision's names for ResNets, timm's for transformers (``timm_state`` makes them from
            official files), without prefix.
        padding: of a ResNet: "torch", "same" (BYOL) or "same_pool" (SimCLR).
        stem_padding: of a ResNet's 3x3 CIFAR stem: 1, or 2 (solo-learn).
        num_heads: of a ViT; a head for each 64 entries by default. MoCo v3 needs 12.
        pool: of a ViT: "cls" or "patch_mean".
        positions: of a ViT: "dino" or "antialias"; "antialias" by default where there are registers.

    Returns:
        {"name", "arguments"}, all arguments given, for ``build_network``.

    Raises:
        EncoderError: no known architecture fits; the text names the nearest one and what does not fit.
        SettingsError: ``pool`` or ``stem_padding`` is none of these, or ``pool="patch_mean"`` is asked of
            a network without patch tokens behind its norm.
        MissingExtraError: the architecture needs timm, which is not installed.
    """
    state = {name: state[name] for name in state if not str(name).startswith(HEADS[0])}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise EncoderError(
                f"a state dict maps names to tensors, not {name!r:.80} to {type(value)}"
            )
    family = _nearest_family(state)
    if pool not in POOLS or (pool != POOLS[0] and family not in ("vit", "dinov3_vit")):
        raise SettingsError(
            f"pool must be one of {', '.join(POOLS)}, and {POOLS[0]} for a {family}; got {pool!r:.80}"
        )
    readers: dict[str, Callable[[], Architecture]] = {
        "resnet": lambda: infer_resnet(state, padding=padding, stem_padding=stem_padding),
        "lightly_zoo_resnet": lambda: infer_lightly_zoo_resnet(state),
        "simclr_v2_resnet": lambda: infer_simclr_v2_resnet(state),
        "vit": lambda: infer_vit(state, num_heads=num_heads, pool=pool, positions=positions),
        "xcit": lambda: infer_xcit(state),
        "dinov3_vit": lambda: infer_dinov3_vit(state, pool=pool),
        "dinov3_convnext": lambda: infer_dinov3_convnext(state),
    }
    try:
        architecture = readers[family]()
    except KeyError as error:
        raise EncoderError(
            f"the nearest known network is a {family}, but {error.args[0]}"
        ) from None
    _check_fit(architecture, state)
    return architecture


def _nearest_family(state: Mapping[str, Tensor]) -> str:
    if "patch_embed.proj.0.weight" in state and "pos_embed" in state:
        raise EncoderError(
            "this is a ViT with a convolutional stem (patch_embed.proj.0), such as MoCo v3's vit_conv_*; "
            "none was published, and this version reads ViTs with one patch convolution only"
        )
    score = {
        family: sum(name in state for name in names) / len(names)
        for family, names in _FAMILIES.items()
    }
    family = max(score, key=lambda key: score[key])
    if score[family] < 0.5:
        known = "; ".join(f"{name}: {', '.join(names[:2])}" for name, names in _FAMILIES.items())
        raise EncoderError(
            f"no known network has these names: {few(map(str, state))}. Known ones begin with - {known}"
        )
    return family


def _check_fit(architecture: Architecture, state: Mapping[str, Tensor]) -> None:
    expected = {
        name: value
        for name, value in build_network(architecture).state_dict().items()
        if not name.endswith(COUNTER)
    }
    given = {
        name: value
        for name, value in state.items()
        if not name.endswith(COUNTER) and (name in expected or not name.startswith(HEADS))
    }
    shapes = [
        f"{name} is {tuple(value.shape)}, not {tuple(expected[name].shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name].shape
    ]
    reasons = []
    if missing := expected.keys() - given.keys():
        reasons.append(f"missing {few(sorted(missing))}")
    if unknown := given.keys() - expected.keys():
        reasons.append(f"not known {few(sorted(unknown))}")
    if shapes:
        reasons.append(few(shapes))
    if reasons:
        raise EncoderError(
            f"the nearest known network is {words(architecture)}, but the weights do not fit: "
            + "; ".join(reasons)
        )
