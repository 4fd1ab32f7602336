"""A run as text: the acceptance table, the measurements, and the short table of the README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .plans import BFLOAT16, CPU_SHAPES, FLOAT16, FLOAT32, GPU_SHAPES, SMALL
from .results import Run, find, on_gpu, speedup
from .targets import BACKWARD, FORWARD, LOSS, verdicts

Table = tuple[list[str], list[list[str]]]
"""The heads, and the rows; the first columns are text, the others figures."""

_MEASURES = ["ms", "GB/s", "% of limit", "vs `torch.compile`", "vs eager", "vs NumPy"]
_CPU_SHORT = (
    *((FORWARD, *shape, FLOAT32, False) for shape in CPU_SHAPES),
    (FORWARD, *CPU_SHAPES[0], BFLOAT16, False),
    (FORWARD, *CPU_SHAPES[0], FLOAT16, False),
    *((name, *CPU_SHAPES[0], FLOAT32, False) for name in ("score_rows", "row_stats")),
    (BACKWARD, *CPU_SHAPES[0], FLOAT32, True),
    (LOSS, *CPU_SHAPES[0], FLOAT32, True),
    (LOSS, *CPU_SHAPES[0], FLOAT32, False),
    (LOSS, *SMALL, FLOAT32, False),
)
_GPU_SHORT = (
    *((FORWARD, *shape, BFLOAT16, False) for shape in GPU_SHAPES),
    (FORWARD, *GPU_SHAPES[0], FLOAT32, False),
    *((name, *GPU_SHAPES[0], BFLOAT16, False) for name in (BACKWARD, LOSS, "score_rows")),
    (LOSS, *SMALL, BFLOAT16, False),
)


def heading(run: Run) -> str:
    """Device, versions, date and commit in one line."""
    environment = run["environment"]
    where, threads = environment["device"], environment["threads"]
    if not on_gpu(run):
        where += f", {threads} thread{'s' * (threads != 1)}"
    return (
        f"{where}, {environment['backend']}, torch {environment['torch']}, "
        f"{environment['date'][:10]}"
        + (f" (`{environment['commit']}`)" if environment["commit"] else "")
    )


def short(run: Run) -> Table:
    """The rows that a user of the library cares about first."""
    cases = _GPU_SHORT if on_gpu(run) else _CPU_SHORT
    rows = [find(run, name, n, r, dtype, keep_freed=kept) for name, n, r, dtype, kept in cases]
    heads = ["operation", "N x r", "dtype", *_MEASURES]
    return heads, [[*_case(row), *_measures(row)] for row in rows if row]


def measurements(run: Run) -> Table:
    """Every case of the run."""
    heads = ["operation", "N x r", "dtype", *_MEASURES, "peak memory, MiB"]
    rows = []
    for row in run["results"]:
        if "error" in row:
            rows.append([*_case(row), "wrong", *[""] * len(_MEASURES)])
            continue
        peak = row["peak_memory"]["ours"]
        rows.append([*_case(row), *_measures(row), "" if peak is None else f"{peak / 2**20:.1f}"])
    return heads, rows


def acceptance(run: Run) -> Table:
    """Every target, what this run measured, and whether it is reached."""
    rows = []
    for verdict in verdicts(run):
        target, value = verdict.target, verdict.value
        measured = "" if value is None else f"{value:.3g}{target.unit}"
        rows.append([target.what, target.against, target.bound_text(), measured, verdict.reached])
    return ["what", "against", "target", "measured", "reached"], rows


def extremes(run: Run) -> Table:
    """The sweeps in a few figures: the slowest and the fastest r of every dtype, from r = 64 on."""
    rows = []
    for dtype, sweep in run["sweeps"].items():
        points = [point for point in sweep["features"] if point["features"] >= 64]
        for name, choose in (("slowest", min), ("fastest", max)):
            point: dict[str, Any] = choose(points, key=lambda p: p["gigabytes_per_second"])
            rows.append(
                [
                    f"{name} r",
                    f"{point['rows']} x {point['features']}",
                    dtype,
                    f"{point['gigabytes_per_second']:.1f}",
                    f"{point['limit_gigabytes_per_second']:.1f}",
                ]
            )
    return ["`q_score` over r", "N x r", "dtype", "GB/s", "GB/s of the limit"], rows


def _case(row: dict[str, Any]) -> list[str]:
    name = row["operation"]
    if row["keep_freed"]:
        name += ", freed memory kept"
    return [name, f"{row['rows']} x {row['features']}", row["dtype"]]


def _measures(row: dict[str, Any]) -> list[str]:
    faster = [speedup(row, name) for name in ("compiled", "eager", "numpy")]
    return [
        f"{1e3 * row['seconds']['ours']:.3g}",
        f"{row['gigabytes_per_second']:.1f}",
        f"{100 / row['times_limit']:.0f}",
        *("" if factor is None else f"{factor:.1f}x" for factor in faster),
    ]


def markdown(table: Table, text_columns: int) -> str:
    """As a table of Markdown; columns after the first ``text_columns`` are aligned right."""
    heads, rows = table
    ruler = ["---" if i < text_columns else "---:" for i in range(len(heads))]
    return "\n".join(
        f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in ([heads, ruler, *rows])
    )


def terminal(table: Table, text_columns: int) -> list[str]:
    """As lines of aligned columns."""
    heads, rows = [[cell.replace("`", "") for cell in table[0]], table[1]]
    rows = [[cell.replace("`", "") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return [line(heads), *map(line, rows)]
