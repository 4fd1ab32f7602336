"""``run_suite``: everything that is measured in one run, as one record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from qscore_fast.errors import SettingsError

from .data import make_features
from .environment import describe
from .measure import measure
from .overhead import cpu_overhead, gpu_overhead
from .plans import DTYPES, Case, plan
from .sweeps import sweep
from .threads import thread_scaling

SCHEMA = 2
FULL_SECONDS = 500.0
"""After this no slow comparator is started; what is under way is finished."""


def run_suite(
    device: str | None = None,
    dtypes: tuple[str, ...] = DTYPES,
    quick: bool = False,
    threads: int | None = None,
    seconds: float = FULL_SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the kernels on this machine.

    Args:
        device: "cpu", "cuda" or "cuda:1"; None for the GPU if there is one.
        dtypes: of "float32", "bfloat16" and "float16".
        quick: smaller matrices and fewer cases: about a minute on two cores.
        threads: of the CPU; None for PyTorch's own number.
        seconds: the time from which ``torch.compile``, eager and NumPy are left out.
        say: hears what is being measured, a line at a time.

    Returns:
        schema, environment, quick, results (one a case), sweeps, threads and overhead. A case whose result
        differs from the float64 reference has an ``error`` instead of times.

    Raises:
        SettingsError: there is no such device or dtype, or no thread.
    """
    where = _device(device)
    _check_dtypes(dtypes)
    deadline = time.monotonic() + seconds
    with _threads(threads):
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "environment": describe(where),
            "quick": quick,
            "results": _results(plan(where.type, quick, dtypes), where, quick, deadline, say),
        }
        say("sweeps over r and N")
        record["sweeps"] = {dtype: sweep(where, dtype, quick) for dtype in dtypes}
        say("overhead and threads")
        if where.type == "cuda":
            record["overhead"] = gpu_overhead(where)
        else:
            record["overhead"] = cpu_overhead()
            rows = 16384 if quick else 65536
            record["threads"] = thread_scaling(make_features(rows, 2048, torch.float32, where))
    return record


def _results(
    cases: list[Case],
    device: torch.device,
    quick: bool,
    deadline: float,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    results = []
    matrix = _Matrix(device)
    for number, case in enumerate(cases, 1):
        say(
            f"{number} of {len(cases)}: {case.operation}, {case.rows} x {case.features}, "
            f"{case.dtype}{', freed memory kept' if case.keep_freed else ''}"
        )
        against = case.against if time.monotonic() < deadline else ()
        rounds, seconds = (7, 1.0) if quick else (15, 4.0)
        results.append(measure(case, matrix(case), against, rounds, seconds))
    return results


class _Matrix:
    """The matrix of a case, made anew where the shape or the dtype changes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.key: tuple[int, int, str] | None = None
        self.h = torch.empty(0)

    def __call__(self, case: Case) -> Tensor:
        key = (case.rows, case.features, case.dtype)
        if key != self.key:
            self.h = torch.empty(0)  # before the next one is made
            kind = getattr(torch, case.dtype)
            self.h = make_features(case.rows, case.features, kind, self.device)
            self.key = key
        return self.h


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"device is {name!r}; choose cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device is {name!r}; only cpu and cuda have kernels to measure")
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise SettingsError(
                f"device is {name!r} but torch sees {torch.cuda.device_count()} CUDA or ROCm devices; "
                "choose cpu, or install a torch built for your GPU"
            )
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def _check_dtypes(dtypes: tuple[str, ...]) -> None:
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise SettingsError(f"dtype is {dtype!r}; choose of {', '.join(DTYPES)}")
    if not dtypes:
        raise SettingsError(f"no dtype is given; choose of {', '.join(DTYPES)}")


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}; it must be 1 or more")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
