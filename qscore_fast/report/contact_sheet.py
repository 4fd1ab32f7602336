"""The lowest and the highest scoring images of a run, beside the distribution of its scores."""

from __future__ import annotations

import os
import textwrap
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qscore_fast.images import decode_image, path_of_sample_id
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, ROWS = 8, 3
CAPTION_CHARACTERS = 170  # a line of the figure; two fit below the title
LOW, HIGH, MIDDLE = "#c2410c", "#0f766e", "#94a3b8"
INK, FAINT = "#1e293b", "#64748b"


def save_contact_sheet(
    run: ScoreRun,
    root: str | os.PathLike[str],
    path: str | os.PathLike[str],
    title: str,
    caption: str = "",
) -> None:
    """Save a picture (by the suffix of ``path``: .png, .svg, .pdf) of a run.

    Args:
        run: the run; images of equal score are taken in the order of their ids.
        root: the folder that was scored.
        path: the file to write.
        title: one line above. caption: a line or two below it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = run.scores().select(["sample_id", "label", "q_score"])
    q = scores["q_score"].to_numpy()
    order = np.argsort(q, kind="stable")
    count = min(COLUMNS * ROWS, len(q) // 2 or 1)

    figure = Figure(figsize=(15, 8.4), facecolor="white")
    FigureCanvasAgg(figure)
    lines = textwrap.wrap(caption, CAPTION_CHARACTERS)
    figure.text(0.03, 0.952, title, fontsize=17, weight="bold", color=INK)
    figure.text(0.03, 0.941, "\n".join(lines), fontsize=10.5, color=FAINT, va="top")
    blocks = (
        (order[:count], LOW, 0.49, f"Lowest {count}"),
        (order[::-1][:count], HIGH, 0.035, f"Highest {count}"),
    )
    for chosen, colour, bottom, heading in blocks:
        figure.text(0.03, bottom + 0.386, heading, fontsize=12, weight="bold", color=colour)
        grid = figure.add_gridspec(
            ROWS, COLUMNS, left=0.03, right=0.645, bottom=bottom, top=bottom + 0.352,
            hspace=0.32, wspace=0.12,
        )  # fmt: skip
        for place, row in enumerate(chosen):
            axes = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
            sample_id, label = scores["sample_id"][row].as_py(), scores["label"][row].as_py()
            _draw_image(axes, root, sample_id, label, float(q[row]))
    axes = figure.add_axes((0.695, 0.09, 0.285, 0.752))
    _draw_distribution(axes, q, q[order[count - 1]], q[order[-count]])
    with replacing(Path(path)) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(temporary, dpi=110)


def _draw_image(
    axes: Axes, root: str | os.PathLike[str], sample_id: str, label: str | None, score: float
) -> None:
    image = decode_image(os.path.join(os.fsencode(root), path_of_sample_id(sample_id)))
    image.thumbnail((256, 256))
    axes.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 64 else "auto")
    axes.set_axis_off()
    name = _plain(label if label is not None else sample_id)
    axes.set_title(f"{name}  {score:.3f}", fontsize=8, color=INK, pad=3, parse_math=False)


def _draw_distribution(axes: Axes, q: np.ndarray, low: float, high: float) -> None:
    _, edges, bars = axes.hist(q, bins=min(60, max(10, len(q) // 20)), color=MIDDLE)
    for left, right, bar in zip(edges[:-1], edges[1:], bars, strict=True):  # type: ignore[arg-type]
        if left < low:
            bar.set_facecolor(LOW)
        elif right > high:
            bar.set_facecolor(HIGH)
    median = float(np.median(q))
    axes.axvline(median, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(
        median, 1.01, f"median {median:.3f}", transform=axes.get_xaxis_transform(),
        ha="center", fontsize=9.5, color=INK,
    )  # fmt: skip
    axes.set_xlabel("Q-Score (higher: stronger discriminative features)", fontsize=10.5, color=INK)
    axes.set_ylabel("images", fontsize=10.5, color=INK)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MIDDLE)


def _plain(name: str) -> str:
    """A name that a small title can hold: printable, and its end if it is long."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in name)
    return shown if len(shown) <= 14 else f"...{shown[-11:]}"
