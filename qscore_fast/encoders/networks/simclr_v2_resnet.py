"""SimCLR v2's ResNet with selective kernels ("sk1")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import conv1x1, conv3x3

from qscore_fast.encoders.networks.resnet import STAGES
from qscore_fast.encoders.networks.same_padding import SameMaxPool2d

EXPANSION = 4
SK_RATIO = 0.0625
SK_MIN_CHANNELS = 32


class SimCLRv2ResNet(nn.Module):
    """Bottleneck ResNet with a stem of three 3x3 convolutions, selective kernels and pooled shortcuts.

    State names, torchvision's where there is an equivalent:
    ``stem.{0,3,6}`` convolutions and ``stem.{1,4,7}`` batch norms; in block B of stage S
    ``layerS.B.{conv1,bn1,conv3,bn3}``, ``layerS.B.sk.{conv,bn,reduce,reduce_bn,expand}`` in place of
    conv2 and bn2, and ``layerS.B.downsample.{0,1}`` in the first block.

    Args:
        layers: blocks of each of the four stages; (3, 4, 6, 3), (3, 4, 23, 3) and (3, 8, 36, 3) were
            published.
        width: channels of the stem, even: 64 for "1x", 128 for "2x", 192 for "3x".
        in_channels: channels of the image.

    Attributes:
        num_features: length r of the representation, ``32 * width``.

    Source: google-research/simclr, resnet.py with sk_ratio 0.0625; Li et al., "Selective Kernel
    Networks", CVPR 2019; He et al., "Bag of Tricks" (ResNet-D), CVPR 2019.
    """

    def __init__(
        self, layers: Sequence[int] = (3, 4, 6, 3), width: int = 64, in_channels: int = 3
    ) -> None:
        super().__init__()
        if len(layers) != STAGES or width % 2:
            raise ValueError(
                f"layers must hold {STAGES} numbers and width be even, got {list(layers)} and {width}"
            )
        half = width // 2
        self.stem = nn.Sequential(
            conv3x3(in_channels, half, stride=2),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv3x3(half, half),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            conv3x3(half, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.maxpool = SameMaxPool2d()
        channels = width
        for stage, depth in enumerate(layers):
            planes = width * 2**stage
            first = SKBottleneck(channels, planes, stride=2 if stage else 1, project=True)
            channels = planes * EXPANSION
            rest = [SKBottleneck(channels, planes) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels

    def forward_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to the non-negative map (B, r, h, w) before pooling."""
        x = self.maxpool(self.stem(images))
        for stage in range(1, STAGES + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to representations (B, r), all entries >= 0."""
        return self.avgpool(self.forward_map(images)).flatten(1)


class SKBottleneck(nn.Module):
    """A bottleneck whose 3x3 convolution is a selective kernel; it projects if ``project``."""

    def __init__(self, channels: int, planes: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.conv1 = conv1x1(channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.sk = SelectiveKernel(planes, stride)
        self.conv3 = conv1x1(planes, planes * EXPANSION)
        self.bn3 = nn.BatchNorm2d(planes * EXPANSION)
        self.downsample = (
            PooledProjection(channels, planes * EXPANSION, stride) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.sk(out)))
        return functional.relu(out + shortcut)


class SelectiveKernel(nn.Module):
    """Two 3x3 branches, mixed per channel by a softmax over the branches of their pooled sum."""

    def __init__(self, planes: int, stride: int) -> None:
        super().__init__()
        middle = max(int(planes * SK_RATIO), SK_MIN_CHANNELS)
        self.conv = conv3x3(planes, 2 * planes, stride=stride)
        self.bn = nn.BatchNorm2d(2 * planes)
        self.reduce = conv1x1(planes, middle)
        self.reduce_bn = nn.BatchNorm2d(middle)
        self.expand = conv1x1(middle, 2 * planes)

    def forward(self, x: Tensor) -> Tensor:
        branches = functional.relu(self.bn(self.conv(x))).unflatten(1, (2, -1))
        pooled = branches.sum(1).mean((2, 3), keepdim=True)
        mixing = self.expand(functional.relu(self.reduce_bn(self.reduce(pooled))))
        weights = mixing.unflatten(1, (2, -1)).softmax(1)
        return (branches * weights).sum(1)


class PooledProjection(nn.Sequential):
    """A 2x2 mean, then a 1x1 convolution and its batch norm, "0" and "1"."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__(conv1x1(channels, out_channels), nn.BatchNorm2d(out_channels))
        self.pool = Mean2x2(stride)

    def forward(self, input: Tensor) -> Tensor:
        return self[1](self[0](self.pool(input)))


class Mean2x2(nn.Module):
    """The mean of 2x2 pixels as TensorFlow computes it in the original.

    At stride 2 the border of zeros below and to the right counts in the mean; at stride 1 only the
    pixels that exist do.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        padded = functional.pad(images, (0, 1, 0, 1))
        mean = functional.avg_pool2d(padded, 2, stride=self.stride)
        if self.stride == 1:
            ones = functional.pad(images.new_ones(1, 1, *images.shape[-2:]), (0, 1, 0, 1))
            mean = mean / functional.avg_pool2d(ones, 2, stride=1)
        return mean
