"""save_interpretation: how much of the heat lies on core and spurious features, like the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qscore_fast.saliency.bootstrap_means import MeanEstimate
from qscore_fast.saliency.interpretation_rows import KINDS
from qscore_fast.saliency.interpretation_summary import InterpretationSummary
from qscore_fast.scoring.atomic import replacing

MEASURE = "heat_iou"
# Lightness and hatching together, so that no two look alike in grey: one encoder is light, one dark.
FACES = ("#c9d8e6", "#2b5d8a")
HATCHES = {"all": "", "correct": "", "misclassified": "////"}


def save_interpretation(
    summary: InterpretationSummary, encoders: Sequence[str], path: Path, level: float
) -> None:
    """Draw mean mIoU by encoder and outcome, core on the left, spurious on the right; one scale for both.

    Args:
        encoders: their names; the suffix of ``path`` says svg, pdf or png.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = [g for g in summary.groups if g != "all"] or ["all"]
    bars = [(e, g) for e in range(len(encoders)) for g in groups]
    with rc_context(
        {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "qscore-fast",
         "hatch.linewidth": 0.8}
    ):  # fmt: skip
        figure = Figure(figsize=(6.4, 3.4), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for kind, axes in zip(KINDS, panels, strict=True):
            for place, (e, group) in enumerate(bars):
                _bar(axes, place + 0.4 * e, summary.means[e, group, kind, MEASURE], e, group)
            axes.set_title(f"{kind} features", fontsize=9)
            axes.set_xticks(
                [place + 0.4 * e for place, (e, _) in enumerate(bars)],
                [_words(group) for _, group in bars],
                fontsize=7.5,
            )
            axes.tick_params(axis="y", labelsize=8)
            axes.set_axisbelow(True)
            axes.grid(axis="y", alpha=0.3, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlim(-0.8, len(bars) - 0.2 + 0.4 * (len(encoders) - 1))
        panels[0].set_ylim(0, 1.22 * max(panels[0].dataLim.y1, panels[1].dataLim.y1, 0.01))
        panels[0].set_ylabel(f"mIoU, mean and {100 * level:g} % interval", fontsize=8.5)
        if len(encoders) > 1:
            figure.legend(
                handles=[_patch(e, name) for e, name in enumerate(encoders)],
                fontsize=8, frameon=False, loc="outside upper center", ncols=2,
            )  # fmt: skip
        with replacing(path) as temporary:
            undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
            figure.savefig(temporary, format=path.suffix[1:], metadata=undated)


def _bar(axes: Any, place: float, estimate: MeanEstimate, encoder: int, group: str) -> None:
    if estimate.mean is None:
        axes.annotate("no image", (place, 0), ha="center", va="bottom", fontsize=7, rotation=90)
        return
    # Hatching has the edge's colour, which would be lost on the dark face: the outline comes on top.
    axes.bar(
        place, estimate.mean, 0.8, facecolor=FACES[encoder], hatch=HATCHES[group], linewidth=0,
        edgecolor="white" if encoder else "black",
    )  # fmt: skip
    axes.bar(place, estimate.mean, 0.8, facecolor="none", edgecolor="black", linewidth=0.8)
    if estimate.interval is not None:
        low, high = estimate.interval.low, estimate.interval.high
        axes.plot([place, place], [low, high], color="black", linewidth=3.2, solid_capstyle="butt")
        axes.plot([place, place], [low, high], color="white", linewidth=1.4, solid_capstyle="butt")
    top = estimate.mean if estimate.interval is None else max(estimate.mean, estimate.interval.high)
    axes.annotate(
        f"{estimate.mean:.3f}\nn = {estimate.n:,}", (place, top), (0, 3),
        textcoords="offset points", ha="center", va="bottom", fontsize=6.5,
    )  # fmt: skip


def _patch(encoder: int, name: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=FACES[encoder], edgecolor="black", label=_plain(name))


def _plain(name: str) -> str:
    """A name as it is: matplotlib reads $ as the beginning of a formula."""
    short = name if len(name) <= 40 else f"...{name[-37:]}"
    return short.replace("$", r"\$")


def _words(group: str) -> str:
    return {"all": "all images"}.get(group, group)
