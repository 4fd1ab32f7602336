"""The official repositories of the eight systems, and DINOv2 and DINOv3."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from qscore_fast.encoders.layouts.layout import BACKBONE, RESNET, VIT, XCIT, Layout, Rule
from qscore_fast.encoders.layouts.positions import fixed_positions
from qscore_fast.images.recipes import BYOL, DINOV3_SAT, IMAGENET_BICUBIC, SWAV, UNIT_RANGE

DDP = r"(?:module\.)?"


def dino_heads(width: int) -> int:
    """DINO's ViTs have heads of 64 channels."""
    return max(width // 64, 1)


def moco_v3_heads(width: int) -> int:
    """MoCo v3's ViTs have 12 heads at any width: ViT-S has heads of 32 channels, unlike DeiT-S."""
    return 12


def _running_statistics_last(tensors: Mapping[str, Tensor]) -> bool:
    """All weights before all running statistics: so writes the converter from Haiku."""
    running = [".running_" in name for name in tensors]
    return (
        any(running)
        and not any(running[: running.index(True)])
        and all(running[running.index(True) :])
    )


def _shortcuts_first(tensors: Mapping[str, Tensor]) -> bool:
    """The projection shortcut comes before the block's own convolutions, as in the TensorFlow graph."""
    names = [name for name in tensors if name.startswith("layer1.0.")]
    return bool(names) and names[0].startswith("layer1.0.downsample.")


_CLASSIFIER_ONLY = (
    "it holds a linear classifier alone, no encoder; load the pre-training checkpoint"
)
_MODULE = "build the network yourself and give it as a module: qf.load_encoder(module)"

LAYOUTS = (
    Layout(
        key="swav",
        system="swav",
        source="facebookresearch/swav",
        wrappers=("flat", "state_dict"),
        rules=(
            Rule(DDP + r"projection_head\.", "online.projector"),
            Rule(DDP + r"prototypes\.", "online.prototypes"),
            Rule(DDP, "online.backbone", RESNET),
        ),
        needs=(DDP + r"projection_head\.0\.", DDP + r"prototypes\.weight"),
        preprocess=SWAV,
    ),
    Layout(
        key="swav-linear",
        system="swav",
        source="facebookresearch/swav",
        wrappers=("flat", "state_dict"),
        rules=(Rule(DDP + r"linear\.", "", why="linear classifier"),),
        needs=(DDP + r"linear\.weight",),
        refuse=_CLASSIFIER_ONLY,
    ),
    Layout(
        key="swav-several-prototypes",
        system=None,
        source="facebookresearch/swav",
        wrappers=("flat", "state_dict"),
        rules=(
            Rule(DDP + r"(?:projection_head|prototypes)\.", "", why="heads"),
            Rule(DDP, "online.backbone", RESNET),
        ),
        needs=(DDP + r"projection_head\.0\.", DDP + r"prototypes\.prototypes0\.weight"),
        refuse="its several sets of prototypes are DeepCluster-v2's or SeLa-v2's, which SwAV's repository "
        f"publishes too: neither is among the systems here; {_MODULE}",
    ),
    Layout(
        key="pcl",
        system=None,
        source="salesforce/PCL",
        wrappers=("state_dict",),
        rules=(Rule(DDP + r"(?:encoder_q|encoder_k|queue)", ""),),
        needs=(DDP + r"encoder_q\.conv1\.", DDP + r"queue$"),
        file_names=r"(?i)pcl.*",
        refuse="its name is that of PCL, whose tensors have the names of MoCo's: PCL is not among the "
        "systems here; to load it as MoCo v2 (MoCo v1 for PCL v1) say system=moco (--system moco)",
    ),
    *(
        Layout(
            key=key,
            system=system,
            source="facebookresearch/moco",
            wrappers=("state_dict",),
            rules=(
                Rule(DDP + r"encoder_q\.fc\.", "online.projector"),
                Rule(DDP + r"encoder_q\.", "online.backbone", RESNET),
                Rule(DDP + r"encoder_k\.fc\.", "ema.projector"),
                Rule(DDP + r"encoder_k\.", "ema.backbone", RESNET),
                Rule(DDP + r"(?=queue(_ptr)?$)", "buffers"),
            ),
            needs=(DDP + fc, DDP + r"encoder_q\.conv1\.", DDP + r"queue$"),
        )
        for key, system, fc in (
            ("moco-v1", "moco", r"encoder_q\.fc\.weight"),
            ("moco-v2", "moco_v2", r"encoder_q\.fc\.0\."),
        )
    ),
    Layout(
        key="moco-v3",
        system="moco_v3",
        source="facebookresearch/moco-v3",
        wrappers=("state_dict",),
        rules=(
            Rule(DDP + r"base_encoder\.(?:fc|head)\.", "online.projector"),
            Rule(DDP + r"base_encoder\.", "online.backbone", BACKBONE),
            Rule(DDP + r"momentum_encoder\.(?:fc|head)\.", "ema.projector"),
            Rule(DDP + r"momentum_encoder\.", "ema.backbone", BACKBONE),
            Rule(DDP + r"predictor\.", "online.predictor"),
        ),
        needs=(DDP + r"base_encoder\.", DDP + r"momentum_encoder\.", DDP + r"predictor\."),
        num_heads=moco_v3_heads,
    ),
    Layout(
        key="moco-v3-deit",
        system="moco_v3",
        source="facebookresearch/moco-v3",
        wrappers=("flat", "state_dict", "model"),
        rules=(Rule("", "online.backbone", VIT),),
        needs=(r"blocks\.0\.", "pos_embed"),
        when=lambda tensors: fixed_positions(tensors.get("pos_embed")) == "moco_v3",
        num_heads=moco_v3_heads,
    ),
    Layout(
        key="mae",
        system=None,
        source="facebookresearch/mae",
        wrappers=("flat", "state_dict", "model"),
        rules=(
            Rule(r"(?:decoder_|mask_token|head\.|fc_norm\.)", "", why="decoder or classifier"),
            Rule("", "online.backbone", VIT),
        ),
        needs=(r"blocks\.0\.", "pos_embed"),
        when=lambda tensors: fixed_positions(tensors.get("pos_embed")) == "mae",
        refuse="its fixed position embeddings are MAE's, which is not among the systems here; "
        f"load timm's copy (timm:vit_base_patch16_224.mae), or {_MODULE}",
    ),
    Layout(
        key="byol",
        system="byol",
        source="deepmind/byol",
        wrappers=("haiku",),
        rules=tuple(
            Rule(rf"{tower}\.{part}\.", f"{tower}.{part}")
            for tower in ("online", "ema")
            for part in ("backbone", "projector", "predictor", "classifier")
        ),
        preprocess=BYOL,
        padding="same",
    ),
    Layout(
        key="byol-convert",
        system="byol",
        source="ajtejankar/byol-convert",
        wrappers=("flat",),
        rules=(Rule(r"fc\.", "online.classifier"), Rule("", "online.backbone", RESNET)),
        needs=(r"fc\.weight",),
        lacks=(r".*num_batches_tracked",),
        when=_running_statistics_last,
        preprocess=BYOL,
        padding="same",
    ),
    Layout(
        key="byol-ssl-transfer",
        system="byol",
        source="linusericsson/ssl-transfer",
        wrappers=("state_dict",),
        rules=(
            Rule(r"fc\.", "", why="never trained: the converter leaves it at its random start"),
            Rule("", "online.backbone", RESNET),
        ),
        needs=(r"fc\.weight", r".*num_batches_tracked"),
        when=lambda tensors: not _shortcuts_first(tensors),
        preprocess=BYOL,
        padding="same",
        file_names=r"byol.*\.pth",
        notes=("the converter's own network pads as PyTorch does; BYOL was trained with SAME padding",),
    ),
    Layout(
        key="simclr-tensorflow",
        system="simclr",
        source="google-research/simclr",
        wrappers=("tensorflow",),
        rules=tuple(
            Rule(rf"{tower}\.{part}\.", f"{tower}.{part}")
            for tower in ("online", "ema")
            for part in ("backbone", "projector", "classifier")
        ),
        preprocess=UNIT_RANGE,
        padding="same_pool",
    ),
    Layout(
        key="simclr-converter",
        system="simclr",
        source="tonylins/simclr-converter",
        wrappers=("state_dict",),
        rules=(Rule(r"fc\.", "online.classifier"), Rule("", "online.backbone", RESNET)),
        needs=(r"fc\.weight",),
        when=_shortcuts_first,
        preprocess=UNIT_RANGE,
        padding="same_pool",
        notes=("fc.bias is random in these files: the converter never sets it",),
    ),
    Layout(
        key="simclr-v2-pytorch",
        system="simclr",
        source="Separius/SimCLRv2-Pytorch",
        wrappers=("resnet+head", "numbered"),
        rules=(
            Rule(r"online\.backbone\.", "online.backbone"),
            Rule(r"online\.classifier\.", "online.classifier"),
            Rule(r"online\.projector\.", "online.projector"),
        ),
        preprocess=UNIT_RANGE,
        padding="same_pool",
    ),
    Layout(
        key="dino",
        system="dino",
        source="facebookresearch/dino",
        wrappers=("flat",),
        rules=(Rule("", "ema.backbone", VIT),),
        needs=(r"blocks\.0\.attn\.qkv\.", "cls_token"),
        lacks=("mask_token", "register_tokens", "storage_tokens", r"blocks\.0\.ls1"),
        when=lambda tensors: fixed_positions(tensors.get("pos_embed")) is None,
        preprocess=IMAGENET_BICUBIC,
        num_heads=dino_heads,
        tower="ema",
        file_names=r"(?i).*dino.*",
    ),
    Layout(
        key="dino-xcit",
        system="dino",
        source="facebookresearch/dino",
        wrappers=("flat",),
        rules=(Rule("", "ema.backbone", XCIT),),
        needs=(r"cls_attn_blocks\.0\.",),
        preprocess=IMAGENET_BICUBIC,
        tower="ema",
    ),
    Layout(
        key="dino-full",
        system="dino",
        source="facebookresearch/dino",
        wrappers=("dino",),
        rules=(
            *(
                Rule(rf"{name}\.{DDP}{prefix}", f"{tower}.{part}", first)
                for name, tower in (("student", "online"), ("teacher", "ema"))
                for prefix, part, first in (
                    (r"head\.mlp\.", "projector", ()),
                    (r"head\.(?=last_layer\.)", "prototypes", ()),
                    (r"backbone\.", "backbone", BACKBONE),
                )
            ),
            Rule(r"dino_loss\.(?=center$)", "buffers"),
        ),
        needs=(rf"student\.{DDP}backbone\.", rf"teacher\.{DDP}backbone\."),
        preprocess=IMAGENET_BICUBIC,
        tower="ema",
        num_heads=dino_heads,
        activation="gelu",
    ),
    Layout(
        key="simsiam",
        system="simsiam",
        source="facebookresearch/simsiam",
        wrappers=("state_dict",),
        rules=(
            Rule(DDP + r"encoder\.fc\.", "online.projector"),
            Rule(DDP + r"encoder\.", "online.backbone", RESNET),
            Rule(DDP + r"predictor\.", "online.predictor"),
        ),
        needs=(DDP + r"encoder\.fc\.6\.", DDP + r"predictor\.0\."),
    ),
    Layout(
        key="vicreg-full",
        system="vicreg",
        source="facebookresearch/vicreg",
        wrappers=("model",),
        rules=(
            Rule(DDP + r"backbone\.", "online.backbone", RESNET),
            Rule(DDP + r"projector\.", "online.projector"),
        ),
        needs=(DDP + r"projector\.0\.bias", DDP + r"projector\.1\.running_mean",
               DDP + r"projector\.6\.weight"),
        lacks=(DDP + r"projector\.6\.bias",),
    ),
    Layout(
        key="barlow-twins-full",
        system="barlow_twins",
        source="facebookresearch/barlowtwins",
        wrappers=("model",),
        rules=(
            Rule(DDP + r"backbone\.", "online.backbone", RESNET),
            Rule(DDP + r"projector\.", "online.projector"),
            Rule(DDP + r"bn\.", "loss_norm"),
        ),
        needs=(DDP + r"projector\.0\.weight", DDP + r"bn\.running_mean"),
        lacks=(DDP + r"projector\.0\.bias",),
    ),
    Layout(
        key="dinov2",
        system="dinov2",
        source="facebookresearch/dinov2",
        wrappers=("flat", "teacher"),
        rules=(Rule(r"(?:backbone\.)?", "ema.backbone", (*VIT, "mask_token", "register_tokens")),
               Rule(r"(?:dino_head|ibot_head)\.", "", why="DINOv2's own heads")),
        needs=(r"(?:backbone\.)?mask_token", r"(?:backbone\.)?blocks\.(?:\d+\.)?\d+\.ls1\.gamma",
               r"(?:backbone\.)?pos_embed"),
        preprocess=IMAGENET_BICUBIC,
        tower="ema",
    ),
    *(
        Layout(
            key=key,
            system="dinov3",
            source="facebookresearch/dinov3",
            wrappers=("flat", "teacher"),
            rules=(
                Rule(
                    r"(?:backbone\.)?",
                    "ema.backbone",
                    (*VIT, "mask_token", "storage_tokens", "rope_embed", "local_cls_norm"),
                ),
                Rule(r"(?:dino_head|ibot_head)\.", "", why="DINOv3's own heads"),
            ),
            needs=(r"(?:backbone\.)?storage_tokens",),
            preprocess=recipe,
            tower="ema",
            file_names=file_names,
        )
        for key, recipe, file_names in (
            ("dinov3", IMAGENET_BICUBIC, ""),
            ("dinov3-sat", DINOV3_SAT, r"dinov3.*sat493m.*"),
        )
    ),
    Layout(
        key="dinov3-convnext",
        system="dinov3",
        source="facebookresearch/dinov3",
        wrappers=("flat",),
        rules=(Rule("", "ema.backbone", ("downsample_layers", "stages", "norm", "norms")),),
        needs=(r"downsample_layers\.0\.", r"stages\.0\."),
        preprocess=IMAGENET_BICUBIC,
        tower="ema",
    ),
)  # fmt: skip
