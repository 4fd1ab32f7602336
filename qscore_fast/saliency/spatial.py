"""Activations of any network as a map: (B, C, h, w), from convolutions, windows or tokens."""

from __future__ import annotations

import math

from torch import Tensor, nn

# Class token, registers and whatever else stands before the patches.
MAX_PREFIX = 32


def spatial_view(
    activations: Tensor, image_size: tuple[int, int], patch: tuple[int, int] | None
) -> Tensor | None:
    """``activations`` as (B, C, h, w), a view; None where they are no map of the image.

    Four dimensions are read as (B, C, h, w) or (B, h, w, C), whichever has the image's shape; three as tokens
    (B, T, C) in rows, after class token and registers, which are left out.

    Args:
        image_size: height and width of the image, pixels.
        patch: height and width of a token, where the network has tokens.
    """
    if activations.ndim == 4:
        first, last = activations.shape[2:], activations.shape[1:3]
        if _has_shape_of(image_size, first):
            return activations
        return activations.permute(0, 3, 1, 2) if _has_shape_of(image_size, last) else None
    if activations.ndim != 3:
        return None
    grid = token_grid(activations.shape[1], image_size, patch)
    if grid is None:
        return None
    tokens = activations[:, activations.shape[1] - grid[0] * grid[1] :]
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


def token_grid(
    tokens: int, image_size: tuple[int, int], patch: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Rows and columns of the patches among ``tokens``: by the patch size, or else by the image's shape."""
    height, width = image_size
    if patch is not None:
        rows, columns = math.ceil(height / patch[0]), math.ceil(width / patch[1])
        if 0 <= tokens - rows * columns <= MAX_PREFIX:
            return rows, columns
    for prefix in range(min(MAX_PREFIX, tokens - 1) + 1):
        patches = tokens - prefix
        rows = round(math.sqrt(patches * height / width))
        columns = patches // rows if rows else 0
        if rows * columns == patches and _has_shape_of(image_size, (rows, columns)):
            return rows, columns
    return None


def patch_size(module: nn.Module) -> tuple[int, int] | None:
    """Of the first convolution that cuts its input into patches; None where there is none."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride != (1, 1):
            return layer.stride[0], layer.stride[1]
        if isinstance(layer, nn.Conv2d):
            return None
    return None


def _has_shape_of(image_size: tuple[int, int], map_size: tuple[int, ...]) -> bool:
    """Whether rows and columns are the image's over one stride, rounded to either side."""
    (height, width), (rows, columns) = image_size, map_size
    if not (1 <= rows <= height and 1 <= columns <= width):
        return False
    # Strides of which each side may be the rounded quotient.
    low = max(height / (rows + 1), width / (columns + 1))
    high = min(
        height / (rows - 1) if rows > 1 else math.inf,
        width / (columns - 1) if columns > 1 else math.inf,
    )
    return low < high
