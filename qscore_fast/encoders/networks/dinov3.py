"""The two families of DINOv3, on timm's: transformers with rotary positions, and ConvNeXt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from timm.models import convnext, eva
from torch import Tensor, nn


class DINOv3ViT(eva.Eva):
    """timm's Eva in DINOv3's form, without classifier, under timm's state names and ``rope.periods``.

    Args:
        patch_size: pixels along a patch.
        width: length of a token.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_width: inner width of the MLPs.
        mlp: "gelu" or "swiglu".
        registers: number of register ("storage") tokens.
        qkv_bias: whether queries and values have a bias; keys never do.
        in_channels: channels of the image.
        pool: "cls" or "patch_mean", behind the final norm.

    Attributes:
        num_features: length r of the representation, ``width``.

    Source: facebookresearch/dinov3 models/vision_transformer.py and hub/backbones.py.
    """

    def __init__(
        self,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_width: int = 1536,
        mlp: str = "gelu",
        registers: int = 4,
        qkv_bias: bool = True,
        in_channels: int = 3,
        pool: str = "cls",
    ) -> None:
        if width % (4 * num_heads):
            raise ValueError(
                f"a width of {width} does not divide into {num_heads} heads of 4 n entries"
            )
        options: dict[str, Any] = {}
        if mlp == "swiglu":
            # Any alignment makes timm keep gate and value apart, as the official files do.
            options = {"swiglu_mlp": True, "swiglu_align_to": 1}
        super().__init__(
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            global_pool="token",
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=(mlp_width + 0.5) / width,
            qkv_bias=qkv_bias,
            init_values=1e-5,
            num_reg_tokens=registers,
            use_abs_pos_emb=False,
            use_rot_pos_emb=True,
            rope_type="dinov3",
            rope_temperature=100.0,
            rope_rotate_half=True,
            use_fc_norm=False,
            dynamic_img_size=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            **options,
        )
        self.representation = pool
        # Official files hold periods rounded to bfloat16, and the official network uses those.
        rope = self.get_submodule("rope")
        rope.register_buffer("periods", rope.get_buffer("periods"), persistent=True)
        # timm keeps the keys' bias, zero by design, out of the state: it must exist on "meta" too.
        for module in self.modules():
            if isinstance(module, eva.EvaAttention) and module.k_bias is not None:
                module.k_bias = torch.zeros(width, device="cpu")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Cast to a lower precision, timm would compute its own periods in place of the file's.
        periods = self.get_buffer("rope.periods")
        super()._apply(fn, recurse)
        if not periods.is_meta:
            rope = self.get_submodule("rope")
            device = rope.get_buffer("periods").device
            rope.register_buffer("periods", periods.to(device), persistent=True)
        return self

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Images (B, C, H, W), normalised, H and W whole patches, to representations (B, r)."""
        tokens = self.forward_features(images)
        if self.representation == "cls":
            return tokens[:, 0]
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)


class DINOv3ConvNeXt(convnext.ConvNeXt):
    """timm's ConvNeXt without classifier; its final norm follows the pooling, as in DINOv3.

    Args:
        depths: blocks of each of the four stages; (3, 3, 9, 3) is "tiny".
        widths: channels of each stage; (96, 192, 384, 768) is "tiny".
        in_channels: channels of the image.

    Attributes:
        num_features: length r of the representation, ``widths[-1]``.

    Source: facebookresearch/dinov3 models/convnext.py.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        widths: Sequence[int] = (96, 192, 384, 768),
        in_channels: int = 3,
    ) -> None:
        if len(depths) != 4 or len(widths) != 4:
            raise ValueError(f"depths and widths need 4 numbers each: {depths}, {widths}")
        super().__init__(
            in_chans=in_channels, num_classes=0, depths=tuple(depths), dims=tuple(widths)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to representations (B, r) of either sign."""
        return super().forward(images)
