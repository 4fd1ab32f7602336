"""Many pictures with their titles on one sheet, in rows."""

from __future__ import annotations

import os
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

INK, FAINT = "#1e293b", "#64748b"
PANEL_INCHES = 1.55
SMALL = 96  # pixels of a side, below which a picture is shown with its pixels


class Panel(NamedTuple):
    """One picture: uint8 (height, width, 3), and what stands above it."""

    pixels: np.ndarray
    title: str = ""


class SheetRow(NamedTuple):
    """Pictures side by side, below a heading if there is one."""

    panels: Sequence[Panel]
    heading: str = ""


def save_sheet(
    path: str | os.PathLike[str], rows: Sequence[SheetRow], title: str, caption: str
) -> Path:
    """Write a sheet by the suffix of ``path`` (.png, .svg, .pdf), whole or not at all.

    Args:
        title: one line above. caption: lines below it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from qscore_fast.scoring.atomic import replacing

    columns = max(len(row.panels) for row in rows)
    width = max(6.5, 0.6 + columns * PANEL_INCHES)
    lines = textwrap.wrap(caption, int(width * 13))
    top = 0.6 + 0.19 * len(lines)
    heights = [PANEL_INCHES + (0.36 if row.heading else 0.1) for row in rows]
    height = top + sum(heights) + 0.1
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        0.3 / width, 1 - 0.42 / height, plain(title, 90), fontsize=14, weight="bold", color=INK,
        parse_math=False,
    )  # fmt: skip
    figure.text(
        0.3 / width, 1 - 0.56 / height, "\n".join(lines), fontsize=9, color=FAINT, va="top",
        parse_math=False,
    )  # fmt: skip
    y = height - top
    for row, row_height in zip(rows, heights, strict=True):
        if row.heading:
            figure.text(
                0.3 / width, (y - 0.33) / height, plain(row.heading, 110), fontsize=10,
                weight="bold", color=INK, parse_math=False,
            )  # fmt: skip
        y -= row_height
        for column, panel in enumerate(row.panels):
            side = PANEL_INCHES - 0.26
            axes = figure.add_axes(
                ((0.3 + column * PANEL_INCHES) / width, y / height, side / width, side / height)
            )
            small = max(panel.pixels.shape[:2]) < SMALL
            axes.imshow(panel.pixels, interpolation="nearest" if small else "auto")
            axes.set_axis_off()
            axes.set_title(panel.title, fontsize=7, color=INK, pad=2.5, parse_math=False)
    target = Path(path)
    with replacing(target) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(temporary, dpi=130)
    return target


def plain(name: str, length: int) -> str:
    """A name that a title can hold: printable, and its end if it is long."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in name)
    return shown if len(shown) <= length else f"...{shown[3 - length :]}"
