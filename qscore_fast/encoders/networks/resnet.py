"""ResNets of any depth, width, stem and padding that the published checkpoints need."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from qscore_fast.encoders.networks.same_padding import SameMaxPool2d, with_same_padding

STAGES = 4
BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
}


class ResNet(torchvision.models.ResNet):
    """torchvision's ResNet without classifier; every plane scales with the width.

    With the defaults it computes bit for bit what torchvision's does, under the same state names
    (``conv1``, ``bn1``, ``layerS.B.convN``, ``layerS.B.downsample.0``); there is no ``fc``.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3 with the stride, 1x1).
        layers: blocks of each of the four stages; ResNet-50 is (3, 4, 6, 3).
        width: channels of the stem; 64 is the usual net, 128 the "x2" one. The planes of stage s are
            ``width * 2**s``.
        in_channels: channels of the image.
        stem: "imagenet" (7x7, stride 2, then a max-pool), "cifar" (3x3, stride 1, no max-pool) or
            "cifar_padding_2" (as "cifar" with padding 2, as solo-learn has it).
        padding: "torch" (symmetric), "same" (TensorFlow's SAME rule everywhere: BYOL) or "same_pool"
            (SAME in the max-pool only: SimCLR).
        first_projection: whether the first stage's first block projects its input although the shapes
            agree, as the basic blocks of BYOL and SimCLR do. Bottlenecks always project there.

    Attributes:
        num_features: length r of the representation, ``8 * width`` times the block's expansion.

    Sources: He et al., CVPR 2016; facebookresearch/swav, google-research/simclr,
    deepmind-research/byol, vturrisi/solo-learn.
    """

    def __init__(
        self,
        block: str = "bottleneck",
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        in_channels: int = 3,
        stem: str = "imagenet",
        padding: str = "torch",
        first_projection: bool = False,
    ) -> None:
        # torchvision's constructor fixes the width at 64, so only its _make_layer is used.
        nn.Module.__init__(self)
        if len(layers) != STAGES:
            raise ValueError(f"layers must hold {STAGES} numbers, got {list(layers)}")
        if padding == "same_pool" and stem != "imagenet":
            raise ValueError('padding "same_pool" is for stems with a max-pool, got stem ' + stem)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes = width
        self.dilation = 1
        self.groups = 1
        self.base_width = 64

        self.conv1, self.maxpool = _stem(stem, in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        kind = BLOCKS[block]
        self.layer1 = self._make_layer(kind, width, layers[0])
        self.layer2 = self._make_layer(kind, width * 2, layers[1], stride=2)
        self.layer3 = self._make_layer(kind, width * 4, layers[2], stride=2)
        self.layer4 = self._make_layer(kind, width * 8, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = width * 8 * kind.expansion

        first = self.layer1[0]
        if first_projection and first.downsample is None:
            first.downsample = nn.Sequential(conv1x1(width, width), nn.BatchNorm2d(width))
        if padding != "torch" and stem == "imagenet":
            self.maxpool = SameMaxPool2d()
        if padding == "same":
            _pad_strided_convolutions(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_map(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to the non-negative map (B, r, h, w) before pooling."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to representations (B, r), all entries >= 0."""
        return self.avgpool(self.forward_map(images)).flatten(1)


def _stem(stem: str, in_channels: int, width: int) -> tuple[nn.Conv2d, nn.Module]:
    if stem == "imagenet":
        conv = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        return conv, nn.MaxPool2d(3, stride=2, padding=1)
    padding = 2 if stem == "cifar_padding_2" else 1
    return nn.Conv2d(in_channels, width, 3, padding=padding, bias=False), nn.Identity()


def _pad_strided_convolutions(network: nn.Module) -> None:
    # At stride 1 SAME and the symmetric padding of an odd kernel are the same.
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            network.set_submodule(name, with_same_padding(module))
