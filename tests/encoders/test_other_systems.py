"""Files of systems that are not among those of docs/encoders.md are refused or left open, never misnamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torchvision.models import resnet18

from qscore_fast.encoders import inspect_checkpoint, load_encoder
from qscore_fast.errors import EncoderError

State = dict[str, Tensor]


def backbone(prefix: str) -> State:
    state = resnet18().state_dict()
    return {f"{prefix}{k}": v for k, v in state.items() if not k.startswith("fc.")}


def linear(name: str, into: int, out: int, bias: bool = True) -> State:
    state = {f"{name}.weight": torch.randn(out, into) * 0.02}
    return state | ({f"{name}.bias": torch.zeros(out)} if bias else {})


def norm(name: str, width: int) -> State:
    layer = torch.nn.BatchNorm1d(width).state_dict()
    return {f"{name}.{key}": value for key, value in layer.items()}


def vit() -> State:
    return timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0).state_dict()


def sine_cosine(rows_first: bool, width: int = 192, side: int = 14) -> Tensor:
    """Entry by entry: the angles of an axis, sines then cosines, one half of the width for each axis."""
    table = torch.zeros(1, 1 + side * side, width)
    quarter = width // 4
    for row in range(side):
        for column in range(side):
            axes = (row, column) if rows_first else (column, row)
            for half, step in enumerate(axes):
                angles = torch.tensor([step / 10000 ** (k / quarter) for k in range(quarter)])
                entry = table[0, 1 + row * side + column, half * width // 2 :]
                entry[:quarter], entry[quarter : 2 * quarter] = angles.sin(), angles.cos()
    return table


def solo(method: str) -> dict[str, object]:
    """SimCLR's tensors in solo-learn, which SupCon shares."""
    state = backbone("backbone.") | linear("classifier", 512, 10)
    state |= linear("projector.0", 512, 64) | linear("projector.2", 64, 16)
    return {"state_dict": state, "hyper_parameters": {"method": method}}


def moco() -> dict[str, object]:
    state = backbone("module.encoder_q.") | backbone("module.encoder_k.")
    for tower in "qk":
        state |= linear(f"module.encoder_{tower}.fc", 512, 128)
    state |= {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1).long()}
    return {"state_dict": state, "arch": "resnet18"}


def vicreg(last_bias: bool = False, **more: State) -> dict[str, object]:
    state = (
        backbone("module.backbone.")
        | norm("module.projector.1", 32)
        | norm("module.projector.4", 32)
    )
    state |= linear("module.projector.0", 512, 32) | linear("module.projector.3", 32, 32)
    state |= linear("module.projector.6", 32, 32, bias=last_bias)
    for extra in more.values():
        state |= extra
    return {"model": state}


SWAV = backbone("module.") | linear("module.projection_head.0", 512, 32)
DEEPCLUSTER = SWAV | linear("module.prototypes.prototypes0", 32, 10, bias=False)
PRE_NORM = {"norm_pre.weight": torch.ones(192), "norm_pre.bias": torch.zeros(192)}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("deepclusterv2.pth.tar", DEEPCLUSTER, "DeepCluster-v2's or SeLa-v2's"),
        ("InsDis.pth", {"model": backbone("module.encoder.") | linear("module.head.1", 512, 8)}, "not known"),
        ("PCL_v1_epoch200.pth.tar", moco(), "that of PCL.*--system moco"),
        ("supcon.ckpt", solo("supcon"), "of simclr, but its settings say supcon"),
        ("simsiam.ckpt", solo("simsiam"), "of simclr, but its settings say simsiam"),
        ("vicregl.pth", vicreg(maps=linear("module.maps_projector.0", 512, 8)), "not known"),
        ("projected.pth", {"model": backbone("backbone.") | linear("projector.0", 512, 8)}, "not known"),
        ("biased.pth", vicreg(last_bias=True), "must not have module.projector.6.bias"),
        ("mae_pretrain_vit_base.pth", {"model": vit() | {"pos_embed": sine_cosine(False)}}, "are MAE's"),
        ("mae.safetensors.pth", vit() | {"pos_embed": sine_cosine(False)}, "are MAE's"),
        ("ibot_teacher.pth", {"state_dict": vit()}, "dino or moco_v3 or supervised.*--system"),
        ("deit.pth", {"model": vit() | linear("head", 192, 10)}, "dino or moco_v3 or supervised.*--system"),
        ("vit.pth", vit(), "dino or moco_v3 or supervised.*--system"),
        ("clip.pth", vit() | PRE_NORM, "not known.*module: qf.load_encoder"),
    ],
)  # fmt: skip
def test_other_systems_are_refused(name: str, content: object, reason: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(EncoderError, match=reason):
        load_encoder(tmp_path / name, device="cpu")


def test_the_same_tensors_under_the_right_name_or_settings_are_taken(tmp_path: Path) -> None:
    said = {}
    for name, content in (
        ("moco_v1.pth.tar", moco()),
        ("simclr.ckpt", solo("simclr")),
        ("full.pth", vicreg()),
        ("dino_vitt16.pth", vit()),
        ("vit-s-300ep.pth", {"model": vit() | {"pos_embed": sine_cosine(True)}}),
        ("one_set.pth", SWAV | linear("module.prototypes", 32, 10, bias=False)),
    ):
        torch.save(content, tmp_path / name)
        said[name] = inspect_checkpoint(tmp_path / name).system
    assert list(said.values()) == ["moco", "simclr", "vicreg", "dino", "moco_v3", "swav"]


def test_what_is_left_open_is_taken_as_the_user_says(tmp_path: Path) -> None:
    torch.save(vit(), tmp_path / "vit.pth")
    assert load_encoder(tmp_path / "vit.pth", "dino", device="cpu").tower == "ema"
    assert load_encoder(tmp_path / "vit.pth", "supervised", device="cpu").system == "supervised"
    torch.save(moco(), tmp_path / "PCL_v1.pth.tar")
    assert load_encoder(tmp_path / "PCL_v1.pth.tar", "moco", device="cpu").system == "moco"
