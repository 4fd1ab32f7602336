"""The Triton kernels as compiled for NVIDIA GPUs: needs Triton and its bundled tools, but no GPU.

Run as a script this file compiles and prints what it measured as JSON; the tests run it as a
subprocess, because the pytest process has the interpreter switched on.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

FEATURES = (128, 512, 768, 2048, 4096)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# (compute capability, features, type): every width for Hopper, also widths that are not aligned and
# a row wider than a tile; the most common width for its neighbours.
TARGETS = [(90, d, dtype) for d in FEATURES for dtype in DTYPES]
TARGETS += [(90, d, "bf16") for d in (1, 129, 40000)]
TARGETS += [(80, 2048, "bf16"), (80, 2048, "fp32"), (100, 2048, "bf16")]
KERNELS = {
    "_row_stats_fwd_kernel": "row_stats",
    "_row_stats_bwd_kernel": "row_stats",
    "_q_score_fwd_kernel": "q_score",
    "_q_score_bwd_kernel": "q_score",
    "_highly_active_kernel": "active",
    "_activation_counts_kernel": "active",
    "_sparse_count_kernel": "sparse",
    "_sparse_fill_kernel": "sparse",
    "_sparse_bwd_kernel": "sparse",
    "_q_score_loss_fwd_kernel": "q_score_loss",
    "_q_score_loss_finish_kernel": "q_score_loss",
    "_q_score_loss_bwd_kernel": "q_score_loss",
}
PERSISTENT = ("_activation_counts_kernel", "_q_score_loss_fwd_kernel")
HEAVY = ("_sparse_fill_kernel",)
FINISH = "_q_score_loss_finish_kernel"
POINTERS = {"mask_ptr": "*u8", "active_ptr": "*u8", "offsets_ptr": "*i64"}
POINTERS |= {"feature_ptr": "*i32", "count_ptr": "*i32"}
SCALARS = {"eps": "fp32", "row_scale": "fp32", "col_scale": "fp32"}
PROCESSORS = 132


def _source(kernel: object, name: str, d: int, dtype: str) -> tuple[object, dict[str, int]]:
    """What the JIT would compile for a contiguous h (N, d), and its options."""
    from triton.compiler import ASTSource

    package = "qscore_fast.kernels.triton"
    settings = importlib.import_module(f"{package}.settings")
    processors = PROCESSORS if name in PERSISTENT else None
    s = settings.settings(1 << 20, d, DTYPES[dtype], processors, heavy=name in HEAVY)
    meta = {"D": d, "BLOCK_M": s.block_m, "BLOCK_D": s.block_d}
    meta |= {"NUM_STAGES": s.num_stages, "BLOCK_E": settings.entries_block(s)}
    num_warps = s.num_warps
    if name == FINISH:
        finish = settings.FINISH
        meta |= {"BLOCK_M": finish.block_m, "BLOCK_P": finish.block_p, "BLOCK_D": finish.block_d}
        num_warps = finish.num_warps

    signature, constants, attributes = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in meta:
            signature[argument] = "constexpr"
            constants[argument] = meta[argument]
        elif argument.endswith("_ptr"):
            rows = dtype if argument in ("h_ptr", "dh_ptr") else "fp32"
            if name == "_activation_counts_kernel" and argument == "partial_ptr":
                rows = "i32"
            signature[argument] = POINTERS.get(argument, f"*{rows}")
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = SCALARS.get(argument, "i32")
            if argument == "h_row_stride" and d == 1:
                signature[argument] = "constexpr"
                constants[argument] = 1
            elif argument == "h_row_stride" and d % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes), {"num_warps": num_warps}


def _cuobjdump() -> str:
    import triton.backends.nvidia

    return str(Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump")


def _measure(job: tuple[str, int, int, str]) -> dict[str, object]:
    import triton
    from triton.backends.compiler import GPUTarget

    name, arch, d, dtype = job
    module = importlib.import_module(f"qscore_fast.kernels.triton.{KERNELS[name]}")
    source, options = _source(getattr(module, name), name, d, dtype)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        usage, sass = (
            subprocess.run(
                [_cuobjdump(), flag, cubin.name], capture_output=True, text=True, check=True
            ).stdout
            for flag in ("-res-usage", "-sass")
        )
    return {
        "kernel": name,
        "arch": arch,
        "d": d,
        "dtype": dtype,
        "num_warps": options["num_warps"],
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "local": int(re.search(r"LOCAL:(\d+)", usage)[1]),
        "shared": compiled.metadata.shared,
        # Instructions that store to or load from spilled registers.
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "wide_loads": len(re.findall(r"\b(?:LDG\.E|LDGSTS\.E)\S*\.128", sass)),
        "loads_of_h": _loads_of_h(compiled.asm["ttir"], source.signature),
    }


def _loads_of_h(ttir: str, signature: dict[str, str]) -> int:
    """How many load operations read a whole tile through the pointer type of h.

    Only h (and dh, never read) is 16 bits wide, so a bfloat16 kernel shows it beyond doubt.
    """
    pointee = signature.get("h_ptr", "*none").removeprefix("*").replace("fp", "f")
    return len(re.findall(rf"tt\.load .*: tensor<\d+x\d+x!tt\.ptr<{pointee}>>", ttir))


def _import_from(package_parent: str) -> None:
    import qscore_fast

    if package_parent not in qscore_fast.__path__:
        qscore_fast.__path__.append(package_parent)


def _compile_all(package_parent: str) -> list[dict[str, object]]:
    jobs = [
        (kernel, arch, d, dtype)
        for kernel in KERNELS
        for arch, d, dtype in TARGETS
        if kernel != FINISH or dtype == "fp32"  # it reads no h
    ]
    with ProcessPoolExecutor(2, initializer=_import_from, initargs=(package_parent,)) as pool:
        return list(pool.map(_measure, jobs, chunksize=4))


@functools.cache
def measurements() -> list[dict[str, object]]:
    kernels = importlib.import_module("qscore_fast.kernels")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    # The default of Triton < 3.10, named so that it does not warn.
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    process = subprocess.run(
        [sys.executable, __file__, str(Path(kernels.__path__[0]).parent)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


def select(**wanted: object) -> list[dict[str, object]]:
    found = [m for m in measurements() if all(m[k] == v for k, v in wanted.items())]
    assert found
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_nothing_spills(kernel: str) -> None:
    """At r = 2048. At other aligned widths a few addresses or a call's state may, never a tile."""
    for m in select(kernel=kernel):
        assert m["local"] == 0, m
        if m["d"] % 8 == 0:
            assert m["spills"] <= (0 if m["d"] == 2048 else 16), m


@pytest.mark.parametrize("kernel", KERNELS)
def test_registers_leave_room_for_other_programs(kernel: str) -> None:
    """At r = 2048 a multiprocessor's 64 Ki registers are enough for 512 threads or more."""
    for m in select(kernel=kernel, d=2048):
        threads = 32 * m["num_warps"]
        registers = -(-m["registers"] // 8) * 8
        resident = min(65536 // (registers * threads), 2048 // threads)
        assert resident * threads >= 512, m


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != FINISH])
def test_h_is_loaded_with_128_bits(kernel: str) -> None:
    """A thread holds 16 values (8 in the fill kernel), wherever rows are aligned."""
    values = 8 if kernel in HEAVY else 16
    for m in [m for m in select(kernel=kernel) if m["d"] % 8 == 0]:
        itemsize = DTYPES[m["dtype"]].itemsize
        assert m["wide_loads"] >= values * itemsize // 16, m


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k != FINISH])
def test_h_is_loaded_once(kernel: str) -> None:
    """One load of the tile serves every pass over a row, except where a row is wider than a tile.

    The backward of the sparse activations loads, besides, the few elements that are entries.
    """
    expected = 2 if kernel == "_sparse_bwd_kernel" else 1
    for m in select(kernel=kernel, dtype="bf16"):
        if m["d"] <= 4096:
            assert m["loads_of_h"] == expected, m


if __name__ == "__main__":
    print(json.dumps(_compile_all(sys.argv[1])))
