"""The curves of a training as one picture that also reads in grey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qscore_fast.finetuning.watching.log import read_log
from qscore_fast.scoring.atomic import replacing

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("self-supervised loss", ("ssl",)),
    ("Q-Score term of the loss", ("q_term",)),
    ("column term, or lasso", ("column_term", "lasso_term")),
    ("mean Q", ("mean_q",)),
    ("share of rows below alpha", ("below_alpha",)),
    ("concentration of the columns", ("column_gini", "column_top1")),
    ("RankMe of h", ("rankme",)),
    ("normalised standard deviation of h", ("normalised_std",)),
    ("learning rate", ("lr",)),
)
WORDS = {
    "column_term": "column term",
    "lasso_term": "lasso",
    "column_gini": "Gini",
    "column_top1": "share of the top 1 %",
}
# Lightness and dashes tell lines apart without colour.
STYLES = (("#000000", "-"), ("#d55e00", "--"), ("#56b4e9", ":"))


def draw_curves(folder: Path) -> list[Path]:
    """Draw ``curves.svg`` and ``curves.png`` from the log of a training; nothing without a line in it."""
    lines = read_log(folder)
    if not lines:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(title, names) for title, names in PANELS if any(_has(lines, n) for n in names)]
    rows = -(-len(panels) // 2)
    height = 2.1 * rows + 0.4
    figure = Figure(figsize=(9, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.07, right=0.985, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.16, hspace=0.32
    )
    axes = figure.subplots(rows, 2, sharex=True, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_axis_off()
            continue
        title, names = panels[place]
        shown = [name for name in names if _has(lines, name)]
        for name, (colour, dashes) in zip(shown, STYLES, strict=False):
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            marker = "o" if len(points) == 1 else None
            axis.plot(
                *zip(*points, strict=True), dashes, color=colour, linewidth=1.2, marker=marker,
                label=WORDS.get(name),
            )  # fmt: skip
        axis.set_title(title, fontsize=9, loc="left", y=1.0)
        axis.tick_params(labelsize=8)
        # A power of ten above the axis would push the title out of the picture.
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
        axis.grid(alpha=0.3, linewidth=0.5)
        axis.margins(x=0.01)
        if len(shown) > 1:
            axis.legend(fontsize=8, frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("optimiser step", fontsize=8)
    paths = [folder / "curves.svg", folder / "curves.png"]
    for path in paths:
        with replacing(path) as temporary, temporary.open("wb") as file:
            figure.savefig(file, format=path.suffix[1:], dpi=130)
    return paths


def _has(lines: list[dict[str, Any]], name: str) -> bool:
    return any(line.get(name) is not None for line in lines)
