"""lightly's ImageNet benchmarks: Lightning checkpoints."""

from __future__ import annotations

from qscore_fast.encoders.layouts.layout import BACKBONE, Layout, Rule
from qscore_fast.encoders.layouts.official import dino_heads
from qscore_fast.images.recipes import IMAGENET

_BACKBONE = Rule(r"backbone\.", "online.backbone", BACKBONE)
_PROJECTOR = Rule(r"projection_head\.layers\.", "online.projector")
_CLASSIFIER = Rule(r"online_classifier\.(?:classification_head|linear)\.", "online.classifier")
_KNN = Rule(r"knn_classifier\.", "", why="kNN classifier that was trained along")
_CRITERION = Rule(r"criterion\.", "", why="state of lightly's loss")
_OTHERS = (r"prototypes\.", r"prediction_head\.", r"(?:teacher|student|key)_")


def _layout(
    key: str, system: str, rules: tuple[Rule, ...], needs: tuple[str, ...], **more: object
) -> Layout:
    return Layout(
        key=f"lightly-{key}",
        system=system,
        source="lightly",
        wrappers=("state_dict",),
        rules=(*rules, _CLASSIFIER, _KNN, _CRITERION),
        needs=(r"backbone\.", r"projection_head\.layers\.0\.", *needs),
        preprocess=IMAGENET,
        **more,  # type: ignore[arg-type]
    )


_ZOO = Layout(
    key="lightly-zoo",
    system="simclr",
    source="lightly",
    wrappers=("state_dict",),
    rules=(
        Rule(r"model\.(?:features|backbone)\.", "online.backbone", tuple("01234567")),
        Rule(r"model\.projection_head\.(?:layers\.)?", "online.projector"),
    ),
    needs=(r"model\.(?:features|backbone)\.0\.running_mean", r"model\.projection_head\."),
)

LAYOUTS = (
    _ZOO,
    _layout("simclr", "simclr", (_BACKBONE, _PROJECTOR), (r"projection_head\.layers\.4\.running_mean",),
            lacks=(*_OTHERS, r"projection_head\.layers\.6\.")),
    _layout("vicreg", "vicreg", (_BACKBONE, _PROJECTOR),
            (r"projection_head\.layers\.1\.running_mean", r"projection_head\.layers\.3\.weight"),
            lacks=(*_OTHERS, r"projection_head\.layers\.4\.")),
    _layout("barlow-twins", "barlow_twins", (_BACKBONE, _PROJECTOR), (r"projection_head\.layers\.6\.weight",),
            lacks=_OTHERS),
    _layout("swav", "swav", (_BACKBONE, _PROJECTOR, Rule(r"prototypes\.", "online.prototypes")),
            (r"prototypes\.heads\.0\.weight",)),
    _layout("moco-v2", "moco_v2",
            (_BACKBONE, _PROJECTOR, Rule(r"key_backbone\.", "ema.backbone", BACKBONE),
             Rule(r"key_projection_head\.layers\.", "ema.projector")),
            (r"key_backbone\.",)),
    _layout("byol", "byol",
            (_BACKBONE, _PROJECTOR, Rule(r"prediction_head\.layers\.", "online.predictor"),
             Rule(r"teacher_backbone\.", "ema.backbone", BACKBONE),
             Rule(r"teacher_projection_head\.layers\.", "ema.projector")),
            (r"prediction_head\.", r"teacher_backbone\.")),
    _layout("dino", "dino",
            (Rule(r"backbone\.", "ema.backbone", BACKBONE),
             Rule(r"projection_head\.(?=last_layer\.)", "ema.prototypes"),
             Rule(r"projection_head\.layers\.", "ema.projector"),
             Rule(r"student_backbone\.", "online.backbone", BACKBONE),
             Rule(r"student_projection_head\.(?=last_layer\.)", "online.prototypes"),
             Rule(r"student_projection_head\.layers\.", "online.projector"),
             Rule(r"criterion\.(?=center$)", "buffers"),
             Rule(r"criterion\.center\.(?=center$)", "buffers")),
            (r"student_backbone\.",), tower="ema", activation="gelu", num_heads=dino_heads),
)  # fmt: skip
