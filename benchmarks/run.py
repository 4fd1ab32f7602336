"""``make bench``: run the suite, print the acceptance table, keep the result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qscore_fast.errors import SettingsError

from . import tables
from .plans import DTYPES
from .results import RESULTS, Run, write
from .suite import FULL_SECONDS, run_suite


def report(run: Run) -> list[str]:
    """The lines to print: every case, and last the acceptance table, or after a quick run the sweep."""
    last = tables.extremes(run) if run["quick"] else tables.acceptance(run)
    return [
        tables.heading(run),
        "",
        *tables.terminal(tables.measurements(run), 3),
        "",
        *tables.terminal(last, 3),
    ]


def wrong(run: Run) -> list[str]:
    """The cases that have no time because a result was wrong."""
    return [f"{row['operation']}: {row['error']}" for row in run["results"] if "error" in row]


def main(arguments: list[str] | None = None, seconds: float = FULL_SECONDS) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--threads", type=int, help="threads of the CPU")
    parser.add_argument("--quick", action="store_true", help="about a minute; not published")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    try:
        run = run_suite(
            options.device,
            tuple(options.dtypes),
            options.quick,
            options.threads,
            seconds,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except SettingsError as error:
        parser.error(str(error))
    path = write(run, options.out)
    print("\n".join([*report(run), "", *wrong(run), f"written to {path}"]))
    return 1 if wrong(run) else 0


if __name__ == "__main__":
    sys.exit(main())
