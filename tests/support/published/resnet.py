"""ResNets under torchvision's names, written and run without torchvision.

Stride on the 3x3 convolution, as in facebookresearch/swav:src/resnet50.py and vicreg:resnet.py, which
also pad the image by 1 before a first convolution of padding 2; the CIFAR stem is that of
vturrisi/solo-learn:solo/methods/base.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .parts import State, Weights, batch_norm

PUBLISHED_LAYERS = (3, 4, 6, 3)


@dataclass(frozen=True)
class Size:
    """A ResNet's stem width (64 x the width factor), blocks per stage and kind of block."""

    stem: int = 8
    layers: tuple[int, ...] = (1, 1, 1, 1)
    block: str = "bottleneck"

    @property
    def expansion(self) -> int:
        return 4 if self.block == "bottleneck" else 1

    @property
    def features(self) -> int:
        return 8 * self.stem * self.expansion

    def scaled(self, published: int) -> int:
        """A head width that is `published` over a stem of 64."""
        return max(4, published * self.stem // 64)


def size_of(
    full: bool = False, widen: int = 1, published_layers: tuple[int, ...] = PUBLISHED_LAYERS,
    block: str = "bottleneck", **given: Any,
) -> Size:  # fmt: skip
    """The published size, or a small one of `stem` (times `widen`) and `layers`."""
    if full:
        return Size(64 * widen, published_layers, block)
    return Size(given.pop("stem", 8) * widen, tuple(given.pop("layers", (1, 1, 1, 1))), block)


def write_resnet(
    weights: Weights, state: State, prefix: str, size: Size, *, stem_kernel: int = 7,
    tracked: bool = True,
) -> None:  # fmt: skip
    """Put a ResNet's tensors under `prefix`, in torchvision's names and order, without `fc`."""

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        state[f"{prefix}{name}.weight"] = weights.conv(out, into, kernel)

    def norm(name: str, width: int, gain: float = 1.0) -> None:
        weights.batch_norm(state, prefix + name, width, tracked=tracked, gain=gain)

    conv("conv1", size.stem, 3, stem_kernel)
    norm("bn1", size.stem)
    into = size.stem
    for stage, blocks in enumerate(size.layers, start=1):
        width = size.stem * 2 ** (stage - 1)
        out = width * size.expansion
        for index in range(blocks):
            name = f"layer{stage}.{index}"
            kernels = (1, 3, 1) if size.block == "bottleneck" else (3, 3)
            widths = (width, width, out) if size.block == "bottleneck" else (width, width)
            channels = into
            for number, (kernel, wide) in enumerate(zip(kernels, widths, strict=True), start=1):
                conv(f"{name}.conv{number}", wide, channels, kernel)
                norm(f"{name}.bn{number}", wide, gain=0.6 if number == len(kernels) else 1.0)
                channels = wide
            if index == 0 and (stage > 1 or into != out):
                conv(f"{name}.downsample.0", out, into, 1)
                norm(f"{name}.downsample.1", out)
            into = out


def same_padding(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad as TensorFlow's SAME does: ceil(size / stride) outputs, the odd pixel after the image."""
    height, width = (
        max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]
    )
    return F.pad(
        x, (width // 2, width - width // 2, height // 2, height - height // 2), value=value
    )


def max_pool(x: Tensor, same: bool) -> Tensor:
    if same:
        return F.max_pool2d(same_padding(x, 3, 2, float("-inf")), 3, 2)
    return F.max_pool2d(x, 3, 2, padding=1)


def run_resnet(
    state: State, prefix: str, images: Tensor, *, padding: str = "torch", same_pool: bool = False,
    stem_relu: bool = True,
) -> Tensor:  # fmt: skip
    """Pooled features (B, r).

    padding: "torch"; "constant" (1 around the image, then 2 in conv1); "same" (TensorFlow's, everywhere);
        "cifar1", "cifar2" (3x3 stem of that padding and stride 1, no max-pool)
    """
    if padding == "same":
        same_pool = True

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{prefix}{name}.weight"]
        if padding == "same":
            return F.conv2d(same_padding(x, weight.shape[-1], stride), weight, stride=stride)
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(name: str, x: Tensor) -> Tensor:
        return batch_norm(state, prefix + name, x)

    stem = state[f"{prefix}conv1.weight"]
    if padding.startswith("cifar"):
        x = F.conv2d(images, stem, stride=1, padding=int(padding[-1]))
    elif padding == "constant":
        x = F.conv2d(F.pad(images, (1, 1, 1, 1)), stem, stride=2, padding=2)
    else:
        x = conv("conv1", images, 2)
    x = norm("bn1", x)
    x = F.relu(x) if stem_relu else x
    if not padding.startswith("cifar"):
        x = max_pool(x, same_pool)

    stage, index = 1, 0
    while f"{prefix}layer{stage}.{index}.conv1.weight" in state:
        name = f"{prefix}layer{stage}.{index}"
        short = name[len(prefix) :]
        stride = 2 if stage > 1 and index == 0 else 1
        bottleneck = f"{name}.conv3.weight" in state
        y = F.relu(norm(f"{short}.bn1", conv(f"{short}.conv1", x, 1 if bottleneck else stride)))
        y = norm(f"{short}.bn2", conv(f"{short}.conv2", y, stride if bottleneck else 1))
        if bottleneck:
            y = norm(f"{short}.bn3", conv(f"{short}.conv3", F.relu(y)))
        if f"{name}.downsample.0.weight" in state:
            x = norm(f"{short}.downsample.1", conv(f"{short}.downsample.0", x, stride))
        x = F.relu(x + y)
        index += 1
        if f"{prefix}layer{stage}.{index}.conv1.weight" not in state:
            stage, index = stage + 1, 0
    return x.mean(dim=(2, 3))


def resnet(
    weights: Weights, state: State, prefix: str, size: Size, *, padding: str = "torch",
    same_pool: bool = False, tracked: bool = True,
) -> Callable[[Tensor, str], Tensor]:  # fmt: skip
    """Write a ResNet and return its forward."""
    kernel = 3 if padding.startswith("cifar") else 7
    write_resnet(weights, state, prefix, size, stem_kernel=kernel, tracked=tracked)
    return lambda images, pool: run_resnet(
        state, prefix, images, padding=padding, same_pool=same_pool
    )
