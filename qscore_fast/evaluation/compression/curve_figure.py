"""save_curve: accuracy against the share kept, like the paper's Fig. 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from qscore_fast.scoring.atomic import replacing

# Line, marker and shade together, so that no two look alike in grey.
STYLES = {
    "discriminative": ("-", "o", "#0b3d63", 2.0),
    "random": ("--", "s", "#b4491a", 1.4),
    "top_tail": (":", "^", "#6d6d6d", 1.3),
    "bottom_tail": (":", "v", "#9a9a9a", 1.3),
    "variance": ("-.", "D", "#2c7a5c", 1.3),
    "pca": ((0, (5, 1, 1, 1, 1, 1)), "x", "#7a4a9c", 1.3),
}
NAMES = {"pca": "PCA", "variance": "highest variance"}


def save_curve(
    curves: Mapping[str, Sequence[tuple[float, float, float | None]]],
    full_accuracy: float,
    path: Path,
) -> None:
    """Draw (share, accuracy, spread or None) of every strategy; the suffix says svg, pdf or png.

    The x axis is the reduction, from nothing on the left; the dashed line is the whole representation.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "qscore-fast"}):
        figure = Figure(figsize=(5.2, 3.5), dpi=150, layout="constrained")
        axes = figure.subplots()
        axes.axhline(
            100 * full_accuracy,
            color="#333333",
            linewidth=0.9,
            linestyle=(0, (6, 3)),
            label="all features",
        )
        for name, points in curves.items():
            line, marker, colour, width = STYLES.get(name, ("-", ".", "black", 1.0))
            label = NAMES.get(name, name.replace("_", " "))
            has_spread = any(spread is not None for _, _, spread in points)
            axes.errorbar(
                [100 * (1 - share) for share, _, _ in points],
                [100 * mean for _, mean, _ in points],
                yerr=[100 * (spread or 0) for _, _, spread in points] if has_spread else None,
                linestyle=line, marker=marker, color=colour, linewidth=width, markersize=4.5,
                capsize=2, elinewidth=0.8, label=label, markerfacecolor="white" if marker != "x" else colour,
            )  # fmt: skip
        axes.set_xlabel("features left out (%)", fontsize=9)
        axes.set_ylabel("linear probe, top-1 (%)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="lower left")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=_undated(path))


def _undated(path: Path) -> dict[str, None] | None:
    """Equal curves give equal files."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
