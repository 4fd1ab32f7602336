"""Compile the Triton kernels for a GPU that is not there, and read what the machine code does.

Run as ``python triton_compile.py PARENT_OF_KERNELS`` it compiles everything in JOBS and prints the
measurements as JSON. It needs Triton and its bundled tools only, and a process without the interpreter.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
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
    "_score_rows_kernel": "score_rows",
    "_q_score_loss_fwd_kernel": "q_score_loss",
    "_q_score_loss_sums_kernel": "q_score_loss",
    "_q_score_loss_finish_kernel": "q_score_loss",
    "_q_score_loss_bwd_kernel": "q_score_loss",
}
WITHOUT_H = ("_q_score_loss_sums_kernel", "_q_score_loss_finish_kernel")
# Those that find L anew or follow it into the gradient: compiled for L on both sides as well.
TWO_SIDED = tuple(
    k for k in KERNELS if k not in WITHOUT_H and "row_stats" not in k and k != "_sparse_bwd_kernel"
)
KINDS = {
    "_activation_counts_kernel": "columns",
    "_q_score_loss_fwd_kernel": "columns",
    "_score_rows_kernel": "columns",
    "_sparse_fill_kernel": "entries",
}
# As torch reports them: multiprocessors, warp size, registers and shared memory of each.
DEVICES = {
    "sm_80": (108, 32, 65536, 167936),
    "sm_90": (132, 32, 65536, 233472),
    "sm_100": (148, 32, 65536, 233472),
    "gfx942": (304, 64, 65536, 65536),
}
WIDTHS = (512, 768, 2048, 4096)
# (device, features, type): every width that has a target for Hopper, besides widths that are not
# aligned and a row wider than a tile; the most common width for the others.
TARGETS = [("sm_90", d, dtype) for d in WIDTHS for dtype in DTYPES]
TARGETS += [("sm_90", d, "bf16") for d in (1, 129, 16384, 40000)]
TARGETS += [("sm_80", 2048, "bf16"), ("sm_100", 2048, "bf16"), ("sm_100", 2048, "fp32")]
TARGETS += [("gfx942", d, dtype) for d in (768, 2048) for dtype in DTYPES]

POINTERS = {"mask_ptr": "*u8", "active_ptr": "*u8", "offsets_ptr": "*i64"}
POINTERS |= {"feature_ptr": "*i32", "count_ptr": "*i32"}
POINTERS |= {"entries_ptr": "*i32", "num_active_ptr": "*i32"}
SCALARS = dict.fromkeys(("eps", "keep_eps", "row_scale", "col_scale"), "fp32")


def forward_registers(block_m: int, d: int, threads: int) -> int:
    """The most registers that a thread of a forward without column sums may take.

    Two for each value that it holds, and 40 besides.
    """
    return 40 + 2 * block_m * d // threads


def settings_module():
    return importlib.import_module("qscore_fast.kernels.triton.settings")


def capability(device: str):
    return settings_module().Capability(device, *DEVICES[device])


def source(kernel: object, name: str, device: str, d: int, dtype: str, two_sided: bool):
    """What the JIT would compile for a contiguous h (N, d), and its options."""
    from triton.compiler import ASTSource

    module, rows, cap = settings_module(), 1 << 20, capability(device)
    s = module.settings(rows, d, DTYPES[dtype], cap, KINDS.get(name, "rows"))
    meta = {"BLOCK_M": s.block_m, "BLOCK_D": s.block_d, "NUM_STAGES": s.num_stages}
    meta |= {"D": d, "BLOCK_E": module.entries_block(s), "TWO_SIDED": two_sided}
    num_warps = s.num_warps
    if name == "_q_score_loss_sums_kernel":
        sums = module.sum_settings(rows, d, cap)
        meta |= {"BLOCK_M": sums.block_m, "BLOCK_P": sums.block_p, "BLOCK_D": sums.block_d}
        num_warps = sums.num_warps
    elif name == "_q_score_loss_finish_kernel":
        meta |= {"BLOCK_D": module.FINISH_BLOCK}
        num_warps = module.FINISH_WARPS

    signature, constants, attributes = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in meta:
            signature[argument] = "constexpr"
            constants[argument] = meta[argument]
        elif argument.endswith("_ptr"):
            rows_type = dtype if argument in ("h_ptr", "dh_ptr") else "fp32"
            if argument == "partial_ptr" and "loss" not in name:
                rows_type = "i32"
            signature[argument] = POINTERS.get(argument, f"*{rows_type}")
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = SCALARS.get(argument, "i32")
            if argument == "h_row_stride":  # rows without gaps
                signature[argument] = "constexpr"
                constants[argument] = None
    return ASTSource(kernel, signature, constants, attributes), {"num_warps": num_warps}, meta


def measure(job: tuple[str, str, int, str, bool]) -> dict[str, object]:
    import triton
    from triton.backends.compiler import GPUTarget

    name, device, d, dtype, two_sided = job
    module = importlib.import_module(f"qscore_fast.kernels.triton.{KERNELS[name]}")
    what, options, meta = source(getattr(module, name), name, device, d, dtype, two_sided)
    warp_size = DEVICES[device][1]
    if device.startswith("sm_"):
        target = GPUTarget("cuda", int(device.removeprefix("sm_")), warp_size)
    else:
        target = GPUTarget("hip", device, warp_size)
    compiled = triton.compile(what, target=target, options=options)
    threads = warp_size * options["num_warps"]
    result = {
        "kernel": name,
        "device": device,
        "d": d,
        "dtype": dtype,
        "two_sided": two_sided,
        "threads": threads,
        "shared": compiled.metadata.shared,
        "loads_of_h": _loads_of_h(compiled.asm["ttir"], what.signature),
    }
    result |= read_compiled(compiled.asm, target)
    elements = meta["BLOCK_M"] * d / threads if "BLOCK_M" in meta else float("nan")
    # Of a thread, for each element of h that it handles; an upper bound, as few branches are taken.
    result["instructions"] = round(result["instructions"] / elements, 1)
    return result


def read_compiled(asm: dict[str, object], target: object) -> dict[str, object]:
    """Registers, spills and instructions of compiled code."""
    return _read_nvidia(asm) if target.backend == "cuda" else _read_amd(asm)


def _tool(flag: str, path: str) -> str:
    import triton.backends.nvidia

    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    return subprocess.run([tool, flag, path], capture_output=True, text=True, check=True).stdout


def _read_nvidia(asm: dict[str, object]) -> dict[str, object]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(asm["cubin"])
        cubin.flush()
        usage, sass = _tool("-res-usage", cubin.name), _tool("-sass", cubin.name)
    operations = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass)
    ptx = asm["ptx"]
    return {
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        # Instructions that store to or load from spilled registers.
        "spills": sum(o.startswith(("LDL", "STL")) for o in operations),
        "local": int(re.search(r"LOCAL:(\d+)", usage)[1]),
        "instructions": sum(o != "NOP" for o in operations),
        "wide_loads": sum(bool(re.match(r"LDG(STS)?\.E.*\.128", o)) for o in operations),
        "wide_stores": sum(bool(re.match(r"STG\.E.*\.128", o)) for o in operations),
        "evict_first": len(re.findall(r"ld\.global\S*evict_first\S*\.v4", ptx)),
        # Copies to shared memory that pass by the first-level cache.
        "async_copies": len(re.findall(r"cp\.async\.cg", ptx)),
    }


def _read_amd(asm: dict[str, object]) -> dict[str, object]:
    text = asm["amdgcn"]
    number = {
        key: int(re.search(rf"\.{key}:\s*(\d+)", text)[1])
        for key in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
    }
    code = text[: text.index(".amdhsa_kernel")]
    return {
        "registers": number["vgpr_count"],
        "spills": number["vgpr_spill_count"],
        "local": number["private_segment_fixed_size"],
        "instructions": len(re.findall(r"^\s+(?:[sv]|ds|buffer|global)_\w+", code, re.M)),
        "wide_loads": len(re.findall(r"(?:buffer|global)_load_dwordx4", code)),
        "wide_stores": len(re.findall(r"(?:buffer|global)_store_dwordx4", code)),
        "evict_first": len(re.findall(r"(?:buffer|global)_load_dwordx4 .*\bnt\b", code)),
        "async_copies": 0,
    }


def _loads_of_h(ttir: str, signature: dict[str, str]) -> int:
    """How many load operations read a whole tile through the pointer type of h.

    Only h (and dh, never read) is 16 bits wide, so a bfloat16 kernel shows it beyond doubt.
    """
    pointee = signature.get("h_ptr", "*none").removeprefix("*").replace("fp", "f")
    return len(re.findall(rf"tt\.load .*: tensor<\d+x\d+x!tt\.ptr<{pointee}>>", ttir))


JOBS = [
    (kernel, device, d, dtype, False)
    for kernel in KERNELS
    for device, d, dtype in TARGETS
    if kernel not in WITHOUT_H or (dtype == "fp32" and d == 2048)
]
JOBS += [(kernel, "sm_90", 2048, "bf16", True) for kernel in TWO_SIDED]


def _import_from(package_parent: str) -> None:
    import qscore_fast

    if package_parent not in qscore_fast.__path__:
        qscore_fast.__path__.append(package_parent)


if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=_import_from, initargs=(sys.argv[1],)) as pool:
        print(json.dumps(list(pool.map(measure, JOBS, chunksize=4))))
