"""PROTOCOLS: how the authors of each system train its linear probe."""

from __future__ import annotations

from qscore_fast.evaluation.sgd.protocol import SGDProtocol

DINOV2_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)

PROTOCOLS: dict[str, SGDProtocol] = {
    "moco": SGDProtocol(
        (30.0,),
        schedule="steps",
        drops=(0.6, 0.8),
        source="MoCo v1 and v2, main_lincls.py",
    ),
    "moco_v3": SGDProtocol(
        (0.1,), epochs=90, batch_size=1024, scaled=True, source="MoCo v3, main_lincls.py"
    ),
    "moco_v3_vit": SGDProtocol(
        (3.0,), epochs=90, batch_size=1024, scaled=True, source="MoCo v3, CONFIG.md, for ViT"
    ),
    "simsiam": SGDProtocol(
        (0.1,),
        epochs=90,
        batch_size=4096,
        scaled=True,
        trust=1e-3,
        source="SimSiam, main_lincls.py --lars",
    ),
    "swav": SGDProtocol((0.3,), weight_decay=1e-6, source="SwAV, eval_linear.py"),
    "vicreg": SGDProtocol((0.02,), weight_decay=1e-6, source="VICReg, evaluate.py, README"),
    "barlow": SGDProtocol((0.3,), weight_decay=1e-6, source="Barlow Twins, evaluate.py"),
    "dino": SGDProtocol((0.001,), batch_size=1024, scaled=True, source="DINO, eval_linear.py"),
    "dinov2": SGDProtocol(
        DINOV2_RATES,
        epochs=10,
        batch_size=1024,
        scaled=True,
        schedule="cosine-by-step",
        source="DINOv2 and DINOv3, eval/linear.py",
    ),
    "byol": SGDProtocol(
        (0.2,),
        epochs=80,
        batch_size=4096,
        scaled=True,
        nesterov=True,
        schedule="cosine-by-step",
        start="truncated-normal-by-fan-in",
        source="BYOL, configs/eval.py",
    ),
    "simclr": SGDProtocol(
        (0.1,),
        epochs=90,
        batch_size=4096,
        scaled=True,
        nesterov=True,
        weight_decay=1e-6,
        schedule="cosine-by-step",
        start="zero",
        source="SimCLR, README",
    ),
    "solo-learn": SGDProtocol(
        (0.1, 0.15, 0.3, 1.0, 3.0, 30.0),
        schedule="steps",
        drops=(0.6, 0.8),
        start="uniform-by-fan-in",
        source="solo-learn, scripts/linear/imagenet-100: the rates of its methods",
    ),
}
