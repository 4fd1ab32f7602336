"""``python -m benchmarks.serve``: how long the server of a run takes for its answers, over HTTP.

The run is a synthetic one of any size, as ``benchmarks.store`` makes them, or one that is there. Every
question is asked once cold, the server having just started, and then again; a search is a new word each time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import torch

import qscore_fast as qf

from .environment import describe
from .results import RESULTS, write
from .store import make_store

REPEATS = 4
INDEX = ".serve-index.duckdb"


def questions(rows: int, labels: int) -> dict[str, list[dict[str, Any]]]:
    """What is asked, by name: the same question again, or searches for different words."""
    middle, label = rows // 2, labels // 2
    plain: dict[str, dict[str, Any]] = {
        "by score, the first page": {},
        "by score, from the middle": {"offset": middle},
        "by file name, from the middle": {"sort": "name", "offset": middle},
        "by active features, descending": {"sort": "active", "descending": True},
        "one class": {"label": label},
        "one class by file name, descending": {
            "label": label, "sort": "name", "descending": True,
        },
        "a range of scores": {"least": 0.2, "most": 0.3},
        "a range of scores by norm, descending": {
            "least": 0.2, "most": 0.3, "sort": "norm", "descending": True,
        },
    }  # fmt: skip
    found = {name: [question] * REPEATS for name, question in plain.items()}
    found["a search that finds one image"] = [
        {"search": f"n{label:08d}_{number}."} for number in range(REPEATS)
    ]
    found["a search that finds nothing"] = [
        {"search": f"zebra {number}"} for number in range(REPEATS)
    ]
    found["a search that finds one image a class"] = [
        {"search": f"_{number}.", "sort": "name"} for number in range(20, 20 + REPEATS)
    ]
    found["a search that finds a tenth"] = [
        {"search": f"_{number}"} for number in range(1, 1 + REPEATS)
    ]
    found["the next page of a search"] = [
        {"search": "_20.", "sort": "name", "offset": 60}
    ] * REPEATS
    return found


def measure(run: Path) -> dict[str, Any]:
    """Start the server, ask, end it."""
    index = run / INDEX
    index.unlink(missing_ok=True)
    built = _started(run)[1]
    process, warm, address = _started(run, stay=True)
    assert process is not None
    token, port = address.partition("token=")[2], urlsplit(address).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(question: dict[str, Any]) -> tuple[float, Any]:
        start = time.perf_counter()
        connection.request(
            "GET", f"/images?{urlencode(question)}", headers={"Authorization": f"Bearer {token}"}
        )
        body = connection.getresponse().read()
        return time.perf_counter() - start, json.loads(body)

    try:
        rows = ask({})[1]["total"]
        labels = max(1, rows // 1300)
        results = {}
        for name, asked in questions(rows, labels).items():
            before = _cpu_seconds(process.pid)
            answers = [ask(question) for question in asked]
            used = (_cpu_seconds(process.pid) - before) / len(asked)
            results[name] = {
                "seconds": [seconds for seconds, _ in answers],
                "cpu_seconds": used,
                "total": answers[0][1]["total"],
            }
            shown = ", ".join(f"{1000 * seconds:.0f}" for seconds, _ in answers)
            print(f"{name:<42}{shown:>24} ms   {1000 * used:6.0f} ms of CPU")
    finally:
        process.terminate()
        process.wait(60)
    return {
        "rows": rows,
        "index_bytes": index.stat().st_size,
        "start_seconds": {"with the index to make": built, "with the index there": warm},
        "load_average": os.getloadavg()[0],
        "results": results,
    }


def _started(run: Path, stay: bool = False) -> tuple[subprocess.Popen[str] | None, float, str]:
    """A server, the seconds until it answered, and its address."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "qscore_fast.cli", "serve", str(run), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    seconds = time.perf_counter() - start
    if stay:
        return process, seconds, address
    process.terminate()
    process.wait(60)
    return None, seconds, address


def _cpu_seconds(pid: int) -> float:
    """Of a process so far, all threads together; from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> int:
    """Measure one run; the command's entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="images of the synthetic run")
    parser.add_argument("--run", type=Path, help="a run of benchmarks.store instead")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="qscore-serve-") as folder:
        run = options.run
        if run is None:
            run = Path(folder) / "run"
            make_store(run, options.rows, 256, 16_384)
            qf.rescore(run, eps=3.0)
        found = measure(run)
    content = {
        "schema": "qscore-fast.serve.1",
        "environment": describe(torch.device("cpu")),
        **found,
    }
    print(f"written {write(content, options.out, 'serve')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
