"""The features in the order of how often they fire, like the paper's Fig. 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qscore_fast.scoring.atomic import replacing


def save_activation_figure(
    percent: np.ndarray, in_d: np.ndarray, lower: float, upper: float, path: Path
) -> None:
    """Draw A_j (r,) in per cent, ascending, with the features of D marked; .svg, .pdf or .png by suffix."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    order = np.argsort(percent, kind="stable")
    heights, chosen = percent[order], in_d[order]
    x = np.arange(len(order))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "qscore-fast"}):
        figure = Figure(figsize=(5.2, 3.0), dpi=150, layout="constrained")
        axes = figure.subplots()
        axes.fill_between(
            x, heights, where=chosen, step="mid", color="#9db8cc", hatch="///", edgecolor="#0b3d63",
            linewidth=0, label=f"discriminative: {lower:g}th to {upper:g}th percentile",
        )  # fmt: skip
        axes.plot(x, heights, drawstyle="steps-mid", color="#222222", linewidth=1.2)
        inside = np.flatnonzero(chosen)
        if len(inside):
            for at in (inside[0], inside[-1]):
                axes.vlines(
                    at, 0, heights[at], color="#222222", linewidth=1.0, linestyle=(0, (4, 3))
                )
        axes.set_xlim(0, len(order) - 1)
        axes.set_ylim(bottom=0)
        dead = int((percent == 0).sum())
        axes.set_xlabel(
            f"features, by how often they fire ({len(order)}, {dead} of them never)", fontsize=9
        )
        axes.set_ylabel("samples in which it fires (%)", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
