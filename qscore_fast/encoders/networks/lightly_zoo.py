"""The small networks of lightly's first model zoo."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qscore_fast.encoders.networks.resnet import ResNet


class LightlyZooResNet(ResNet):
    """A ResNet of basic blocks that normalises its input and ends in a 1x1 convolution to few features.

    The stem is 3x3 with stride 1, without a max-pool and without a ReLU. State names are those of
    ``ResNet``, and ``input_norm`` and ``reduce``.

    Args:
        layers: blocks of each of the four stages; ResNet-9 is (1, 1, 1, 1).
        width: channels of the stem.
        in_channels: channels of the image.
        features: channels of the last convolution.

    Attributes:
        num_features: length r of the representation, ``features``.

    Source: lightly, lightly/models/resnet.py and lightly/cli/_helpers.py.
    """

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        in_channels: int = 3,
        features: int = 16,
    ) -> None:
        super().__init__("basic", layers, width, in_channels, stem="cifar")
        self.input_norm = nn.BatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(width * 8, features, 1)
        self.num_features = features

    def forward_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the map (B, r, h, w), of either sign, before pooling."""
        x = self.bn1(self.conv1(self.input_norm(images)))
        return self.reduce(self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to representations (B, r) of either sign."""
        return self.avgpool(self.forward_map(images)).flatten(1)
