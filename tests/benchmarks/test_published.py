"""From a run to its tables, verdicts and plots."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import plots, publish, results, tables, targets
from benchmarks.plans import CPU_SHAPES, GPU_SHAPES, SMALL

FORWARD, BACKWARD, LOSS = targets.FORWARD, targets.BACKWARD, targets.LOSS


def row(operation: str, shape: tuple[int, int], dtype: str, **changes: Any) -> dict[str, Any]:
    seconds = {"ours": 0.010, "compiled": 0.080, "eager": 0.750, "read": 0.009, "copy": 0.02}
    return {
        "operation": operation,
        "rows": shape[0],
        "features": shape[1],
        "dtype": dtype,
        "keep_freed": False,
        "seconds": seconds,
        "peak_memory": {"ours": 3 << 20},
        "gigabytes_per_second": 42.0,
        "times_limit": 1.1,
        **changes,
    }


def point(rows: int, features: int, speed: float) -> dict[str, Any]:
    return {
        "rows": rows,
        "features": features,
        "gigabytes_per_second": speed,
        "limit_gigabytes_per_second": 50.0,
    }


@pytest.fixture
def run() -> dict[str, Any]:
    sweep = {
        "features": [point(9, 1, 1.0), point(9, 64, 20.0), point(9, 99, 40.0)],
        "rows": [point(1, 2048, 3.0), point(2, 2048, 6.0)],
    }
    return {
        "schema": 2,
        "quick": False,
        "environment": {
            "device": "Some CPU @ 3 GHz", "device_type": "cpu", "threads": 2, "backend": "native",
            "torch": "2.14", "date": "2026-11-23T10:11:12+00:00", "commit": "abc",
        },
        "results": [
            row(FORWARD, CPU_SHAPES[0], "float32"),
            row(FORWARD, CPU_SHAPES[1], "float32", times_limit=1.3),
            row(BACKWARD, CPU_SHAPES[0], "float32", times_limit=3.0),
            row(BACKWARD, CPU_SHAPES[0], "float32", keep_freed=True, times_limit=1.2),
            {**row(LOSS, SMALL, "float32"), "error": "it differs"},
        ],
        "sweeps": {"float32": sweep},
        "overhead": {"rows": 1, "features": 2048, "q_score": 15e-6, "native": 5e-6},
        "threads": [
            {"threads": 1, "rows": 65536, "seconds": 0.3, "read_seconds": 0.2},
            {"threads": 2, "rows": 65536, "seconds": 0.2, "read_seconds": 0.1},
        ],
    }  # fmt: skip


def test_verdicts(run: dict[str, Any]) -> None:
    found = {
        (verdict.target.what, verdict.target.against): (verdict.value, verdict.reached)
        for verdict in targets.verdicts(run)
    }
    read = "one read, same threads"
    assert found["`q_score`, 65536 x 2048, float32", read] == (1.1, "yes")
    assert found["`q_score`, 200000 x 512, float32", read] == (1.3, "no")
    assert found["`q_score`, 100000 x 768, float32", read] == (None, "not measured")
    assert found["`q_score`, 65536 x 2048, float32", "`torch.compile`"] == (pytest.approx(8), "yes")
    assert found["`q_score`, 65536 x 2048, float32", "eager"] == (pytest.approx(75), "yes")
    assert found["backward of `q_score`, 65536 x 2048, float32", "one copy"] == (1.2, "yes")
    # A wrong result reaches nothing.
    loss = "`q_score_loss` forward + backward, 256 x 2048, float32"
    assert found[loss, "eager"] == (None, "not measured")
    overhead = found["overhead of `q_score`, 1 x 2048, no gradient", "the raw native call"]
    assert overhead == (pytest.approx(10), "yes")
    assert found["2 threads, `q_score`, 65536 x 2048, float32", "1 thread"][1] == "no"
    worst = found["worst r of the sweep, r >= 64, float32", "GB/s at the best r"]
    assert worst == (pytest.approx(50), "no")


def test_gpu_verdicts(run: dict[str, Any]) -> None:
    run["environment"]["device_type"] = "cuda"
    run["results"] = [row(FORWARD, GPU_SHAPES[0], "bfloat16", times_limit=1.25)]
    call = {"launches": 5, "captured": True, "host_seconds": 20e-6}
    run["overhead"] = {"calls": {FORWARD: call, LOSS: call}}
    found = {
        (verdict.target.what, verdict.target.against): (verdict.value, verdict.reached)
        for verdict in targets.verdicts(run)
    }
    copy_bandwidth = found["`q_score`, 65536 x 2048, bfloat16", "copy bandwidth"]
    assert copy_bandwidth == (pytest.approx(80), "no")
    small = "`q_score_loss` forward + backward, 256 x 2048"
    assert found[small, "launches"] == (5, "no")
    assert found[f"{small}, replayed from a CUDA graph", "the same result: 1"][1] == "yes"
    assert found["`q_score`, 256 x 2048: one call", "host time"] == (pytest.approx(20), "yes")


def test_every_case_has_a_line(run: dict[str, Any]) -> None:
    heads, rows = tables.measurements(run)
    assert [len(cells) for cells in rows] == [len(heads)] * 5
    first = dict(zip(heads, rows[0], strict=True))
    assert (first["ms"], first["% of limit"], first["vs eager"]) == ("10", "91", "75.0x")
    assert first["peak memory, MiB"] == "3.0"
    assert rows[3][0] == "q_score backward, freed memory kept"
    assert "wrong" in rows[4]
    lines = tables.terminal((heads, rows), 3)
    assert len({line.index("float32") for line in lines[1:]}) == 1


def test_the_newest_full_run_of_each_device(run: dict[str, Any], tmp_path: Path) -> None:
    path = results.write(run, tmp_path)
    assert path == tmp_path / "some-cpu-3-ghz" / "kernels-2026-11-23T10-11-12.json"
    assert json.loads(path.read_text()) == run
    later = copy.deepcopy(run)
    later["environment"]["date"] = "2026-11-24T00:00:00+00:00"
    results.write(later, tmp_path)
    for date, change in (("2026-12-01", {"quick": True}), ("2026-12-02", {"schema": 1})):
        other = copy.deepcopy(run) | change
        other["environment"]["date"] = f"{date}T00:00:00+00:00"
        results.write(other, tmp_path)
    gpu = copy.deepcopy(run)
    gpu["environment"] |= {"device": "A GPU", "device_type": "cuda"}
    results.write(gpu, tmp_path)
    assert results.newest(tmp_path) == [later, gpu]


def test_blocks(run: dict[str, Any]) -> None:
    text = "before\n<!-- kernels: begin -->\nold\n<!-- kernels: end -->\nafter\n"
    once = publish.filled(text, [run])
    assert publish.filled(once, [run]) == once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "| q_score forward | 65536 x 2048 | float32 | 10 | 42.0 | 91 | 8.0x | 75.0x |" in once
    assert "Some CPU @ 3 GHz, 2 threads" in once
    assert "old" not in once
    assert publish.NOTHING in publish.filled(text, [])
    with pytest.raises(ValueError, match="kernel_s"):
        publish.filled("<!-- kernel_s: begin --><!-- kernel_s: end -->", [run])


def test_every_block_renders(run: dict[str, Any]) -> None:
    for render in publish.BLOCKS.values():
        lines = render(run).splitlines()
        assert len(lines) > 2
        assert len({line.count("|") for line in lines}) == 1


def test_plot(run: dict[str, Any], tmp_path: Path) -> None:
    path = plots.save_bandwidth(run, tmp_path / "images")
    assert path.name == "bandwidth-cpu.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.width > 2 * image.height
        assert len(image.convert("RGB").getcolors(1 << 20)) > 50
