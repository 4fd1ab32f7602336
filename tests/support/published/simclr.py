"""SimCLR v1 and v2: TensorFlow checkpoints (google-research/simclr: resnet.py, model_util.py, model.py)
and their converted forms (tonylins/simclr-converter: convert.py, resnet_wider.py;
Separius/SimCLRv2-Pytorch: convert.py, resnet.py).

The network is one; each layout only names its tensors differently. The features are those of the network
that was trained, with TensorFlow's SAME max-pool; what a converter's own network makes of them is
`converter_features`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tensorflow_bundle import write_bundle
from torch import Tensor

from .parts import RELU, BatchNorm, Linear, Weights, batch_norm, mlp
from .resnet import Size, max_pool, size_of
from .row import Published, Row, Tower, preprocess
from .saving import save

EVALUATION = preprocess(
    (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), None, 224, interpolation="bicubic", crop_fraction=0.875
)
State = OrderedDict[str, Tensor]


@dataclass(frozen=True)
class Conv:
    """One convolution, by the place it has in the network: ("stem", i) or (stage, block, part)."""

    place: tuple[Any, ...]
    out: int
    into: int
    kernel: int
    normed: bool = True


def convolutions(size: Size, selective: bool) -> Iterator[Conv]:
    """All convolutions in the order in which TensorFlow creates their variables: shortcuts come first."""
    if selective:
        half = size.stem // 2
        yield Conv(("stem", 0), half, 3, 3)
        yield Conv(("stem", 1), half, half, 3)
        yield Conv(("stem", 2), size.stem, half, 3)
    else:
        yield Conv(("stem", 0), size.stem, 3, 7)
    into = size.stem
    for stage, blocks in enumerate(size.layers, start=1):
        width = size.stem * 2 ** (stage - 1)
        for block in range(blocks):
            if block == 0:
                yield Conv((stage, block, "shortcut"), 4 * width, into, 1)
            yield Conv((stage, block, "reduce"), width, into, 1)
            if selective:
                middle = max(width // 16, 32)
                yield Conv((stage, block, "spatial"), 2 * width, width, 3)
                yield Conv((stage, block, "squeeze"), middle, width, 1)
                yield Conv((stage, block, "mix"), 2 * width, middle, 1, normed=False)
            else:
                yield Conv((stage, block, "spatial"), width, width, 3)
            yield Conv((stage, block, "expand"), 4 * width, width, 1)
            into = 4 * width


Names = dict[tuple[Any, ...], tuple[str, str]]


def tensorflow_names(size: Size, selective: bool) -> Names:
    """Place -> names of the convolution and of its normalisation, numbered as they are created."""
    names: Names = {}
    norms = 0
    for number, conv in enumerate(convolutions(size, selective)):
        suffix, norm_suffix = (f"_{n}" if n else "" for n in (number, norms))
        names[conv.place] = (
            f"base_model/conv2d{suffix}",
            f"base_model/batch_normalization{norm_suffix}",
        )
        norms += conv.normed
    return names


def torchvision_names(size: Size, selective: bool) -> Names:
    names: Names = {}
    for conv in convolutions(size, selective):
        if conv.place[0] == "stem":
            names[conv.place] = ("conv1", "bn1")
            continue
        stage, block, part = conv.place
        base = f"layer{stage}.{block}"
        number = {"reduce": "1", "spatial": "2", "expand": "3"}.get(part)
        pair = (f"conv{number}", f"bn{number}") if number else ("downsample.0", "downsample.1")
        names[conv.place] = (f"{base}.{pair[0]}", f"{base}.{pair[1]}")
    return names


def separius_names(size: Size, selective: bool) -> Names:
    names: Names = {}
    plain = {"reduce": ("0", "1.0"), "spatial": ("2", "3.0"), "expand": ("4", "5.0")}
    mixed = {
        "reduce": ("0", "1.0"),
        "spatial": ("2.main_conv.0", "2.main_conv.1.0"),
        "squeeze": ("2.mixing_conv.0", "2.mixing_conv.1.0"),
        "mix": ("2.mixing_conv.2", ""),
        "expand": ("3", "4.0"),
    }
    for conv in convolutions(size, selective):
        if conv.place[0] == "stem":
            index = 2 * conv.place[1]
            names[conv.place] = (f"net.0.{index}", f"net.0.{index + 1}.0")
            continue
        stage, block, part = conv.place
        base = f"net.{stage}.blocks.{block}"
        if part == "shortcut":
            inner = "projection.shortcut.2" if selective else "projection.shortcut"
            names[conv.place] = (f"{base}.{inner}", f"{base}.projection.bn.0")
        else:
            pair = (mixed if selective else plain)[part]
            names[conv.place] = (f"{base}.net.{pair[0]}", f"{base}.net.{pair[1]}")
    return names


def draw(weights: Weights, size: Size, selective: bool, names: Names) -> State:
    """The backbone's tensors under `names`, in PyTorch's layout."""
    state: State = OrderedDict()
    for conv in convolutions(size, selective):
        weight, norm = names[conv.place]
        state[f"{weight}.weight"] = weights.conv(conv.out, conv.into, conv.kernel)
        if conv.normed:
            gain = 0.6 if conv.place[-1] == "expand" else 1.0
            weights.batch_norm(state, norm, conv.out, gain=gain)
    return state


def run(
    state: State, names: Names, size: Size, selective: bool, images: Tensor, converted: bool
) -> Tensor:
    """Pooled features; `converted` pools as the PyTorch converters' networks do, not as TensorFlow."""

    def conv(place: tuple[Any, ...], x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{names[place][0]}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def normed(place: tuple[Any, ...], x: Tensor, stride: int = 1) -> Tensor:
        return batch_norm(state, names[place][1], conv(place, x, stride))

    def average(x: Tensor, stride: int) -> Tensor:
        if stride == 1 and not converted:
            # SAME average pooling counts the pixels that are there, not the padding.
            ones = F.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1))
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1) / F.avg_pool2d(ones, 2, 1)
        return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride)

    def spatial(place: tuple[Any, ...], x: Tensor, stride: int) -> Tensor:
        x = F.relu(normed((*place, "spatial"), x, stride))
        if not selective:
            return x
        first, second = x.chunk(2, dim=1)
        pooled = (first + second).mean(dim=(2, 3), keepdim=True)
        logits = conv((*place, "mix"), F.relu(normed((*place, "squeeze"), pooled)))
        share = torch.sigmoid(logits.chunk(2, dim=1)[0] - logits.chunk(2, dim=1)[1])
        return share * first + (1 - share) * second

    x = F.relu(normed(("stem", 0), images, 2))
    if selective:
        x = F.relu(normed(("stem", 2), F.relu(normed(("stem", 1), x))))
    x = max_pool(x, same=not converted)
    for stage, blocks in enumerate(size.layers, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(normed((stage, block, "reduce"), x))
            y = normed((stage, block, "expand"), spatial((stage, block), y, stride))
            if block == 0:
                place = (stage, block, "shortcut")
                x = normed(place, average(x, stride)) if selective else normed(place, x, stride)
            x = F.relu(x + y)
    return x.mean(dim=(2, 3))


def forward(
    state: State, names: Names, size: Size, selective: bool, converted: bool
) -> Callable[..., Tensor]:
    return lambda images, pool: run(state, names, size, selective, images, converted)


def arrays(state: State, names: Names) -> dict[str, np.ndarray]:
    """TensorFlow's variables: kernels HWIO, and its names for the parts of a normalisation."""
    out = {}
    parts = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    for weight, norm in names.values():
        out[f"{weight}/kernel"] = state[f"{weight}.weight"].permute(2, 3, 1, 0).numpy().copy()
        for ours, theirs in parts.items():
            if f"{norm}.{ours}" in state and f"{norm}/{theirs}" not in out:
                out[f"{norm}/{theirs}"] = state[f"{norm}.{ours}"].numpy()
    return out


def contrastive_head(
    weights: Weights, features: int, out: int
) -> tuple[State, Callable[[Tensor], Tensor]]:
    """v2's projection head in PyTorch's layout under `layers.N`; the last normalisation has no offset."""
    state: State = OrderedDict()
    run_head = mlp(
        weights, state, "layers.",
        Linear("0", features, features, False), BatchNorm("1", features), RELU,
        Linear("3", features, features, False), BatchNorm("4", features), RELU,
        Linear("6", features, out, False), BatchNorm("7", out),
    )  # fmt: skip
    state["layers.7.bias"] = torch.zeros(out)
    return state, run_head


def head_arrays(state: State) -> dict[str, np.ndarray]:
    out = {}
    for number in range(3):
        name, norm = f"head_contrastive/nl_{number}", f"layers.{3 * number + 1}"
        out[f"{name}/dense/kernel"] = state[f"layers.{3 * number}.weight"].t().numpy().copy()
        out[f"{name}/batch_normalization/gamma"] = state[f"{norm}.weight"].numpy()
        if number < 2:
            out[f"{name}/batch_normalization/beta"] = state[f"{norm}.bias"].numpy()
        out[f"{name}/batch_normalization/moving_mean"] = state[f"{norm}.running_mean"].numpy()
        out[f"{name}/batch_normalization/moving_variance"] = state[f"{norm}.running_var"].numpy()
    return out


def classifier_arrays(weights: Weights, features: int) -> dict[str, np.ndarray]:
    name = "head_supervised/linear_layer/dense"
    kernel = weights.linear(1000, features).t().contiguous().numpy()
    return {f"{name}/kernel": kernel, f"{name}/bias": weights.normal(1000).numpy()}


def write_tensorflow(
    path: Path, seed: int, *, version: int, selective: bool = False, **given: Any
) -> Published:
    """A TF checkpoint; the path is its index file."""
    weights, size = Weights(seed), size_of(**given)
    names = tensorflow_names(size, selective)
    classes = classifier_arrays(weights, size.features)
    variables = {"global_step": np.array(250228, dtype=np.int64), **classes}
    heads = {"classifier"}
    towers = {}
    for tower in ("online",) if version == 1 else ("online", "ema"):
        state = draw(weights, size, selective, names)
        values = arrays(state, names)
        towers[tower] = Tower(forward(state, names, size, selective, converted=False))
        if version == 2:
            head, towers[tower].projector = contrastive_head(
                weights, size.features, size.scaled(128)
            )
            values |= head_arrays(head)
        if tower == "ema":
            variables |= {f"ema_model/{name}": value for name, value in values.items()}
            heads |= {"projector", "ema_backbone", "ema_projector"}
        else:
            variables |= values
            trained = [name for name in values if "moving_" not in name]
            variables |= {f"{name}/Momentum": np.full_like(values[name], 0.01) for name in trained}
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    write_bundle(prefix, variables)
    kernel, bias = (torch.from_numpy(value) for value in classes.values())
    return Published(
        path, size.features, towers, "online", EVALUATION, frozenset(heads),
        classifier=(kernel.t(), bias), state=variables,
    )  # fmt: skip


def v1(path: Path, seed: int, **given: Any) -> Published:
    return write_tensorflow(path, seed, version=1, **given)


def v2(path: Path, seed: int, **given: Any) -> Published:
    return write_tensorflow(path, seed, version=2, **given)


def v2_selective(path: Path, seed: int, **given: Any) -> Published:
    return write_tensorflow(path, seed, version=2, selective=True, **given)


def converted_v1(path: Path, seed: int, *, widen: int = 1, **given: Any) -> Published:
    """{'state_dict'} under torchvision's names; the classifier's bias is not the trained one."""
    weights, size = Weights(seed), size_of(widen=widen, **given)
    names = torchvision_names(size, False)
    state = draw(weights, size, False, names)
    mlp(weights, state, "", Linear("fc", size.features, 1000))
    save({"state_dict": state}, path, legacy=True, cuda=False)
    towers = {"online": Tower(forward(state, names, size, False, converted=False))}
    return Published(
        path, size.features, towers, "online", EVALUATION, frozenset({"classifier"}),
        classifier=(state["fc.weight"], None), state=state,
        converter_features=forward(state, names, size, False, converted=True),
    )  # fmt: skip


def converted_v1_wide(path: Path, seed: int, **given: Any) -> Published:
    return converted_v1(path, seed, widen=2, **given)


def converted_v2(path: Path, seed: int, *, selective: bool = False, **given: Any) -> Published:
    """{'resnet', 'head'} under the converter's own names."""
    weights, size = Weights(seed), size_of(**given)
    names = separius_names(size, selective)
    state = draw(weights, size, selective, names)
    mlp(weights, state, "", Linear("fc", size.features, 1000))
    head, projector = contrastive_head(weights, size.features, size.scaled(128))
    save({"resnet": state, "head": head}, path, cuda=False)
    towers = {"online": Tower(forward(state, names, size, selective, converted=False), projector)}
    return Published(
        path, size.features, towers, "online", EVALUATION, frozenset({"projector", "classifier"}),
        classifier=(state["fc.weight"], state["fc.bias"]), state={"resnet": state, "head": head},
        converter_features=forward(state, names, size, selective, converted=True),
    )  # fmt: skip


def converted_v2_selective(path: Path, seed: int, **given: Any) -> Published:
    return converted_v2(path, seed, selective=True, **given)


def spijkervet(path: Path, seed: int, **given: Any) -> Published:
    """A flat state of `encoder.` and a bias-free projector (Spijkervet/SimCLR: simclr/simclr.py)."""
    from .resnet import resnet

    weights, state = Weights(seed), OrderedDict()
    size = size_of(**{"published_layers": (2, 2, 2, 2), "block": "basic", **given})
    run_encoder = resnet(weights, state, "encoder.", size)
    wide = size.features
    projector = mlp(
        weights, state, "projector.",
        Linear("0", wide, wide, False), RELU, Linear("2", wide, max(4, size.scaled(64)), False),
    )  # fmt: skip
    save(state, path, legacy=True)
    plain = preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 224, None)
    towers = {"online": Tower(run_encoder, projector)}
    return Published(path, wide, towers, "online", plain, frozenset({"projector"}), state=state)


GOOGLE, SEPARIUS = "google-research/simclr", "Separius/SimCLRv2-Pytorch"
CONVERTER = "tonylins/simclr-converter"
ROWS = (
    Row("simclr-v1-official", "simclr", GOOGLE, "model.ckpt-225206.index", v1),
    Row("simclr-v2-sk0-official", "simclr", GOOGLE, "model.ckpt-250228.index", v2),
    Row("simclr-v2-sk1-official", "simclr", GOOGLE, "model.ckpt-250228.index", v2_selective),
    Row("simclr-v1-converted", "simclr", CONVERTER, "resnet50-1x.pth", converted_v1),
    Row("simclr-v1-converted-2x", "simclr", CONVERTER, "resnet50-2x.pth", converted_v1_wide),
    Row("simclr-v2-sk0-converted", "simclr", SEPARIUS, "r50_1x_sk0.pth", converted_v2),
    Row("simclr-v2-sk1-converted", "simclr", SEPARIUS, "r50_1x_sk1.pth", converted_v2_selective),
    Row("simclr-spijkervet", "simclr", "Spijkervet/SimCLR", "checkpoint_100.tar", spijkervet),
)
