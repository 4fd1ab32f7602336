"""SwAV (facebookresearch/swav: src/resnet50.py, main_swav.py, eval_linear.py, hubconf.py), SimSiam
(facebookresearch/simsiam: simsiam/builder.py), VICReg (facebookresearch/vicreg: main_vicreg.py,
resnet.py) and Barlow Twins (facebookresearch/barlowtwins: main.py, also as it was at 7b1baec).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from .parts import RELU, BatchNorm, Linear, Weights, mlp
from .resnet import resnet, size_of
from .row import IMAGENET_MEAN, Published, Row, Tower, preprocess
from .saving import importable, save, sgd_state

SWAV_STD = (0.228, 0.224, 0.225)


def write_swav(
    path: Path, seed: int, *, training: bool = False, widen: int = 1, **given: Any
) -> Published:
    weights, size, state = Weights(seed), size_of(widen=widen, **given), OrderedDict()
    # Head widths do not grow with the backbone: hidden 2048, or 8192 for the wide ones, and 128.
    unit = size.stem // widen
    hidden, dim = (2048 if widen == 1 else 8192) * unit // 64, 128 * unit // 64
    run = resnet(weights, state, "module.", size, padding="constant")
    head = mlp(
        weights, state, "module.projection_head.",
        Linear("0", size.features, hidden), BatchNorm("1", hidden), RELU, Linear("3", hidden, dim),
    )  # fmt: skip
    mlp(weights, state, "module.", Linear("prototypes", dim, 3000 * unit // 64, bias=False))
    content: dict[str, Any] = state
    if training:
        content = {"epoch": 400, "state_dict": state, "optimizer": sgd_state(state)}
        content["amp"] = {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 12}}
    save(content, path, legacy=True)
    return Published(
        path,
        size.features,
        {"online": Tower(run, head)},
        "online",
        preprocess(IMAGENET_MEAN, SWAV_STD),
        frozenset({"projector", "prototypes"}),
        prototypes_weight=state["module.prototypes.weight"],
        state=state,
    )


def swav(path: Path, seed: int, **given: Any) -> Published:
    return write_swav(path, seed, **given)


def swav_training(path: Path, seed: int, **given: Any) -> Published:
    return write_swav(path, seed, training=True, **given)


def swav_w2(path: Path, seed: int, **given: Any) -> Published:
    return write_swav(path, seed, widen=2, **given)


def swav_linear(path: Path, seed: int, **given: Any) -> Published:
    """The linear classifier alone, without the encoder under it."""
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    mlp(weights, state, "module.", Linear("linear", size.features, 1000))
    content = {"epoch": 100, "state_dict": state, "optimizer": sgd_state(state)}
    content |= {"scheduler": {"T_max": 100, "last_epoch": 100}, "best_acc": 75.3}
    save(content, path, legacy=True)
    return Published(path, size.features, {}, "", preprocess(IMAGENET_MEAN, SWAV_STD), state=state)


def simsiam(path: Path, seed: int, **given: Any) -> Published:
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    wide, narrow = size.features, size.features // 4
    run = resnet(weights, state, "module.encoder.", size)
    projector = mlp(
        weights, state, "module.encoder.fc.",
        Linear("0", wide, wide, bias=False), BatchNorm("1", wide), RELU,
        Linear("3", wide, wide, bias=False), BatchNorm("4", wide), RELU,
        Linear("6", wide, wide), BatchNorm("7", wide, affine=False),
    )  # fmt: skip
    predictor = mlp(
        weights, state, "module.predictor.",
        Linear("0", wide, narrow, bias=False), BatchNorm("1", narrow), RELU, Linear("3", narrow, wide),
    )  # fmt: skip
    optimizer = sgd_state(state, fix_lr=False)
    optimizer["param_groups"].append({**optimizer["param_groups"][0], "params": [], "fix_lr": True})
    content = {"epoch": 100, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}
    save(content, path)
    towers = {"online": Tower(run, projector)}
    heads = frozenset({"projector", "predictor"})
    return Published(path, wide, towers, "online", preprocess(), heads, predictor, state=state)


def write_backbone(path: Path, seed: int, *, padding: str, **given: Any) -> Published:
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    run = resnet(weights, state, "", size, padding=padding)
    save(state, path)
    return Published(
        path, size.features, {"online": Tower(run)}, "online", preprocess(), state=state
    )


def vicreg_backbone(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, padding="constant", **given)


def vicreg_200x2(path: Path, seed: int, **given: Any) -> Published:
    if not given.get("full"):
        given.setdefault("layers", (1, 2, 2, 1))
    return write_backbone(
        path, seed, padding="constant", widen=2, published_layers=(3, 24, 36, 3), **given
    )


def barlow_backbone(path: Path, seed: int, **given: Any) -> Published:
    return write_backbone(path, seed, padding="torch", **given)


def exclude_bias_and_norm(p: Any) -> bool:
    """What the optimisers of VICReg and of the first Barlow Twins hold a reference to."""
    return bool(p.ndim == 1)


def write_full(
    path: Path,
    seed: int,
    *,
    padding: str,
    biased: bool,
    cross_norm: bool,
    filtered: bool,
    **given: Any,
) -> Published:
    """A training state {epoch, model, optimizer}; `filtered` puts the function into the optimiser's
    group."""
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    wide = size.scaled(8192)
    run = resnet(weights, state, "module.backbone.", size, padding=padding)
    projector = mlp(
        weights, state, "module.projector.",
        Linear("0", size.features, wide, biased), BatchNorm("1", wide), RELU,
        Linear("3", wide, wide, biased), BatchNorm("4", wide), RELU, Linear("6", wide, wide, False),
    )  # fmt: skip
    if cross_norm:
        weights.batch_norm(state, "module.bn", wide, affine=False)
    choice: Any = exclude_bias_and_norm if filtered else True
    options = {"eta": 0.001, "weight_decay_filter": choice, "lars_adaptation_filter": choice}
    content = {"epoch": 1000, "model": state, "optimizer": sgd_state(state, "mu", **options)}
    with importable({"__main__.exclude_bias_and_norm": exclude_bias_and_norm}):
        save(content, path)
    towers = {"online": Tower(run, projector)}
    heads = frozenset({"projector"})
    return Published(path, size.features, towers, "online", preprocess(), heads, state=state)


def vicreg_full(path: Path, seed: int, **given: Any) -> Published:
    return write_full(
        path, seed, padding="constant", biased=True, cross_norm=False, filtered=True, **given
    )


def barlow_full(path: Path, seed: int, *, filtered: bool = False, **given: Any) -> Published:
    return write_full(
        path, seed, padding="torch", biased=False, cross_norm=True, filtered=filtered, **given
    )


def barlow_full_old(path: Path, seed: int, **given: Any) -> Published:
    return barlow_full(path, seed, filtered=True, **given)


SWAV, SIMSIAM = "facebookresearch/swav", "facebookresearch/simsiam"
VICREG, BARLOW = "facebookresearch/vicreg", "facebookresearch/barlowtwins"
# A bare backbone under torchvision's names: the file cannot say which of these made it.
BARE = ("vicreg", "barlow_twins", "dino")
ROWS = (
    Row("swav-official", "swav", SWAV, "swav_800ep_pretrain.pth.tar", swav),
    Row("swav-official-training", "swav", SWAV, "checkpoint.pth.tar", swav_training),
    Row("swav-official-w2", "swav", SWAV, "swav_RN50w2_400ep_pretrain.pth.tar", swav_w2),
    Row("swav-official-linear", None, SWAV, "swav_800ep_eval_linear.pth.tar", swav_linear, encoder=False),
    Row("simsiam-official", "simsiam", SIMSIAM, "checkpoint_0099.pth.tar", simsiam),
    Row("vicreg-official-backbone", None, VICREG, "resnet50.pth", vicreg_backbone, BARE),
    Row("vicreg-official-200x2", None, VICREG, "resnet200x2.pth", vicreg_200x2, BARE),
    Row("vicreg-official-full", "vicreg", VICREG, "resnet50_fullckpt.pth", vicreg_full),
    Row(
        "barlow-official-backbone", None, BARLOW, "resnet50.pth", barlow_backbone,
        ("barlow_twins", "vicreg", "dino"),
    ),
    Row("barlow-official-full", "barlow_twins", BARLOW, "checkpoint.pth", barlow_full),
    Row("barlow-official-full-old", "barlow_twins", BARLOW, "checkpoint.pth", barlow_full_old),
)  # fmt: skip
