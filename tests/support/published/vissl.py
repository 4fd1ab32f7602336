"""VISSL's files (facebookresearch/vissl: vissl/utils/checkpoint.py, models/base_ssl_model.py,
models/heads/*.py, losses/{moco,dino}_loss.py, extra_scripts/convert_vissl_to_torchvision.py).
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from .moco import queue
from .parts import GELU, RELU, BatchNorm, Layer, Linear, State, Weights, mlp, weight_normed
from .resnet import Size, resnet, size_of
from .row import Published, Row, Tower, preprocess
from .saving import adamw_state, save, sgd_state
from .vit import vit, vit_size

TRUNK = "_feature_blocks."


def envelope(
    trunk: State, heads: State, loss: State | None = None, optimizer: Any = None
) -> dict[str, Any]:
    """ClassyVision's task state around the model's two parts."""
    return {
        "phase_idx": 799,
        "iteration": 1000,
        "type": "consolidated",
        "classy_state_dict": {
            "train": True,
            "base_model": {
                "model": {"trunk": trunk, "heads": heads},
                "meta": {"input_shape": (3, 224, 224)},
            },
            "meters": [],
            "optimizer": {"optim": optimizer or sgd_state(trunk)},
            "phase_idx": 799,
            "train_phase_idx": 799,
            "num_updates": 1000,
            "losses": [0.1],
            "loss": loss if loss is not None else OrderedDict(),
            "hooks": {},
        },
    }


def head_layers(system: str, size: Size) -> list[Layer]:
    wide, dim = size.features, size.scaled(128)
    if system in ("simclr", "moco_v2"):
        return [Linear("0.clf.0", wide, wide), RELU, Linear("1.clf.0", wide, dim)]
    if system == "swav":
        name = "0.projection_head"
        return [
            Linear(f"{name}.0", wide, wide), BatchNorm(f"{name}.1", wide), RELU,
            Linear(f"{name}.3", wide, dim),
        ]  # fmt: skip
    hidden = size.scaled(8192)
    return [
        Linear("0.clf.0", wide, hidden, False), BatchNorm("0.clf.1", hidden), RELU,
        Linear("1.clf.0", hidden, hidden, False), BatchNorm("1.clf.1", hidden), RELU,
        Linear("2.clf.0", hidden, hidden, False),
    ]  # fmt: skip


def write_resnet(path: Path, seed: int, *, system: str, **given: Any) -> Published:
    weights, size = Weights(seed), size_of(**given)
    trunk, heads, loss = OrderedDict(), OrderedDict(), OrderedDict()
    layers = head_layers(system, size)
    run = resnet(weights, trunk, TRUNK, size)
    towers = {"online": Tower(run, mlp(weights, heads, "", *layers))}
    found = {"projector"}
    keys = prototypes = None
    if system == "swav":
        mlp(weights, heads, "0.", Linear("prototypes0", size.scaled(128), size.scaled(3000), False))
        prototypes = heads["0.prototypes0.weight"]
        found.add("prototypes")
    if system == "moco_v2":
        keys = queue(weights, loss, "", size.scaled(128), 65536 if given.get("full") else 64)
        run = resnet(weights, loss, f"moco_encoder.trunk.{TRUNK}", size)
        towers["ema"] = Tower(run, mlp(weights, loss, "moco_encoder.heads.", *layers))
        found |= {"ema_backbone", "ema_projector", "queue"}
    content = envelope(trunk, heads, loss)
    save(content, path)
    return Published(
        path, size.features, towers, "online", preprocess(), frozenset(found),
        prototypes_weight=prototypes, queue=keys, state=content,
    )  # fmt: skip


def simclr(path: Path, seed: int, **given: Any) -> Published:
    return write_resnet(path, seed, system="simclr", **given)


def swav(path: Path, seed: int, **given: Any) -> Published:
    return write_resnet(path, seed, system="swav", **given)


def moco(path: Path, seed: int, **given: Any) -> Published:
    return write_resnet(path, seed, system="moco_v2", **given)


def barlow(path: Path, seed: int, **given: Any) -> Published:
    return write_resnet(path, seed, system="barlow_twins", **given)


def dino(path: Path, seed: int, **given: Any) -> Published:
    """The teacher is in the loss; the model is the student."""
    weights, size = Weights(seed), vit_size("vit_small", **given)
    hidden, bottleneck, out = (2048, 256, 65536) if given.get("full") else (64, 32, 80)
    layers = (
        Linear("0", size.width, hidden), GELU,
        Linear("2", hidden, hidden), GELU, Linear("4", hidden, bottleneck),
    )  # fmt: skip
    trunk, heads, loss = OrderedDict(), OrderedDict(), OrderedDict()
    loss["center"] = weights.normal(1, out)
    towers, prototypes = {}, {}
    teacher = "momentum_teacher.module."
    for name, states, prefixes in (
        ("online", (trunk, heads), ("", "")),
        ("ema", (loss, loss), (f"{teacher}trunk.", f"{teacher}heads.")),
    ):
        run = vit(weights, states[0], prefixes[0], size)
        towers[name] = Tower(run, mlp(weights, states[1], f"{prefixes[1]}0.mlp.", *layers))
        last = f"{prefixes[1]}0.prototypes0.weight"
        states[1][f"{last}_g"] = weights.uniform(out, 1, low=0.5, high=1.5)
        states[1][f"{last}_v"] = weights.normal(out, bottleneck)
        prototypes[name] = weight_normed(states[1][f"{last}_g"], states[1][f"{last}_v"])
    content = envelope(trunk, heads, loss, adamw_state(trunk))
    save(content, path)
    found = {"projector", "prototypes", "ema_backbone", "ema_projector", "ema_prototypes", "center"}
    return Published(
        path, size.width, towers, "ema", preprocess(), frozenset(found),
        prototypes_weight=prototypes["ema"], center=loss["center"], state=content,
    )  # fmt: skip


def write_bare(
    path: Path, seed: int, *, key: str | None, prefix: str = TRUNK, **given: Any
) -> Published:
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    run = resnet(weights, state, prefix, size)
    save(state if key is None else {key: state, "epoch": 100}, path, legacy=True)
    return Published(
        path, size.features, {"online": Tower(run)}, "online", preprocess(), state=state
    )


def flat(path: Path, seed: int, **given: Any) -> Published:
    return write_bare(path, seed, key=None, **given)


def legacy(path: Path, seed: int, **given: Any) -> Published:
    return write_bare(path, seed, key="model_state_dict", **given)


def converted(path: Path, seed: int, **given: Any) -> Published:
    """What extra_scripts/convert_vissl_to_torchvision.py writes: torchvision's names alone."""
    return write_bare(path, seed, key=None, prefix="", **given)


def frozen(path: Path, seed: int, **given: Any) -> Published:
    """A frozen trunk under the evaluation's feature extractor, with the linear classifier trained on it."""
    weights, size = Weights(seed), size_of(**given)
    trunk, heads = OrderedDict(), OrderedDict()
    run = resnet(weights, trunk, f"base_model.{TRUNK}", size)
    mlp(weights, heads, "0.", Linear("clf.0", size.features, 1000))
    content = envelope(trunk, heads)
    save(content, path)
    return Published(
        path, size.features, {"online": Tower(run)}, "online", preprocess(),
        frozenset({"classifier"}), classifier=(heads["0.clf.0.weight"], heads["0.clf.0.bias"]),
        state=content,
    )  # fmt: skip


def sharded(path: Path, seed: int, **given: Any) -> Published:
    """Fully sharded training: the file lists shards, each with one slice of every flattened layer."""
    weights = Weights(seed)
    names = [f"{path.stem}_shard{rank}.torch" for rank in range(2)]
    for name in names:
        trunk = OrderedDict({f"{TRUNK}layer1._fsdp_wrapped_module.flat_param": weights.normal(64)})
        save({**envelope(trunk, OrderedDict()), "type": "shard"}, path.with_name(name))
    save({"type": "shard_list", "shards": names}, path, cuda=False)
    return Published(path, 0, {}, "", preprocess())


VISSL = "vissl"
ANY = ("simclr", "swav", "moco_v2", "barlow_twins", "byol")
FINAL = "model_final_checkpoint_phase"
ROWS = (
    Row("simclr-vissl", None, VISSL, f"{FINAL}799.torch", simclr, ("simclr", "moco_v2")),
    Row("swav-vissl", "swav", VISSL, f"{FINAL}799.torch", swav),
    Row("moco-v2-vissl", "moco_v2", VISSL, f"{FINAL}199.torch", moco),
    Row("barlow-vissl", "barlow_twins", VISSL, f"{FINAL}999.torch", barlow),
    Row("dino-vissl", "dino", VISSL, f"{FINAL}299.torch", dino),
    Row("vissl-flat", None, VISSL, "vissl_flat.torch", flat, ANY),
    Row("vissl-legacy", None, VISSL, "vissl_legacy.torch", legacy, ANY),
    Row("vissl-converted", None, VISSL, "converted_vissl.torch", converted, ANY),
    Row("vissl-frozen-evaluation", None, VISSL, f"{FINAL}27.torch", frozen, ANY),
    Row("vissl-sharded", None, VISSL, f"{FINAL}0.torch", sharded, encoder=False),
)
