"""What is measured, in which order: the cases of a full run and of a quick one."""

from __future__ import annotations

from dataclasses import dataclass

from .operations import OPERATIONS

FLOAT32, BFLOAT16, FLOAT16 = "float32", "bfloat16", "float16"
DTYPES = (FLOAT32, BFLOAT16, FLOAT16)

CPU_SHAPES = ((65536, 2048), (200000, 512), (100000, 768))
GPU_SHAPES = tuple((2**27 // features, features) for features in (2048, 512, 768, 4096))
SMALL = (256, 2048)
QUICK = (16384, 2048)

EVERYTHING = ("compiled", "eager", "numpy")
GRADIENTS = ("q_score backward", "q_score_loss forward + backward")


@dataclass(frozen=True)
class Case:
    """One operation on one matrix, and the comparators that it is timed against."""

    operation: str
    rows: int
    features: int
    dtype: str
    against: tuple[str, ...] = ()
    keep_freed: bool = (
        False  # with an allocator that keeps freed memory: CPU, results of matrix size
    )


def _cases(
    operations: tuple[str, ...],
    shape: tuple[int, int],
    dtype: str,
    against: tuple[str, ...] = (),
    keep_freed: bool = False,
) -> list[Case]:
    return [Case(operation, *shape, dtype, against, keep_freed) for operation in operations]


def _cpu() -> list[Case]:
    large, *others = CPU_SHAPES
    forward = ("q_score forward",)
    cases = [
        *_cases(forward, large, FLOAT32, EVERYTHING),
        *_cases(GRADIENTS, large, FLOAT32, ("compiled",), True),
        *_cases(GRADIENTS, large, FLOAT32, ("eager",)),
        *_cases(("score_rows",), large, FLOAT32, keep_freed=True),
        *_cases(("score_rows", "sparse_activations"), large, FLOAT32, EVERYTHING),
        *_cases(("row_stats", "activation_counts"), large, FLOAT32, EVERYTHING),
        *_cases(("q_score_loss forward",), large, FLOAT32),
        *_cases(("q_score forward + backward",), large, FLOAT32, ("compiled",), True),
    ]
    for dtype in (BFLOAT16, FLOAT16):
        cases += _cases(forward, large, dtype, ("compiled", "eager"))
        cases += _cases(GRADIENTS, large, dtype, keep_freed=True)
        cases += _cases(("score_rows", "row_stats"), large, dtype)
    for shape in others:
        cases += _cases(forward, shape, FLOAT32, EVERYTHING)
        for dtype in (BFLOAT16, FLOAT16):
            cases += _cases(forward, shape, dtype)
        cases += _cases(GRADIENTS, shape, FLOAT32, keep_freed=True)
        cases += _cases(("score_rows",), shape, FLOAT32, keep_freed=True)
    cases += _cases(forward, SMALL, FLOAT32, EVERYTHING)
    cases += _cases(("q_score_loss forward + backward",), SMALL, FLOAT32, ("compiled", "eager"))
    cases += _cases(("score_rows",), SMALL, FLOAT32, ("eager",))
    return cases


def _gpu() -> list[Case]:
    cases = []
    main = ("q_score forward", "q_score_loss forward + backward")
    for shape in GPU_SHAPES:
        for dtype in (BFLOAT16, FLOAT32):
            first = shape == GPU_SHAPES[0]
            cases += _cases(main, shape, dtype, ("compiled", "eager") if first else ("eager",))
            against = ("compiled", "eager") if first and dtype == BFLOAT16 else ("eager",)
            cases += _cases(("q_score backward",), shape, dtype, against)
    rest = ("score_rows", "row_stats", "activation_counts", "sparse_activations")
    cases += _cases(rest, GPU_SHAPES[0], BFLOAT16, ("compiled", "eager"))
    cases += _cases(main, SMALL, BFLOAT16, ("compiled", "eager"))
    return cases


def _quick() -> list[Case]:
    operations = tuple(OPERATIONS)
    return [
        *_cases(("q_score forward",), QUICK, FLOAT32, EVERYTHING),
        *_cases(operations[1:], QUICK, FLOAT32, ("eager",)),
        *_cases(("q_score forward", "score_rows"), QUICK, BFLOAT16),
        *_cases(("q_score forward", *GRADIENTS[1:]), SMALL, FLOAT32, ("eager",)),
    ]


def plan(device_type: str, quick: bool, dtypes: tuple[str, ...]) -> list[Case]:
    """The cases of a run on "cpu" or "cuda", those of ``dtypes`` only.

    Cases whose allocator keeps freed memory come last: once told to, glibc no longer adapts by itself.
    """
    cases = _quick() if quick else _gpu() if device_type == "cuda" else _cpu()
    unique = dict.fromkeys(case for case in cases if case.dtype in dtypes)
    return sorted(unique, key=lambda case: case.keep_freed)
