"""A full run measures everything that the acceptance table asks for, and the commands do what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import gpu, targets
from benchmarks.operations import OPERATIONS
from benchmarks.plans import DTYPES, QUICK, Case, plan
from benchmarks.sweeps import FEATURES
from benchmarks.threads import thread_scaling


def imagined(device_type: str) -> dict[str, Any]:
    """A run in which every planned case took a second, whatever ran it."""
    rows = []
    for case in plan(device_type, False, DTYPES):
        names = ("operation", "rows", "features", "dtype", "keep_freed")
        row = {name: getattr(case, name) for name in names}
        seconds = dict.fromkeys(("ours", *case.against), 1.0)
        rows.append({**row, "seconds": seconds, "times_limit": 1.0})
    point = {"features": 64, "gigabytes_per_second": 1.0}
    call = {"launches": 1, "captured": True, "host_seconds": 1.0}
    calls = {"q_score": 1.0, "native": 1.0, "calls": dict.fromkeys(OPERATIONS, call)}
    scaling = [{"threads": n, "rows": 65536, "seconds": 1.0, "read_seconds": 1.0} for n in (1, 2)]
    return {
        "environment": {"device_type": device_type},
        "results": rows,
        "sweeps": {dtype: {"features": [point]} for dtype in DTYPES},
        "overhead": calls,
        "threads": scaling,
    }


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_every_target_is_measured(device_type: str) -> None:
    verdicts = targets.verdicts(imagined(device_type))
    assert len(verdicts) > 25
    missing = [verdict.target.what for verdict in verdicts if verdict.value is None]
    assert missing == []


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [False, True])
def test_cases(device_type: str, quick: bool) -> None:
    cases = plan(device_type, quick, DTYPES)
    names = ("operation", "rows", "features", "dtype", "keep_freed")
    assert len({tuple(getattr(case, name) for name in names) for case in cases}) == len(cases)
    assert {case.operation for case in cases} <= set(OPERATIONS)
    assert {case.dtype for case in plan(device_type, quick, ("bfloat16",))} == {"bfloat16"}
    if not quick:
        large = [case for case in cases if case.rows > 256]
        item = {"float32": 4, "bfloat16": 2, "float16": 2}
        size = 128 << 20 if device_type == "cpu" else 255 << 20
        assert min(case.rows * case.features * item[case.dtype] for case in large) > size
    else:
        assert Case("q_score forward", *QUICK, "float32") in [
            Case(case.operation, case.rows, case.features, case.dtype) for case in cases
        ]


def test_widths_of_the_sweep() -> None:
    assert len(set(FEATURES)) == 40
    assert list(FEATURES) == sorted(FEATURES)
    assert (FEATURES[0], 65536 in FEATURES) == (1, True)
    assert max(FEATURES) > 65536
    assert sum(r % 2 for r in FEATURES) >= 10


def test_thread_scaling_restores_the_number() -> None:
    before = torch.get_num_threads()
    points = thread_scaling(torch.rand(64, 256))
    assert torch.get_num_threads() == before
    assert points[0]["threads"] == 1
    assert all(point["seconds"] > 0 and point["read_seconds"] > 0 for point in points)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_make_gpu_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main() == 2
    assert "no CUDA or ROCm device" in capsys.readouterr().err
