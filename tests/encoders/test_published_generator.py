"""The generator of published files itself: its plain forwards against torchvision and timm, and its files."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from published import ROWS, Row
from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BY_ID = {row.id: row for row in ROWS}
HEADS = {
    "projector", "predictor", "prototypes", "classifier", "ema_backbone", "ema_projector",
    "ema_prototypes", "queue", "center",
}  # fmt: skip


def images(count: int = 2, pixels: int = 64, seed: int = 7) -> Tensor:
    return torch.randn(count, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))


def pixels(row: Row) -> int:
    """Small where the network takes any size; vision transformers have fixed positions."""
    return 224 if "vit" in row.id or row.id in ("dino-vissl",) else 64


def test_ids_and_systems_are_told_apart() -> None:
    assert len(BY_ID) == len(ROWS)
    assert {row.system for row in ROWS if row.system} == {
        "simclr", "swav", "moco", "moco_v2", "moco_v3", "byol", "dino", "simsiam", "vicreg",
        "barlow_twins", "dinov2", "dinov3",
    }  # fmt: skip
    assert all(row.fits for row in ROWS if row.encoder and row.system is None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_writes_a_file_whose_towers_differ(row: Row, tmp_path: Path) -> None:
    published = row.write(tmp_path)
    assert published.path.exists() and published.path.name == row.filename
    assert published.heads <= HEADS
    if not row.encoder:
        assert not published.towers
        return
    batch = images(pixels=pixels(row))
    found = []
    for tower in published.towers:
        features = published.features(batch, tower)
        assert features.shape == (2, published.num_features) and features.dtype == torch.float32
        assert torch.isfinite(features).all()
        assert (features[0] - features[1]).abs().max() > 1e-2
        found.append(features)
        if "projector" in published.heads:
            projection = published.projection(batch, tower)
            assert projection is not None and torch.isfinite(projection).all()
    if len(found) == 2:
        assert (found[0] - found[1]).abs().max() > 1e-2
    assert torch.equal(
        published.features(batch), published.features(batch, published.default_tower)
    )
    assert ("ema_backbone" in published.heads) == (len(found) == 2)
    assert (published.predictor is not None) == ("predictor" in published.heads)
    assert (published.prototypes_weight is not None) == ("prototypes" in published.heads)
    assert (published.queue is not None) == ("queue" in published.heads)
    assert (published.center is not None) == ("center" in published.heads)


@pytest.mark.parametrize(
    ("name", "prefix", "block", "size"),
    [
        ("moco-v2-official", "module.encoder_q.", Bottleneck, {}),
        ("barlow-official-backbone", "", Bottleneck, {"layers": (2, 1, 2, 1)}),
        ("swav-official", "module.", Bottleneck, {}),
        ("swav-official-w2", "module.", Bottleneck, {"layers": (1, 2, 1, 1)}),
        ("simclr-solo-learn", "backbone.", BasicBlock, {"layers": (2, 2, 2, 2)}),
    ],
)
def test_the_plain_resnet_is_torchvisions(
    name: str, prefix: str, block: type[BasicBlock | Bottleneck], size: dict, tmp_path: Path
) -> None:
    width = 2 if name.endswith("w2") else 1
    published = BY_ID[name].write(tmp_path, stem=64, **size)
    model = ResNet(block, list(size.get("layers", (1, 1, 1, 1))), width_per_group=64).eval()
    if width == 2:
        model = wide_resnet(list(size["layers"])).eval()
    model.fc = torch.nn.Identity()  # type: ignore[assignment]
    heads = ("fc.", "projection_head.", "prototypes.")
    state = {
        name.removeprefix(prefix): value
        for name, value in published.state.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(heads)
    }
    model.load_state_dict(state)
    batch = images()
    with torch.no_grad():
        torch.testing.assert_close(published.features(batch), model(batch), rtol=1e-5, atol=1e-5)


def wide_resnet(layers: list[int]) -> ResNet:
    """Torchvision's ResNet with every width doubled."""
    model = ResNet(Bottleneck, layers)
    model.inplanes = 128
    model.conv1 = torch.nn.Conv2d(3, 128, 7, 2, 3, bias=False)
    model.bn1 = torch.nn.BatchNorm2d(128)
    for stage, (blocks, planes) in enumerate(zip(layers, (128, 256, 512, 1024), strict=True)):
        made = model._make_layer(Bottleneck, planes, blocks, stride=2 if stage else 1)
        setattr(model, f"layer{stage + 1}", made)
    return model


@pytest.mark.parametrize(
    ("name", "heads"), [("dino-vit-s16-official", 6), ("moco-v3-vit-s-official", 12)]
)
def test_the_plain_vit_is_timms(name: str, heads: int, tmp_path: Path) -> None:
    from timm.models import vision_transformer as timm

    sizes = {"width": 384, "heads": heads, "depth": 2}
    published = BY_ID[name].write(tmp_path, **sizes)
    model = timm.VisionTransformer(
        embed_dim=384, depth=2, num_heads=heads, num_classes=0, patch_size=16
    ).eval()
    prefix = "module.base_encoder." if name.startswith("moco") else ""
    state = {
        name.removeprefix(prefix): value
        for name, value in published.state.items()
        if name.startswith(prefix) and ".head." not in name
    }
    model.load_state_dict(state)
    batch = images(pixels=224)
    with torch.no_grad():
        tokens = model.forward_features(batch)
    torch.testing.assert_close(published.features(batch), tokens[:, 0], rtol=1e-4, atol=1e-5)
    mean = published.features(batch, pool="patch_mean")
    torch.testing.assert_close(mean, tokens[:, 1:].mean(dim=1), rtol=1e-4, atol=1e-5)


def test_the_plain_xcit_is_timms(tmp_path: Path) -> None:
    from timm.models import xcit as timm

    published = BY_ID["dino-xcit-p16-official"].write(tmp_path, width=128, depth=2)
    model = timm.Xcit(
        embed_dim=128, depth=2, num_heads=8, patch_size=16, eta=1.0, tokens_norm=True, num_classes=0
    ).eval()
    model.load_state_dict(timm.checkpoint_filter_fn(dict(published.state), model))
    batch = images(pixels=224)
    with torch.no_grad():
        expected = model(batch)
    torch.testing.assert_close(published.features(batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dinov2-official", "dinov2-registers-official"])
def test_the_plain_dinov2_is_timms_at_the_size_of_its_positions(name: str, tmp_path: Path) -> None:
    from timm.models import vision_transformer as timm

    published = BY_ID[name].write(tmp_path, width=128, depth=1)
    registers = 4 if "registers" in name else 0
    model = timm.VisionTransformer(
        img_size=518, patch_size=14, embed_dim=128, depth=1, num_heads=2, num_classes=0,
        init_values=1.0, reg_tokens=registers, no_embed_class=bool(registers),
    ).eval()  # fmt: skip
    model.load_state_dict(timm.checkpoint_filter_fn(dict(published.state), model))
    batch = images(1, 518)
    with torch.no_grad():
        expected = model.forward_features(batch)
    torch.testing.assert_close(published.features(batch), expected[:, 0], rtol=1e-4, atol=1e-5)
    mean = published.features(batch, pool="patch_mean")
    patches = expected[:, 1 + registers :].mean(dim=1)
    torch.testing.assert_close(mean, patches, rtol=1e-4, atol=1e-5)


def test_padding_tells_the_converted_byol_from_a_torchvision_resnet(tmp_path: Path) -> None:
    published = BY_ID["byol-ssl-transfer"].write(tmp_path)
    assert published.converter_features is not None
    batch = images()
    other = published.converter_features(batch, "cls")
    assert (published.features(batch) - other).abs().max() > 1e-2


def test_the_byol_pickle_names_haikus_globals_and_leaves_none_of_them_behind(
    tmp_path: Path,
) -> None:
    published = BY_ID["byol-official"].write(tmp_path)
    raw = published.path.read_bytes()
    for name in (
        b"haiku._src.data_structures\nFlatMapping",
        b"numpy.core.multiarray\n_reconstruct",
    ):
        assert name in raw
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(raw)
