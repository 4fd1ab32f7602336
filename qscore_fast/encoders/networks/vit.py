"""Vision transformers of DINO, MoCo v3 and DINOv2, on timm's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers import SwiGLUPacked, resample_abs_pos_embed
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.nn import functional


class VisionTransformer(vision_transformer.VisionTransformer):
    """timm's ViT without classifier, under timm's state names, for images of any size.

    At the size that it was trained for it computes bit for bit what timm's does. Pixels beyond the last
    whole patch are not seen, as in DINO.

    Args:
        patch_size: pixels along a patch.
        width: length of a token.
        depth: number of blocks.
        num_heads: attention heads; cannot be read from shapes (MoCo v3's ViT-S has 12, DINO's 6).
        mlp_width: inner width of the MLPs; ``4 * width`` in all but DINOv2's ViT-g.
        image_size: pixels along the square images that the position embeddings were made for.
        in_channels: channels of the image.
        mlp: "gelu", or "swiglu" (DINOv2's ViT-g).
        layer_scale: whether the blocks scale their branches (DINOv2).
        registers: number of register tokens; with them, the class token has no position (timm's form
            of DINOv2 with registers).
        positions: how position embeddings reach another image size: "dino" (bicubic, 0.1 patch added
            to the target as DINO and DINOv2 do) or "antialias" (timm's; DINOv2 with registers).
        pool: "cls" (class token) or "patch_mean" (mean of the patch tokens, without class token and
            registers); both behind the final norm.

    Attributes:
        num_features: length r of the representation, ``width``.

    Sources: facebookresearch/dino vision_transformer.py, moco-v3 vits.py, dinov2
    models/vision_transformer.py; LayerNorm's epsilon is 1e-6 in all.
    """

    def __init__(
        self,
        patch_size: int = 16,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_width: int = 1536,
        image_size: int = 224,
        in_channels: int = 3,
        mlp: str = "gelu",
        layer_scale: bool = False,
        registers: int = 0,
        positions: str = "dino",
        pool: str = "cls",
    ) -> None:
        if width % num_heads:
            raise ValueError(f"a width of {width} does not divide into {num_heads} heads")
        options: dict[str, Any] = {}
        if mlp == "swiglu":
            options = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
        super().__init__(
            img_size=image_size,
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            global_pool="token",
            embed_dim=width,
            depth=depth,
            num_heads=num_heads,
            # Half a channel more, so that timm's int(width * mlp_ratio) cannot round down.
            mlp_ratio=((2 if mlp == "swiglu" else 1) * mlp_width + 0.5) / width,
            init_values=1.0 if layer_scale else None,
            reg_tokens=registers,
            no_embed_class=registers > 0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            **options,
        )
        self.positions = positions
        self.representation = pool

    def forward_tokens(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W), normalised, to all tokens (B, 1 + registers + patches, r), normalised."""
        patches = self.patch_embed.proj(images)
        grid = (patches.shape[-2], patches.shape[-1])
        # DINO leaves its embeddings alone for square images only.
        trained = grid == self.patch_embed.grid_size and images.shape[-2] == images.shape[-1]
        prefix: Tensor = self.get_parameter("cls_token")
        positions = self._positions(grid, trained)
        if self.num_prefix_tokens > 1:
            prefix = torch.cat([prefix, self.get_parameter("reg_token")], dim=1)
        else:
            prefix, positions = prefix + positions[:, :1], positions[:, 1:]
        tokens = patches.flatten(2).transpose(1, 2) + positions
        tokens = torch.cat([prefix.expand(len(images), -1, -1), tokens], dim=1)
        return self.norm(self.blocks(tokens))

    def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
        """Images (B, C, H, W), normalised, to representations (B, r) of either sign."""
        tokens = self.forward_tokens(images)
        if self.representation == "cls":
            return tokens[:, 0]
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)

    def _positions(self, grid: tuple[int, int], trained: bool) -> Tensor:
        """Embeddings (1, [1 +] patches, r) for a grid of patches."""
        embedded = 0 if self.no_embed_class else 1
        learnt = self.get_parameter("pos_embed")
        rows, columns = self.patch_embed.grid_size
        if self.positions == "antialias":
            return resample_abs_pos_embed(
                learnt, list(grid), [rows, columns], num_prefix_tokens=embedded
            )
        if trained:
            return learnt
        table = learnt[:, embedded:].float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        scale = ((grid[0] + 0.1) / rows, (grid[1] + 0.1) / columns)
        table = functional.interpolate(table, scale_factor=scale, mode="bicubic")
        table = table.flatten(2).transpose(1, 2).to(learnt.dtype)
        return torch.cat([learnt[:, :embedded], table], dim=1)
