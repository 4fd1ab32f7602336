"""TensorFlow's "SAME" padding, which depends on the size of the input."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels to add before and after an axis of ``size`` pixels, so that ceil(size / stride) come out.

    The odd pixel goes behind: (2, 3) for a 7x7 convolution of stride 2 on 224 pixels, (0, 1) for a
    3x3 one of stride 2 on an even size.

    Source: TensorFlow, ``tf.nn`` notes on padding; JAX and Haiku follow them.
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(
    images: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float
) -> Tensor:
    """Images (B, C, H, W) with the border that "SAME" asks for, filled with ``value``."""
    top, bottom = same_pads(images.shape[-2], kernel[0], stride[0])
    left, right = same_pads(images.shape[-1], kernel[1], stride[1])
    return functional.pad(images, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """``nn.Conv2d`` (no dilation, no padding of its own) on an input padded by the SAME rule."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = self.kernel_size
        down, right = self.stride
        return super().forward(pad_same(input, (height, width), (down, right), value=0.0))


class SameMaxPool2d(nn.Module):
    """A 3x3 max-pool of stride 2 with SAME padding; the border never wins.

    The input is the output of a ReLU, but -inf is what TensorFlow pads with, so signed inputs are right too.
    """

    def forward(self, images: Tensor) -> Tensor:
        padded = pad_same(images, (3, 3), (2, 2), value=float("-inf"))
        return functional.max_pool2d(padded, kernel_size=3, stride=2)


def with_same_padding(conv: nn.Conv2d) -> SameConv2d:
    """A convolution of the same shape and stride, without weights of its own yet, padded by SAME."""
    height, width = conv.kernel_size
    down, right = conv.stride
    return SameConv2d(
        conv.in_channels,
        conv.out_channels,
        (height, width),
        stride=(down, right),
        bias=conv.bias is not None,
    )
