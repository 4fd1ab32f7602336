"""Forward passes of the ResNets, written from the layouts' definitions on plain functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]
EPSILON = 1e-5


def tensorflow_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """As TensorFlow's documentation of "SAME" words it, by the remainder of size and stride."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    rows = tensorflow_pads(x.shape[2], kernel, stride)
    columns = tensorflow_pads(x.shape[3], kernel, stride)
    return F.pad(x, (*columns, *rows), value=value)


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: str = "torch") -> Tensor:
    weight = state[f"{name}.weight"]
    kernel = weight.shape[-1]
    if padding == "same":
        x = pad_same(x, kernel, stride)
        return F.conv2d(x, weight, stride=stride)
    return F.conv2d(x, weight, stride=stride, padding=kernel // 2)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    scale = state[f"{name}.weight"] / (state[f"{name}.running_var"] + EPSILON).sqrt()
    shift = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def max_pool(x: Tensor, same: bool) -> Tensor:
    lowest = float("-inf")
    x = pad_same(x, 3, 2, lowest) if same else F.pad(x, (1, 1, 1, 1), value=lowest)
    return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))


def resnet(
    state: State,
    images: Tensor,
    layers: tuple[int, ...],
    bottleneck: bool = True,
    stem: str = "imagenet",
    padding: str = "torch",
) -> Tensor:
    strided = "same" if padding == "same" else "torch"
    if stem == "imagenet":
        x = F.relu(norm(state, "bn1", conv(state, "conv1", images, 2, strided)))
        x = max_pool(x, same=padding != "torch")
    else:
        border = 2 if stem == "cifar_padding_2" else 1
        x = F.conv2d(images, state["conv1.weight"], padding=border)
        x = F.relu(norm(state, "bn1", x))
    for stage, depth in enumerate(layers):
        for block in range(depth):
            path = f"layer{stage + 1}.{block}."
            stride = 2 if stage and not block else 1
            shortcut = x
            if f"{path}downsample.0.weight" in state:
                shortcut = conv(state, path + "downsample.0", x, stride, strided)
                shortcut = norm(state, path + "downsample.1", shortcut)
            # The stride is in the first 3x3 convolution.
            strides = (1, stride, 1) if bottleneck else (stride, 1)
            for number, step in enumerate(strides, start=1):
                x = conv(state, f"{path}conv{number}", x, step, strided)
                x = norm(state, f"{path}bn{number}", x)
                if number < len(strides):
                    x = F.relu(x)
            x = F.relu(x + shortcut)
    return x.mean((2, 3))


def simclr_v2_resnet(state: State, images: Tensor, layers: tuple[int, ...]) -> Tensor:
    x = images
    for conv_name, norm_name, stride in (("0", "1", 2), ("3", "4", 1), ("6", "7", 1)):
        x = F.relu(norm(state, f"stem.{norm_name}", conv(state, f"stem.{conv_name}", x, stride)))
    x = max_pool(x, same=True)
    for stage, depth in enumerate(layers):
        for block in range(depth):
            path = f"layer{stage + 1}.{block}."
            stride = 2 if stage and not block else 1
            shortcut = _pooled_projection(state, path, x, stride) if block == 0 else x
            x = F.relu(norm(state, path + "bn1", conv(state, path + "conv1", x)))
            x = _selective_kernel(state, path + "sk.", x, stride)
            x = F.relu(norm(state, path + "bn3", conv(state, path + "conv3", x)) + shortcut)
    return x.mean((2, 3))


def _pooled_projection(state: State, path: str, x: Tensor, stride: int) -> Tensor:
    # Stride 2: one row and column of zeros behind, which count. Stride 1: SAME, whose border does not.
    border = 0.0 if stride == 2 else float("nan")
    windows = F.pad(x, (0, 1, 0, 1), value=border).unfold(2, 2, stride).unfold(3, 2, stride)
    x = windows.flatten(-2).nanmean(-1)
    return norm(state, path + "downsample.1", conv(state, path + "downsample.0", x))


def _selective_kernel(state: State, path: str, x: Tensor, stride: int) -> Tensor:
    both = F.relu(norm(state, path + "bn", conv(state, path + "conv", x, stride)))
    first, second = both.chunk(2, dim=1)
    pooled = (first + second).mean((2, 3), keepdim=True)
    pooled = F.relu(norm(state, path + "reduce_bn", conv(state, path + "reduce", pooled)))
    logits = conv(state, path + "expand", pooled)
    a, b = logits.chunk(2, dim=1)
    share = torch.sigmoid(a - b)  # a softmax over two
    return share * first + (1 - share) * second
