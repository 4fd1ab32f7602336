"""Draw the views of every system's recipe from one image: python examples/draw_views.py IMAGE OUT.png

One row a recipe, drawn several times where it has two views; small crops are shown at their own size.
"""

from __future__ import annotations

import argparse

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from qscore_fast.finetuning.view_recipes import RECIPES
from qscore_fast.finetuning.views import ViewTransform

COLUMNS = 10


def draw_sheet(image: Image.Image, size: int) -> plt.Figure:
    """A figure with a row a recipe: the image, then its views, of several draws as there is room."""
    channels = 1 if image.mode == "L" else 3
    figure, axes = plt.subplots(
        len(RECIPES), 1 + COLUMNS, figsize=(1 + COLUMNS, 1.15 * len(RECIPES))
    )
    for number, (row, name) in enumerate(zip(axes, RECIPES, strict=True)):
        transform = ViewTransform(name, size, [0.0] * channels, [1.0] * channels)
        draws = max(COLUMNS // len(transform.recipe), 1)
        views = [v for draw in range(draws) for v in transform(image, 100 * number + draw)]
        row[0].imshow(image, cmap="gray")
        row[0].set_title(name, fontsize=8, loc="left", pad=2)
        for axis, view in zip(row[1:], views, strict=False):
            share = view.shape[-1] / size
            pixels = view.permute(1, 2, 0).squeeze(-1).numpy()
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, share, share, 0))
            axis.set_xlim(0, 1)
            axis.set_ylim(1, 0)
        for axis in row:
            axis.set_axis_off()
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.98, 0.04, 0.22)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("out")
    parser.add_argument("--size", type=int, default=224, help="side of the full-size views, pixels")
    arguments = parser.parse_args()
    with Image.open(arguments.image) as image:
        image = image.convert("L" if image.mode == "L" else "RGB")
    draw_sheet(image, arguments.size).savefig(arguments.out, dpi=50)


if __name__ == "__main__":
    main()
