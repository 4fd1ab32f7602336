"""mmpretrain, mmselfsup 1.x and mmselfsup 0.x: backbone, neck and head, and aliases of them."""

from __future__ import annotations

from dataclasses import replace

from qscore_fast.encoders.layouts.layout import OPENMMLAB_VIT, RESNET, Layout, Rule
from qscore_fast.encoders.layouts.official import moco_v3_heads
from qscore_fast.encoders.layouts.positions import fixed_positions

_NAMES = (*RESNET, *OPENMMLAB_VIT)
_BACKBONE = Rule(r"backbone\.", "online.backbone", _NAMES)
_PREPROCESSOR = Rule(r"data_preprocessor\.", "", why="mean and std of the training images")
_STEPS = Rule(r"\w+\.steps$", "", why="counter of the moving average")
_NECK = Rule(r"neck\.", "online.projector")
_QUEUE = Rule(r"(?=queue(_ptr)?$)", "buffers")
_PREDICTOR = Rule(r"head\.predictor\.", "online.predictor")
_LATENT = (r"neck\.fc0\.", r"head\.predictor\.fc0\.")
_MOMENTUM = r"(?:encoder_k|target_net|momentum_encoder)\."


def _averaged(name: str) -> tuple[Rule, ...]:
    """The moving average of 1.x: the modules (backbone, neck) in a list."""
    return (
        Rule(rf"{name}\.module\.0\.", "ema.backbone", _NAMES),
        Rule(rf"{name}\.module\.1\.", "ema.projector"),
        _STEPS,
    )


def _aliases(online: str, ema: str) -> tuple[Rule, ...]:
    """The two towers of 0.x as lists of (backbone, neck); the online one is there twice."""
    return (
        Rule(rf"{online}\.", "", why="the same tensors as backbone and neck"),
        Rule(rf"{ema}\.0\.", "ema.backbone", _NAMES),
        Rule(rf"{ema}\.1\.", "ema.projector"),
    )


def _layout(
    key: str, system: str, rules: tuple[Rule, ...], needs: tuple[str, ...], **more: object
) -> Layout:
    return Layout(
        key=f"mmpretrain-{key}",
        system=system,
        source="mmpretrain",
        wrappers=("state_dict",),
        rules=(_BACKBONE, *rules, _PREPROCESSOR),
        needs=(r"backbone\.", *needs),
        **more,  # type: ignore[arg-type]
    )


_ONE = (
    _layout("simclr", "simclr", (_NECK,), (r"neck\.fc0\.", r"neck\.fc1\."),
            lacks=(r"head\.", _MOMENTUM)),
    _layout("moco-v2", "moco_v2",
            (Rule(r"neck\.mlp\.", "online.projector"), *_averaged("encoder_k"), _QUEUE),
            (r"neck\.mlp\.0\.", r"encoder_k\.module\.", r"queue$")),
    _layout("byol", "byol", (_NECK, _PREDICTOR, *_averaged("target_net")),
            (*_LATENT, r"target_net\.module\.")),
    _layout("simsiam", "simsiam", (_NECK, _PREDICTOR), _LATENT, lacks=(_MOMENTUM,)),
    _layout("moco-v3", "moco_v3", (_NECK, _PREDICTOR, *_averaged("momentum_encoder")),
            (*_LATENT, r"momentum_encoder\.module\."), num_heads=moco_v3_heads),
    _layout("swav", "swav",
            (Rule(r"neck\.projection_neck\.", "online.projector"),
             Rule(r"neck\.norm\.", "", why="the same tensors as neck.projection_neck.1"),
             Rule(r"head\.(?:loss_module\.)?prototypes\.", "online.prototypes")),
            (r"neck\.projection_neck\.", r"head\.(?:loss_module\.)?prototypes\.weight")),
    _layout("barlow-twins", "barlow_twins", (_NECK, Rule(r"head\.bn\.", "loss_norm")),
            (r"neck\.fc0\.", r"neck\.fc2\.", r"head\.bn\.running_mean")),
)  # fmt: skip

_ZERO = tuple(
    Layout(
        key=f"mmselfsup-{key}",
        system=system,
        source="mmselfsup 0.x",
        wrappers=("state_dict",),
        rules=(
            _BACKBONE,
            Rule(r"neck\.mlp\." if system == "moco_v2" else r"neck\.", "online.projector"),
            _PREDICTOR,
            *_aliases(online, ema),
            _QUEUE,
        ),
        needs=(r"backbone\.", rf"{online}\.0\.", rf"{ema}\.0\."),
        num_heads=moco_v3_heads if system == "moco_v3" else None,
    )
    for key, system, online, ema in (
        ("moco-v2", "moco_v2", "encoder_q", "encoder_k"),
        ("byol", "byol", "online_net", "target_net"),
        ("moco-v3", "moco_v3", "base_encoder", "momentum_encoder"),
    )
)

_BARE = Layout(
    key="mmpretrain-backbone",
    system=None,
    fits=("barlow_twins", "byol", "dino", "moco_v2", "moco_v3", "simclr", "simsiam", "supervised", "swav",
          "vicreg"),
    source="mmpretrain",
    wrappers=("state_dict",),
    rules=(
        Rule(r"backbone\.", "online.backbone", RESNET),
        Rule(r"head\.(?=fc\.)", "", why="classifier of an evaluation"),
        _PREPROCESSOR,
    ),
    needs=(r"backbone\.conv1\.",),
    notes=("many training loops write these names too; taken with PyTorch's padding and ImageNet's mean and "
           "std, as OpenMMLab trains every system",),
)  # fmt: skip

LAYOUTS = (
    *_ONE,
    *_ZERO,
    _BARE,
    replace(
        _BARE,
        key="mmpretrain-backbone-vit",
        system="moco_v3",
        fits=(),
        rules=(
            Rule(r"backbone\.", "online.backbone", OPENMMLAB_VIT),
            Rule(r"head\.", "", why="classifier of an evaluation"),
            _PREPROCESSOR,
        ),
        needs=(r"backbone\.layers\.0\.",),
        num_heads=moco_v3_heads,
        when=lambda tensors: fixed_positions(tensors.get("backbone.pos_embed")) == "moco_v3",
    ),
)
