"""A residual network for 28x28 grey images: the architecture of the bundled demo encoder."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, conv1x1


class SmallResNet(nn.Module):
    """Bottleneck ResNet whose representation is the global average of a ReLU map, as in ResNet-50.

    The constructor takes plain numbers only, so that a checkpoint can hold its arguments.

    Args:
        stem_channels: channels of the 3x3 convolution that reads the image.
        stem_stride: stride of that convolution.
        planes: inner width of each stage; a stage's output has four times as many channels.
        blocks: number of bottleneck blocks of each stage.
        strides: stride of each stage's first block.

    Attributes:
        num_features: length r of the representation, ``4 * planes[-1]``.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with torchvision's
    block (stride in the 3x3 convolution).
    """

    def __init__(
        self,
        stem_channels: int = 32,
        stem_stride: int = 2,
        planes: Sequence[int] = (32, 64, 128),
        blocks: Sequence[int] = (1, 2, 1),
        strides: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if not planes or not len(planes) == len(blocks) == len(strides):
            raise ValueError(
                "planes, blocks and strides must name the same stages, at least one: got "
                f"{list(planes)}, {list(blocks)}, {list(strides)}"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem_channels, 3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(stem_channels),
            nn.ReLU(inplace=True),
        )
        stages = []
        channels = stem_channels
        for width, depth, stride in zip(planes, blocks, strides, strict=True):
            stages.append(_stage(channels, width, depth, stride))
            channels = width * Bottleneck.expansion
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = channels

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_map(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) to the non-negative map (B, r, h, w) before pooling."""
        return self.stages(self.stem(images))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W), normalised, to representations (B, r), all entries >= 0."""
        return self.avgpool(self.forward_map(images)).flatten(1)


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` bottlenecks; the first one strides and, where shapes change, projects its input."""
    out_channels = width * Bottleneck.expansion
    shortcut = None
    if stride != 1 or channels != out_channels:
        shortcut = nn.Sequential(
            conv1x1(channels, out_channels, stride), nn.BatchNorm2d(out_channels)
        )
    first = Bottleneck(channels, width, stride=stride, downsample=shortcut)
    rest = [Bottleneck(out_channels, width) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)
