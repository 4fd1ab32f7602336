"""The gains over the control beside the paper's gains over its base."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qscore_fast.scoring.atomic import replacing

from .gains import System, arms_of, gain
from .published import NAMES, of_system

# Shape and filling tell the arms apart, not the colour.
MARKS = {
    "qscore": ("o", "#111111", "#111111", "Q-Score over control"),
    "lasso": ("s", "#777777", "white", "lasso over control"),
}


def save_gains(systems: list[System], path: Path) -> None:
    """Draw the linear probe's gains, in points, with their 95 % intervals; .svg, .pdf or .png by suffix."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    at = np.arange(len(systems))[::-1]
    arms = [arm for arm in MARKS if arm in arms_of(systems)]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "qscore-fast"}):
        figure = Figure(figsize=(7.0, 0.9 + 0.33 * len(systems)), dpi=150, layout="constrained")
        ours, theirs = figure.subplots(1, 2, sharey=True)
        for number, arm in enumerate(arms):
            shape, edge, face, label = MARKS[arm]
            shift = 0.16 * (0.5 - number) * (len(arms) > 1) * 2
            found = [gain(system, arm, "linear") for system in systems]
            known = [(y, one) for y, one in zip(at, found, strict=True) if one is not None]
            ours.errorbar(
                [100 * one.mean for _, one in known], [y + shift for y, _ in known],
                xerr=[100 * (one.half_width or 0) for _, one in known], fmt=shape, color=edge,
                markerfacecolor=face, markersize=5, linewidth=1.1, capsize=2, label=label,
            )  # fmt: skip
        for number, (shape, face, label) in enumerate(
            (("D", "#111111", "ImageNet-100"), ("D", "white", "ImageNet-1K"))
        ):
            pairs = [
                (y, paper[number])
                for y, system in zip(at, systems, strict=True)
                if (paper := of_system(system["system"])) is not None
            ]
            theirs.plot(
                [after - before for _, (before, after) in pairs], [y for y, _ in pairs], shape,
                color="#111111", markerfacecolor=face, markersize=5, label=label,
            )  # fmt: skip
        ours.set_yticks(at, [NAMES[system["system"]] for system in systems])
        ours.set_xlabel("points of top-1, here", fontsize=9)
        theirs.set_xlabel("points of top-1, the paper (Q-Score over base)", fontsize=9)
        for axes in (ours, theirs):
            axes.axvline(0, color="#777777", linewidth=0.8, linestyle=(0, (4, 3)))
            axes.tick_params(labelsize=8)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_ylim(-0.7, len(systems) - 0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(fontsize=8, frameon=False, loc="outside upper center", ncols=4)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
