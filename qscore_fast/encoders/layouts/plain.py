"""Files that hold a bare backbone, and what can be said of them."""

from __future__ import annotations

from qscore_fast.encoders.layouts.layout import RESNET, VIT, Layout, Rule
from qscore_fast.images import Preprocess
from qscore_fast.images.recipes import IMAGENET_BICUBIC

_BARE = (Rule("", "online.backbone", RESNET),)
_SPIJKERVET = Preprocess(resize=224, crop=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_ANY = ("flat", "state_dict", "model", "model_state_dict")
_RESNETS = ("barlow_twins", "dino", "moco", "moco_v2", "moco_v3", "simsiam", "swav", "vicreg")

LAYOUTS = (
    Layout(
        key="dino-resnet50",
        system="dino",
        source="facebookresearch/dino",
        wrappers=("flat",),
        rules=(Rule("", "ema.backbone", RESNET), Rule(r"fc\.", "", why="never trained")),
        preprocess=IMAGENET_BICUBIC,
        tower="ema",
        file_names=r"dino_resnet50.*\.pth",
    ),
    Layout(
        key="vicreg-wide",
        system="vicreg",
        source="facebookresearch/vicreg",
        wrappers=("flat",),
        rules=_BARE,
        file_names=r"resnet(50|200)x2\.pth",
    ),
    Layout(
        key="vicreg-or-barlow-twins",
        system=None,
        fits=("barlow_twins", "vicreg"),
        source="facebookresearch/vicreg or facebookresearch/barlowtwins",
        wrappers=("flat",),
        rules=_BARE,
        file_names=r"resnet50\.pth",
    ),
    Layout(
        key="bare-resnet",
        system=None,
        fits=(*_RESNETS, "simclr", "byol", "supervised"),
        source="unknown",
        wrappers=_ANY,
        rules=_BARE,
        needs=(r"conv1\.weight", r"layer4\."),
        notes=(
            "taken with PyTorch's padding and ImageNet's mean and std, resized bilinearly: that is right "
            "for Barlow Twins, MoCo, SimSiam and VICReg; say system= (--system) for any other",
        ),
    ),
    Layout(
        key="classifying-resnet",
        system=None,
        # A linear classifier can have been trained on any of them.
        fits=("byol", "simclr", "supervised", *_RESNETS),
        source="unknown",
        wrappers=_ANY,
        rules=(Rule(r"fc\.", "online.classifier"), *_BARE),
        needs=(r"conv1\.weight", r"layer4\.", r"fc\.weight"),
        ask=True,
    ),
    Layout(
        key="bare-vit",
        system=None,
        fits=("dino", "moco_v3", "supervised"),
        source="unknown",
        wrappers=_ANY,
        rules=(Rule("", "online.backbone", VIT), Rule(r"head\.", "online.classifier")),
        needs=(r"blocks\.0\.attn\.qkv\.", "pos_embed"),
        lacks=(r"blocks\.0\.ls1",),
        ask=True,
    ),
    Layout(
        key="spijkervet",
        system="simclr",
        source="Spijkervet/SimCLR",
        wrappers=("flat",),
        rules=(
            Rule(r"encoder\.", "online.backbone", RESNET),
            Rule(r"projector\.", "online.projector"),
        ),
        needs=(r"encoder\.conv1\.", r"projector\.0\.weight", r"projector\.2\.weight"),
        lacks=(r"projector\.0\.bias",),
        preprocess=_SPIJKERVET,
    ),
)  # fmt: skip
