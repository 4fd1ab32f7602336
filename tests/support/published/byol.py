"""BYOL's pickles (deepmind/deepmind-research: byol/byol_experiment.py, byol/utils/{networks,checkpointing,
optimizers}.py; containers of deepmind/dm-haiku in August 2020: haiku/_src/data_structures.py) and their
converted forms (ajtejankar/byol-convert: convert.py; linusericsson/ssl-transfer:
download_and_prepare_models.py).
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .parts import EPS, Linear, Weights, mlp
from .resnet import Size, max_pool, resnet, run_resnet, same_padding, size_of
from .row import Published, Row, Tower, preprocess
from .saving import importable, save

EVALUATION = preprocess(resize=None, interpolation="bicubic", crop_fraction=0.875)
Params = dict[str, dict[str, np.ndarray]]


class _Mapping(Mapping[str, Any]):
    """Stands in for Haiku's immutable mapping, which pickles as its class called with a dict."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.content,)


class FlatMapping(_Mapping):
    """Haiku's container from 3 August 2020 on."""


class frozendict(_Mapping):
    """Haiku's container before that."""


class _ByolExperimentState(NamedTuple):
    online_params: Any
    target_params: Any
    online_state: Any
    target_state: Any
    opt_state: Any


class ScaleByLarsState(NamedTuple):
    mu: Any


class AddWeightDecayState(NamedTuple):
    pass


class ScaleState(NamedTuple):
    pass


def array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().copy()


class Network:
    """One tower: Haiku's parameters and states by module path, and the forward that reads them."""

    def __init__(self, weights: Weights, size: Size, root: str, classes: int) -> None:
        self.weights, self.size, self.root = weights, size, root
        self.params: Params = {}
        self.states: Params = {}
        wide, out = size.scaled(4096), size.scaled(256)
        self.conv(f"{root}/~/initial_conv", size.stem, 3, 7)
        self.norm(f"{root}/~/initial_batchnorm", (1, 1, 1, size.stem))
        into = size.stem
        for group, blocks in enumerate(size.layers):
            width = size.stem * 2**group
            for index in range(blocks):
                block = self.block(group, index)
                if index == 0:
                    self.conv(f"{block}/shortcut_conv", 4 * width, into, 1)
                    self.norm(f"{block}/shortcut_batchnorm", (1, 1, 1, 4 * width))
                for number, (o, i, k) in enumerate(
                    [(width, into, 1), (width, width, 3), (4 * width, width, 1)]
                ):
                    self.conv(f"{block}/conv_{number}", o, i, k)
                    gain = 0.6 if number == 2 else 1.0
                    self.norm(f"{block}/batchnorm_{number}", (1, 1, 1, o), gain)
                into = 4 * width
        for head, (i, hidden, o) in {
            "projector": (size.features, wide, out),
            "predictor": (out, wide, out),
        }.items():
            self.dense(f"{head}/linear", hidden, i, bias=True)
            self.norm(f"{head}/batch_norm", (1, hidden))
            self.dense(f"{head}/linear_1", o, hidden, bias=False)
        self.dense("classifier", classes, size.features, bias=True)

    def block(self, group: int, index: int) -> str:
        return f"{self.root}/~/block_group_{group}/~/block_{index}/~"

    def conv(self, name: str, out: int, into: int, kernel: int) -> None:
        self.params[name] = {"w": array(self.weights.conv(out, into, kernel).permute(2, 3, 1, 0))}

    def dense(self, name: str, out: int, into: int, bias: bool) -> None:
        self.params[name] = {"w": array(self.weights.linear(out, into).t())}
        if bias:
            self.params[name]["b"] = array(self.weights.normal(out, std=0.2))

    def norm(self, name: str, shape: tuple[int, ...], gain: float = 1.0) -> None:
        drawn: dict[str, Tensor] = {}
        self.weights.batch_norm(drawn, "n", shape[-1], gain=gain, tracked=False)
        values = {key[2:]: array(value.reshape(shape)) for key, value in drawn.items()}
        self.params[name] = {"scale": values["weight"], "offset": values["bias"]}
        for short, average in (("mean", values["running_mean"]), ("var", values["running_var"])):
            self.states[f"{name}/~/{short}_ema"] = {
                "hidden": average.copy(),
                "average": average,
                "counter": np.array(300000, dtype=np.int32),
            }

    def get(self, name: str, part: str) -> Tensor:
        return torch.from_numpy(self.params[name][part])

    def run_norm(self, name: str, x: Tensor) -> Tensor:
        def channels(value: np.ndarray) -> Tensor:
            return torch.from_numpy(value).reshape(1, -1, *[1] * (x.ndim - 2))

        mean = channels(self.states[f"{name}/~/mean_ema"]["average"])
        var = channels(self.states[f"{name}/~/var_ema"]["average"])
        scale, offset = (channels(self.params[name][part]) for part in ("scale", "offset"))
        return (x - mean) * torch.rsqrt(var + EPS) * scale + offset

    def run_conv(self, name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = self.get(name, "w").permute(3, 2, 0, 1)
        x = F.conv2d(same_padding(x, weight.shape[-1], stride), weight, stride=stride)
        return self.run_norm(norm, x)

    def features(self, images: Tensor, pool: str = "cls") -> Tensor:
        root = self.root
        x = F.relu(
            self.run_conv(f"{root}/~/initial_conv", f"{root}/~/initial_batchnorm", images, 2)
        )
        x = max_pool(x, same=True)
        for group, blocks in enumerate(self.size.layers):
            for index in range(blocks):
                block = self.block(group, index)
                stride = 2 if group and index == 0 else 1
                y = F.relu(self.run_conv(f"{block}/conv_0", f"{block}/batchnorm_0", x))
                y = F.relu(self.run_conv(f"{block}/conv_1", f"{block}/batchnorm_1", y, stride))
                y = self.run_conv(f"{block}/conv_2", f"{block}/batchnorm_2", y)
                if index == 0:
                    x = self.run_conv(
                        f"{block}/shortcut_conv", f"{block}/shortcut_batchnorm", x, stride
                    )
                x = F.relu(x + y)
        return x.mean(dim=(2, 3))

    def head(self, name: str) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            x = x @ self.get(f"{name}/linear", "w") + self.get(f"{name}/linear", "b")
            x = F.relu(self.run_norm(f"{name}/batch_norm", x))
            return x @ self.get(f"{name}/linear_1", "w")

        return run


def write_pickle(
    path: Path, seed: int, *, container: type[_Mapping], root: str = "res_net50", **given: Any
) -> Published:
    """dill with protocol 2 writes what pickle does for these objects; NumPy's globals are those of NumPy
    1."""
    weights, size = Weights(seed), size_of(**given)
    classes = 1000 if given.get("full") else 10
    online, target = (Network(weights, size, root, classes) for _ in range(2))

    def frozen(content: Mapping[str, Any]) -> _Mapping:
        return container({key: container(dict(value)) for key, value in content.items()})

    momentum = {
        name: {part: np.full_like(value, 0.01) for part, value in parts.items()}
        for name, parts in online.params.items()
    }
    state = _ByolExperimentState(
        frozen(online.params),
        frozen(target.params),
        frozen(online.states),
        frozen(target.states),
        (AddWeightDecayState(), ScaleByLarsState(frozen(momentum)), ScaleState()),
    )
    content = {
        "experiment_state": state,
        "step": 312500,
        "rng": np.array([0, 42], dtype=np.uint32),
    }
    homes = {
        f"haiku._src.data_structures.{container.__name__}": container,
        "byol.byol_experiment._ByolExperimentState": _ByolExperimentState,
        "byol.utils.optimizers.ScaleByLarsState": ScaleByLarsState,
        "byol.utils.optimizers.AddWeightDecayState": AddWeightDecayState,
        "optax._src.transform.ScaleState": ScaleState,
    }
    with importable(homes):
        raw = pickle.dumps(content, protocol=2)
    path.write_bytes(raw.replace(b"cnumpy._core.", b"cnumpy.core."))
    towers = {
        "online": Tower(online.features, online.head("projector")),
        "ema": Tower(target.features, target.head("projector")),
    }
    heads = {"projector", "predictor", "classifier", "ema_backbone", "ema_projector"}
    kernel, bias = online.get("classifier", "w"), online.get("classifier", "b")
    return Published(
        path, size.features, towers, "online", EVALUATION, frozenset(heads),
        online.head("predictor"), classifier=(kernel.t(), bias), state=(online, target),
    )  # fmt: skip


def pickled(path: Path, seed: int, **given: Any) -> Published:
    return write_pickle(path, seed, container=FlatMapping, **given)


def pickled_200x2(path: Path, seed: int, **given: Any) -> Published:
    if not given.get("full"):
        given.setdefault("layers", (1, 2, 2, 1))
    given |= {"widen": 2, "published_layers": (3, 24, 36, 3)}
    return write_pickle(path, seed, container=frozendict, root="res_net200", **given)


def write_converted(path: Path, seed: int, *, wrapped: bool, **given: Any) -> Published:
    """Torchvision's names; the network still pads as TensorFlow does.

    byol-convert writes all weights first and all running statistics after them, without
    `num_batches_tracked`. ssl-transfer saves torchvision's whole network, whose `fc` nobody trained.
    """
    weights, size, state = Weights(seed), size_of(**given), OrderedDict()
    run = resnet(weights, state, "", size, padding="same", tracked=wrapped)
    mlp(weights, state, "", Linear("fc", size.features, 1000))
    if not wrapped:
        for name in [name for name in state if ".running_" in name]:
            state.move_to_end(name)
    save({"state_dict": state} if wrapped else state, path, cuda=False)
    heads = frozenset() if wrapped else frozenset({"classifier"})
    plain = (lambda images, pool: run_resnet(state, "", images)) if wrapped else None
    return Published(
        path, size.features, {"online": Tower(run)}, "online", EVALUATION, heads,
        classifier=None if wrapped else (state["fc.weight"], state["fc.bias"]), state=state,
        converter_features=plain,
    )  # fmt: skip


def converted(path: Path, seed: int, **given: Any) -> Published:
    return write_converted(path, seed, wrapped=False, **given)


def transferred(path: Path, seed: int, **given: Any) -> Published:
    return write_converted(path, seed, wrapped=True, **given)


DEEPMIND = "deepmind/byol"
ROWS = (
    Row("byol-official", "byol", DEEPMIND, "pretrain_res50x1.pkl", pickled),
    Row("byol-official-200x2", "byol", DEEPMIND, "pretrain_res200x2.pkl", pickled_200x2),
    Row("byol-converted", "byol", "ajtejankar/byol-convert", "pretrain_res50x1.pth.tar", converted),
    Row("byol-ssl-transfer", None, "linusericsson/ssl-transfer", "byol.pth", transferred, ("byol",)),
)  # fmt: skip
