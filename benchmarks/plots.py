"""Achieved against possible: GB/s of the forward over r and over N, beside those of the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .results import Run, on_gpu
from .tables import heading

_COLOURS = {"float32": "#1f5fa8", "bfloat16": "#c2571a", "float16": "#2f8f5b"}


def save_bandwidth(run: Run, folder: Path) -> Path:
    """Draw ``bandwidth-cpu.png`` or ``bandwidth-cuda.png`` in ``folder``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    over_r, over_n = figure.subplots(1, 2)
    for dtype, sweep in run["sweeps"].items():
        _draw(over_r, sweep["features"], "features", dtype)
        _draw(over_n, sweep["rows"], "rows", dtype)
    points = next(iter(run["sweeps"].values()))
    size = "512 MiB" if on_gpu(run) else "128 MiB"
    over_r.set_title(f"any width: matrices of {size}", fontsize=10)
    over_r.set_xlabel("features r")
    over_r.set_ylim(bottom=0)
    features = points["rows"][0]["features"]
    over_n.set_title(f"any batch: r = {features}; small ones are in the cache", fontsize=10)
    over_n.set_xlabel("rows N")
    over_n.set_yscale("log")
    over_n.yaxis.set_major_formatter("{x:g}")
    for axes in (over_r, over_n):
        axes.set_ylabel("GB/s of reading h")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = over_r.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=len(labels), loc="outside lower center")
    figure.suptitle(f"q_score forward: {heading(run).replace('`', '')}", fontsize=10)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bandwidth-{run['environment']['device_type']}.png"
    figure.savefig(path)
    return path


def _draw(axes: Any, points: list[dict[str, Any]], over: str, dtype: str) -> None:
    x = [point[over] for point in points]
    colour = _COLOURS[dtype]
    limit = [point["limit_gigabytes_per_second"] for point in points]
    axes.plot(x, limit, "--", color=colour, alpha=0.45, linewidth=1.2, label=f"limit, {dtype}")
    speed = [point["gigabytes_per_second"] for point in points]
    axes.plot(x, speed, "o-", color=colour, markersize=3, linewidth=1.6, label=f"q_score, {dtype}")
