"""save_path: accuracy and loss against C."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from qscore_fast.scoring.atomic import replacing


class Point(Protocol):
    """What is drawn of a value of C."""

    @property
    def C(self) -> float: ...
    @property
    def cross_entropy(self) -> float: ...
    @property
    def test_cross_entropy(self) -> float: ...
    @property
    def top1(self) -> float: ...


def save_path(points: Sequence[Point], path: Path) -> None:
    """Draw test accuracy above, and the mean losses of training and test images below; an SVG file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    C = [point.C for point in points]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "qscore-fast"}):
        figure = Figure(figsize=(5.2, 4.4), dpi=150, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(C, [100 * point.top1 for point in points], "o-", color="#0b3d63", markersize=4)
        above.set_ylabel("test top-1 (%)", fontsize=9)
        below.plot(
            C, [p.cross_entropy for p in points], "s--", color="#b4491a", markersize=4,
            markerfacecolor="white", label="training images",
        )  # fmt: skip
        below.plot(
            C, [p.test_cross_entropy for p in points], "o-", color="#0b3d63", markersize=4,
            label="test images",
        )  # fmt: skip
        below.set_ylabel("mean cross-entropy", fontsize=9)
        below.set_xlabel("C, inverse regularisation", fontsize=9)
        below.legend(fontsize=8, frameon=False)
        for axes in (above, below):
            axes.set_xscale("log")
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})
