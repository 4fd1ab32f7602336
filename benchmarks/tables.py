"""Writes the newest results into the table of README.md, so that no figure there is typed by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.bench_kernels import RESULTS
from benchmarks.environment import ROOT

BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"


def newest(folder: Path) -> dict[str, Any] | None:
    files = sorted(folder.glob("kernels-*.json"))
    return json.loads(files[-1].read_text()) if files else None


def render(run: dict[str, Any]) -> str:
    environment = run["environment"]
    lines = [
        f"{environment['device']}, {environment['threads']} threads, {environment['backend']}, "
        f"torch {environment['torch']}, {environment['date'][:10]} (`{environment['commit']}`):",
        "",
        "| operation | N x r | dtype | ms | GB/s | time / limit | vs `torch.compile` | vs eager |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in run["results"]:
        head = f"| {row['operation']} | {row['rows']} x {row['features']} | {row['dtype']} |"
        if "error" in row:
            lines.append(f"{head} {row['error']} | | | | |")
            continue
        lines.append(
            f"{head} {row['seconds']['ours'] * 1e3:.2f} | {row['gigabytes_per_second']:.1f} "
            f"| {row['times_limit']:.2f} | {row['speedup_over_compile']:.1f}x "
            f"| {row['speedup_over_eager']:.1f}x |"
        )
    return "\n".join(lines)


def updated(text: str) -> str:
    """The README with its table rendered from the newest result of every device."""
    runs = [run for folder in sorted(RESULTS.glob("*")) if (run := newest(folder))]
    rendered = "\n\n".join(render(run) for run in runs)
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    if not pattern.search(text):
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{rendered}\n{END}", text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text()))
