"""The acceptance table as data: what is to be reached, and what a run reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .plans import BFLOAT16, CPU_SHAPES, FLOAT16, FLOAT32, GPU_SHAPES, SMALL
from .results import Run, find, on_gpu, speedup

BACKWARD = "q_score backward"
FORWARD = "q_score forward"
LOSS = "q_score_loss forward + backward"
WIDE = 64  # below this r the sweep is not held to its bound


@dataclass(frozen=True)
class Target:
    """One row: a value of a run, and the bound that it must keep."""

    what: str
    against: str
    bound: float
    at_least: bool
    unit: str
    value: Callable[[Run], float | None]

    def bound_text(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}{self.unit}"

    def reached(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """What a run says to a target; ``value`` is None where it was not measured."""

    target: Target
    value: float | None

    @property
    def reached(self) -> str:
        if self.value is None:
            return "not measured"
        return "yes" if self.target.reached(self.value) else "no"


def verdicts(run: Run) -> list[Verdict]:
    """The targets of the run's kind of device, with what it reached."""
    targets = gpu_targets() if on_gpu(run) else cpu_targets()
    return [Verdict(target, target.value(run)) for target in targets]


# ---- values of a run ------------------------------------------------------------------------------


def _times_limit(*case: Any, keep_freed: bool = False) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        row = find(run, *case, keep_freed=keep_freed)
        return row["times_limit"] if row else None

    return value


def _percent_of_limit(*case: Any) -> Callable[[Run], float | None]:
    times = _times_limit(*case)

    def value(run: Run) -> float | None:
        found = times(run)
        return 100 / found if found else None

    return value


def _speedup(
    comparator: str, *case: Any, keep_freed: bool = False
) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        row = find(run, *case, keep_freed=keep_freed)
        return speedup(row, comparator) if row else None

    return value


def _call_overhead(run: Run) -> float | None:
    overhead = run["overhead"]
    return 1e6 * (overhead["q_score"] - overhead["native"]) if overhead else None


def _two_threads(key: str) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        points = {point["threads"]: point for point in run["threads"]}
        return points[1][key] / points[2][key] if 2 in points else None

    return value


def _worst_of_best(dtype: str) -> Callable[[Run], float | None]:
    def value(run: Run) -> float | None:
        points = run["sweeps"].get(dtype, {}).get("features", ())
        speeds = [p["gigabytes_per_second"] for p in points if p["features"] >= WIDE]
        return 100 * min(speeds) / max(speeds) if speeds else None

    return value


def _gpu_call(call: str, key: str, scale: float = 1) -> Callable[[Run], float | None]:
    return lambda run: scale * run["overhead"]["calls"][call][key]


# ---- the tables -----------------------------------------------------------------------------------


def _at(shape: tuple[int, int], dtype: str) -> str:
    return f"{shape[0]} x {shape[1]}, {dtype}"


def cpu_targets() -> list[Target]:
    rows = []
    for shape in CPU_SHAPES:
        case = (FORWARD, *shape, FLOAT32)
        what = f"`q_score`, {_at(shape, FLOAT32)}"
        rows += [
            Target(what, "one read, same threads", 1.20, False, "x", _times_limit(*case)),
            Target(what, "`torch.compile`", 7, True, "x", _speedup("compiled", *case)),
            Target(what, "eager", 70, True, "x", _speedup("eager", *case)),
        ]
    for dtype in (BFLOAT16, FLOAT16):
        for shape in CPU_SHAPES:
            what = f"`q_score`, {_at(shape, dtype)}"
            value = _times_limit(FORWARD, *shape, dtype)
            rows.append(Target(what, "one read of the 16-bit matrix", 1.6, False, "x", value))
    for shape in CPU_SHAPES:
        what = f"backward of `q_score`, {_at(shape, FLOAT32)}"
        value = _times_limit(BACKWARD, *shape, FLOAT32, keep_freed=True)
        rows.append(Target(what, "one copy", 1.25, False, "x", value))
    for shape in CPU_SHAPES:
        what = f"`q_score_loss` forward + backward, {_at(shape, FLOAT32)}"
        value = _times_limit(LOSS, *shape, FLOAT32, keep_freed=True)
        rows.append(Target(what, "one read + one copy", 1.35, False, "x", value))
    for shape in CPU_SHAPES:
        what = f"`score_rows`: everything in one pass, {_at(shape, FLOAT32)}"
        value = _times_limit("score_rows", *shape, FLOAT32, keep_freed=True)
        rows.append(Target(what, "one read", 1.8, False, "x", value))
    small = _speedup("eager", LOSS, *SMALL, FLOAT32)
    return [
        *rows,
        Target("overhead of `q_score`, 1 x 2048, no gradient", "the raw native call", 12, False,
               " us", _call_overhead),
        Target(f"`q_score_loss` forward + backward, {_at(SMALL, FLOAT32)}", "eager", 8, True, "x",
               small),
        Target(f"2 threads, `q_score`, {_at(CPU_SHAPES[0], FLOAT32)}", "1 thread", 1.8, True, "x",
               _two_threads("seconds")),
        *(Target(f"worst r of the sweep, r >= {WIDE}, {dtype}", "GB/s at the best r", 60, True, " %",
                 _worst_of_best(dtype)) for dtype in (FLOAT32, BFLOAT16, FLOAT16)),
    ]  # fmt: skip


def gpu_targets() -> list[Target]:
    rows = []
    for dtype in (BFLOAT16, FLOAT32):
        for shape in sorted(GPU_SHAPES, key=lambda shape: shape[1]):
            at = _at(shape, dtype)
            rows += [
                Target(f"`q_score`, {at}", "copy bandwidth", 92, True, " %",
                       _percent_of_limit(FORWARD, *shape, dtype)),
                Target(f"backward of `q_score`, {at}", "copy bandwidth", 90, True, " %",
                       _percent_of_limit(BACKWARD, *shape, dtype)),
                Target(f"`q_score_loss` forward + backward, {at}", "its traffic", 1.15, False, "x",
                       _times_limit(LOSS, *shape, dtype)),
            ]  # fmt: skip
    for operation, title in ((FORWARD, "`q_score`"), (LOSS, "`q_score_loss` forward + backward")):
        for dtype in (BFLOAT16, FLOAT32):
            case = (operation, *GPU_SHAPES[0], dtype)
            what = f"{title}, {_at(GPU_SHAPES[0], dtype)}"
            rows += [
                Target(what, "`torch.compile`", 1.5, True, "x", _speedup("compiled", *case)),
                Target(what, "eager", 10, True, "x", _speedup("eager", *case)),
            ]
    loss = f"`q_score_loss` forward + backward, {SMALL[0]} x {SMALL[1]}"
    return [
        *rows,
        Target(loss, "launches", 4, False, "", _gpu_call(LOSS, "launches")),
        Target(f"{loss}, replayed from a CUDA graph", "the same result: 1", 1, True, "",
               _gpu_call(LOSS, "captured")),
        Target(f"{loss}: two calls", "host time", 60, False, " us",
               _gpu_call(LOSS, "host_seconds", 1e6)),
        Target(f"`q_score`, {SMALL[0]} x {SMALL[1]}: one call", "host time", 30, False, " us",
               _gpu_call(FORWARD, "host_seconds", 1e6)),
    ]  # fmt: skip
