"""ViT, XCiT and DINOv3 from official state dicts, against plain forwards and against timm."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from qscore_fast.encoders.networks import build_network, infer_architecture, timm_state
from qscore_fast.errors import EncoderError
from tests.encoders.networks import official_states, plain_transformers
from tests.encoders.networks.random_weights import (
    assert_same_features,
    differ,
    network_with,
    random_images,
    random_state,
    shapes_of,
)

# Trained at 32 pixels: that size, larger, smaller, not square, and no whole number of patches.
SIZES = [(32, 32), (48, 64), (24, 24), (39, 35), (33, 32)]


def loaded(state: dict[str, Tensor], **given: Any) -> torch.nn.Module:
    renamed = timm_state(state)
    return network_with(infer_architecture(renamed, **given), renamed)


@pytest.mark.parametrize("pool", ["cls", "patch_mean"])
@pytest.mark.parametrize("size", SIZES)
def test_dino_vit(size: tuple[int, int], pool: str) -> None:
    state = official_states.vit()
    images = random_images(*size)
    network = loaded(state, num_heads=3, pool=pool)
    expected = plain_transformers.vit(state, images, heads=3, pool=pool)
    assert_same_features(network(images), expected)
    assert expected.shape == (2, network.num_features)
    assert (expected < 0).any()


def test_number_of_heads_changes_the_features() -> None:
    state = official_states.vit()
    images = random_images(32, 32)
    features = {heads: loaded(state, num_heads=heads)(images) for heads in (6, 12)}
    assert differ(features[12], features[6])
    for heads, actual in features.items():
        assert_same_features(actual, plain_transformers.vit(state, images, heads=heads))


def test_pools_differ() -> None:
    state, images = official_states.vit(), random_images(32, 32)
    cls, mean = (loaded(state, num_heads=3, pool=pool)(images) for pool in ("cls", "patch_mean"))
    assert differ(cls, mean)


def test_positions_of_another_size_differ() -> None:
    state, images = official_states.vit(), random_images(24, 24)
    antialias = loaded(state, num_heads=3, positions="antialias")(images)
    assert_same_features(antialias, plain_transformers.vit(state, images, heads=3, antialias=True))
    assert differ(antialias, loaded(state, num_heads=3, positions="dino")(images))


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_equals_timm_bit_for_bit_at_its_own_size(name: str) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0, global_pool="token", img_size=112)
    state = random_state(shapes_of(theirs))
    theirs.load_state_dict(state, assign=True)
    theirs.eval()
    images = random_images(112, 112)
    with torch.no_grad():
        assert torch.equal(loaded(state)(images), theirs(images))


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (24, 24)])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2(swiglu: bool, registers: int, size: tuple[int, int]) -> None:
    state = official_states.vit(dinov2=True, swiglu=swiglu, registers=registers)
    images = random_images(*size)
    for pool in ("cls", "patch_mean"):
        network = loaded(state, num_heads=3, pool=pool)
        # The nets with registers resize their positions with antialiasing.
        expected = plain_transformers.vit(
            state, images, heads=3, antialias=registers > 0, pool=pool
        )
        assert_same_features(network(images), expected)


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_names_are_those_of_timms_filter(registers: int) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = official_states.vit(dinov2=True, swiglu=True, registers=registers)
    ours = timm_state(state)
    network = build_network(infer_architecture(ours, num_heads=3))
    assert_equal_states(ours, checkpoint_filter_fn(dict(state), network))


@pytest.mark.parametrize("size", [(32, 32), (48, 16)])
@pytest.mark.parametrize(("swiglu", "bias"), [(False, True), (True, True), (True, False)])
def test_dinov3_vit(swiglu: bool, bias: bool, size: tuple[int, int]) -> None:
    state = official_states.dinov3_vit(swiglu=swiglu, bias=bias, local_norm=swiglu)
    images = random_images(*size)
    for pool in ("cls", "patch_mean"):
        expected = plain_transformers.dinov3_vit(state, images, heads=3, pool=pool)
        assert_same_features(loaded(state, pool=pool)(images), expected)


def test_dinov3_names_are_those_of_timms_filter() -> None:
    from timm.models.eva import checkpoint_filter_fn

    state = official_states.dinov3_vit(swiglu=True)
    ours = timm_state(state)
    network = build_network(infer_architecture(ours))
    assert ours.pop("rope.periods") is state["rope_embed.periods"]
    assert_equal_states(ours, checkpoint_filter_fn(dict(state), network))


def test_dinov3_keys_must_have_no_bias() -> None:
    state = official_states.dinov3_vit()
    masked = timm_state(
        {
            **state,
            "blocks.0.attn.qkv.bias": torch.full((144,), torch.nan).where(
                state["blocks.0.attn.qkv.bias_mask"] == 0, torch.tensor(1.0)
            ),
        }
    )
    assert masked["blocks.0.attn.q_bias"].eq(1).all()
    del state["blocks.0.attn.qkv.bias_mask"]
    with pytest.raises(EncoderError, match="gives the keys a bias"):
        timm_state(state)


def test_dinov3_periods_must_be_the_published_ones() -> None:
    state = official_states.dinov3_vit()
    state["rope_embed.periods"] = state["rope_embed.periods"] * 2
    with pytest.raises(EncoderError, match=r"rope_embed.periods from 2 to .*base 100"):
        timm_state(state)


def test_dinov3_keeps_the_periods_of_the_file_at_any_precision() -> None:
    state = official_states.dinov3_vit()
    network = loaded(state).bfloat16()
    assert network.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert torch.equal(network.state_dict()["rope.periods"], state["rope_embed.periods"])
    assert network(random_images(32, 32).bfloat16()).isfinite().all()


@pytest.mark.parametrize("size", [(64, 64), (96, 32)])
def test_dinov3_convnext(size: tuple[int, int]) -> None:
    from timm.models.convnext import checkpoint_filter_fn

    state = official_states.dinov3_convnext()
    images = random_images(*size)
    network = loaded(state)
    assert_same_features(network(images), plain_transformers.dinov3_convnext(state, images))
    # The last norm has two names in the official files; older timm does not expect the second one.
    named_once = {name: value for name, value in state.items() if not name.startswith("norms.")}
    assert_equal_states(timm_state(state), checkpoint_filter_fn(named_once, network))


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (63, 47)])
@pytest.mark.parametrize("patch", [8, 16])
def test_xcit(patch: int, size: tuple[int, int]) -> None:
    from timm.models.xcit import checkpoint_filter_fn

    state = official_states.xcit(patch=patch)
    images = random_images(*size)
    network = loaded(state)
    assert_same_features(network(images), plain_transformers.xcit(state, images, heads=4))
    assert_equal_states(timm_state(state), checkpoint_filter_fn(dict(state), network))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("vit_small_patch8_224.dino", {}),
        ("vit_base_patch16_224.dino", {}),
        ("vit_giant_patch14_reg4_dinov2", {}),
        ("xcit_small_12_p8_224", {}),
        ("xcit_medium_24_p16_224", {}),
        ("convnext_large", {}),
    ],
)
def test_published_sizes_are_inferred(name: str, given: dict[str, Any]) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(name, num_classes=0)
    network = build_network(infer_architecture(theirs.state_dict(), **given))
    expected = shapes_of(theirs)
    assert shapes_of(network) == expected
    heads = {m.num_heads for m in theirs.modules() if hasattr(m, "num_heads")}
    assert heads == {m.num_heads for m in network.modules() if hasattr(m, "num_heads")}


def test_seven_billion_weights_take_no_memory() -> None:
    arguments = {"width": 4096, "depth": 40, "num_heads": 32, "mlp_width": 8192, "mlp": "swiglu"}
    network = build_network({"name": "dinov3_vit", "arguments": {**arguments, "qkv_bias": False}})
    assert sum(weight.numel() for weight in network.parameters()) > 6_000_000_000
    assert all(weight.is_meta for weight in network.parameters())


def assert_equal_states(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
