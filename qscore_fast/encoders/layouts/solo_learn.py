"""solo-learn: Lightning checkpoints, with args.json beside them."""

from __future__ import annotations

from qscore_fast.encoders.layouts.layout import BACKBONE, Layout, Rule
from qscore_fast.encoders.layouts.official import dino_heads

_COMMON = (
    Rule(r"(?:backbone|encoder)\.", "online.backbone", BACKBONE),
    Rule(r"(?:momentum_backbone|momentum_encoder)\.", "ema.backbone", BACKBONE),
    Rule(r"projector\.", "online.projector"),
    Rule(r"momentum_projector\.", "ema.projector"),
    Rule(r"predictor\.", "online.predictor"),
    Rule(r"classifier\.", "online.classifier"),
    Rule(r"momentum_classifier\.", "ema.classifier"),
)
_QUEUE = Rule(r"(?=queue(_ptr)?$)", "buffers")
_ENCODER = r"(?:backbone|encoder)\."
_MOMENTUM = r"momentum_(?:backbone|encoder)\."
_LACK = (r"head\.", r"prototypes\.", r"queue$")


def _layout(
    key: str,
    system: str | None,
    needs: tuple[str, ...] = (),
    lacks: tuple[str, ...] = (),
    rules: tuple[Rule, ...] = (),
    **more: object,
) -> Layout:
    return Layout(
        key=f"solo-learn-{key}",
        system=system,
        source="solo-learn",
        wrappers=("state_dict",),
        rules=(*_COMMON, *rules),
        needs=(_ENCODER, r"classifier\.", *needs),
        lacks=lacks,
        stem_padding=2,
        **more,  # type: ignore[arg-type]
    )


LAYOUTS = (
    _layout("simclr", "simclr", (r"projector\.0\.bias", r"projector\.2\.weight"),
            (*_LACK, r"projector\.3\.", r"predictor\.", _MOMENTUM)),
    _layout("moco-v2", "moco_v2", (r"projector\.2\.", r"queue$", _MOMENTUM), (r"predictor\.",), (_QUEUE,)),
    _layout("byol", "byol", (r"projector\.3\.", r"predictor\.0\.bias", _MOMENTUM), _LACK),
    _layout("moco-v3", "moco_v3", (r"projector\.3\.", r"predictor\.0\.weight", _MOMENTUM),
            (*_LACK, r"predictor\.0\.bias")),
    _layout("simsiam", "simsiam", (r"projector\.6\.", r"predictor\.0\.weight"), (*_LACK, _MOMENTUM)),
    _layout("swav", "swav", (r"projector\.3\.", r"prototypes\.weight"), (_MOMENTUM,),
            (Rule(r"prototypes\.", "online.prototypes"), _QUEUE)),
    _layout("dino", "dino", (r"head\.mlp\.", r"momentum_head\.mlp\."), (),
            (Rule(r"head\.mlp\.", "online.projector"), Rule(r"head\.(?=last_layer\.)", "online.prototypes"),
             Rule(r"momentum_head\.mlp\.", "ema.projector"),
             Rule(r"momentum_head\.(?=last_layer\.)", "ema.prototypes"),
             Rule(r"dino_loss_func\.(?=center$)", "buffers")),
            activation="gelu", num_heads=dino_heads),
    _layout("vicreg-or-barlow-twins", None, (r"projector\.0\.", r"projector\.6\."),
            (*_LACK, r"predictor\.", _MOMENTUM), fits=("barlow_twins", "vicreg")),
)  # fmt: skip
