"""Fills the marked blocks of README.md and docs/performance.md from the newest results, and draws the plots.

So no figure there is typed by hand: ``python -m benchmarks.publish``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from . import plots, tables
from .environment import ROOT
from .results import Run, newest

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"

NOTHING = "Not measured yet."

BLOCKS: dict[str, Callable[[Run], str]] = {
    "kernels": lambda run: tables.markdown(tables.short(run), 3),
    "targets": lambda run: tables.markdown(tables.acceptance(run), 3),
    "measurements": lambda run: tables.markdown(tables.measurements(run), 3),
    "sweep": lambda run: tables.markdown(tables.extremes(run), 3),
}
"""What stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``, for every device."""


def filled(text: str, runs: list[Run]) -> str:
    """``text`` with its blocks rendered from ``runs``. Raises ValueError for a block that nothing fills."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise ValueError(f"no block is named {name!r}; choose of {', '.join(BLOCKS)}")
        parts = [f"{tables.heading(run)}:\n\n{BLOCKS[name](run)}" for run in runs]
        body = "\n\n".join(parts) or NOTHING
        return f"<!-- {name}: begin -->\n{body}\n<!-- {name}: end -->"

    return re.sub(
        r"<!-- (?P<name>[\w-]+): begin -->.*?<!-- (?P=name): end -->", block, text, flags=re.S
    )


def main(files: tuple[Path, ...] = (README, PERFORMANCE), images: Path = IMAGES) -> None:
    runs = newest()
    for file in files:
        file.write_text(filled(file.read_text(), runs))
    # One plot a kind of device: of two CPUs, the one measured last.
    for run in sorted(runs, key=lambda run: run["environment"]["date"]):
        print(f"drawn {plots.save_bandwidth(run, images)}")


if __name__ == "__main__":
    main()
