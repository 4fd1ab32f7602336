"""XCiT, the cross-covariance transformer of DINO's zoo, on timm's."""

from __future__ import annotations

from timm.models import xcit
from torch import Tensor


class XCiT(xcit.Xcit):
    """timm's XCiT without classifier, under timm's state names; the class token is the representation.

    Args:
        patch_size: 8 or 16 pixels.
        width: length of a token; 384 for "small", 512 for "medium".
        depth: number of cross-covariance blocks.
        num_heads: attention heads, which the file's temperatures tell.
        cls_depth: number of class-attention blocks.
        in_channels: channels of the image.
        tokens_norm: whether those blocks normalise all tokens; True in all published nets but "nano".

    Attributes:
        num_features: length r of the representation, ``width``.

    Source: facebookresearch/xcit xcit.py, as facebookresearch/dino hubconf.py uses it.
    """

    def __init__(
        self,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 8,
        cls_depth: int = 2,
        in_channels: int = 3,
        tokens_norm: bool = True,
    ) -> None:
        if width % num_heads:
            raise ValueError(f"a width of {width} does not divide into {num_heads} heads")
        super().__init__(
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            cls_attn_layers=cls_depth,
            tokens_norm=tokens_norm,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to representations (B, r) of either sign."""
        return super().forward(images)
