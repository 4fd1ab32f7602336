"""VISSL's model zoo: trunk, heads and the state of the loss."""

from __future__ import annotations

from qscore_fast.encoders.layouts.layout import BACKBONE, Layout, Rule
from qscore_fast.encoders.layouts.official import dino_heads
from qscore_fast.images.recipes import BYOL

_BLOCKS = r"(?:base_model\.)?(?:_feature_blocks\.)?"
_TRUNK = Rule(r"trunk\.(?:_feature_blocks\.)?", "online.backbone", BACKBONE)
_LOSS = Rule(r"loss\.", "", why="state of VISSL's loss")
_FITS = ("barlow_twins", "moco_v2", "simclr", "swav")

LAYOUTS = (
    Layout(
        key="vissl-simclr",
        system="simclr",
        source="vissl",
        wrappers=("classy",),
        rules=(_TRUNK, Rule(r"heads\.(?=\d+\.clf\.)", "online.projector"), _LOSS),
        needs=(r"trunk\.", r"heads\.0\.clf\.0\.", r"heads\.1\.clf\.0\."),
        lacks=(r"heads\.2\.", r"loss\.(queue|moco_encoder)"),
    ),
    Layout(
        key="vissl-moco-v2",
        system="moco_v2",
        source="vissl",
        wrappers=("classy",),
        rules=(
            _TRUNK,
            Rule(r"heads\.(?=\d+\.clf\.)", "online.projector"),
            Rule(rf"loss\.moco_encoder\.trunk\.{_BLOCKS}", "ema.backbone", BACKBONE),
            Rule(r"loss\.moco_encoder\.heads\.(?=\d+\.clf\.)", "ema.projector"),
            Rule(r"loss\.(?=queue(_ptr)?$)", "buffers"),
            _LOSS,
        ),
        needs=(r"trunk\.", r"heads\.0\.clf\.", r"loss\.queue$"),
    ),
    Layout(
        key="vissl-swav",
        system="swav",
        source="vissl",
        wrappers=("classy",),
        rules=(
            _TRUNK,
            Rule(r"heads\.0\.projection_head\.", "online.projector"),
            Rule(r"heads\.0\.(?=prototypes\d+\.)", "online.prototypes"),
            _LOSS,
        ),
        needs=(r"trunk\.", r"heads\.0\.projection_head\.", r"heads\.0\.prototypes0\."),
    ),
    Layout(
        key="vissl-barlow-twins",
        system="barlow_twins",
        source="vissl",
        wrappers=("classy",),
        rules=(_TRUNK, Rule(r"heads\.(?=\d+\.clf\.)", "online.projector"), _LOSS),
        needs=(r"trunk\.", r"heads\.0\.clf\.1\.running_mean", r"heads\.2\.clf\.0\."),
    ),
    Layout(
        key="vissl-dino",
        system="dino",
        source="vissl",
        wrappers=("classy",),
        rules=(
            _TRUNK,
            Rule(r"heads\.0\.mlp\.", "online.projector"),
            Rule(r"heads\.0\.(?=prototypes\d+\.)", "online.prototypes"),
            Rule(
                rf"loss\.momentum_teacher\.(?:module\.)?trunk\.{_BLOCKS}", "ema.backbone", BACKBONE
            ),
            Rule(r"loss\.momentum_teacher\.(?:module\.)?heads\.0\.mlp\.", "ema.projector"),
            Rule(
                r"loss\.momentum_teacher\.(?:module\.)?heads\.0\.(?=prototypes\d+\.)",
                "ema.prototypes",
            ),
            Rule(r"loss\.(?=center$)", "buffers"),
            _LOSS,
        ),
        needs=(r"trunk\.", r"heads\.0\.mlp\.", r"loss\.momentum_teacher\."),
        tower="ema",
        num_heads=dino_heads,
        activation="gelu",
    ),
    Layout(
        key="vissl-trunk",
        system=None,
        fits=_FITS,
        source="vissl",
        wrappers=("classy", "flat", "model_state_dict"),
        rules=(Rule(rf"(?:trunk\.)?{_BLOCKS}", "online.backbone", BACKBONE), _LOSS),
        needs=(r"(?:trunk\.)?(?:base_model\.)?_feature_blocks\.",),
    ),
    Layout(
        key="vissl-evaluation",
        system=None,
        fits=_FITS,
        source="vissl",
        wrappers=("classy",),
        rules=(
            Rule(r"trunk\.base_model\.(?:_feature_blocks\.)?", "online.backbone", BACKBONE),
            Rule(r"heads\.", "", why="classifiers of an evaluation"),
            _LOSS,
        ),
        needs=(r"trunk\.base_model\.", r"heads\."),
    ),
    Layout(
        key="vissl-converted-byol",
        system="byol",
        source="vissl",
        wrappers=("classy", "flat", "model_state_dict"),
        rules=(
            Rule(rf"(?:trunk\.)?{_BLOCKS}", "online.backbone", BACKBONE),
            Rule(r"fc\.", "online.classifier"),
        ),
        preprocess=BYOL,
        padding="same",
        file_names=r"converted_byol.*",
        notes=("VISSL's own network pads as PyTorch does; BYOL was trained with SAME padding",),
    ),
)
