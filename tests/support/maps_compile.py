"""Compile the kernels of ``score_maps`` for a GPU that is not there, and read what the machine code does.

Run as ``python maps_compile.py PARENT_OF_KERNELS`` it prints the measurements of all JOBS as JSON, as
``triton_compile`` does for the kernels of rows.
"""

from __future__ import annotations

import importlib
import json
import sys
from concurrent.futures import ProcessPoolExecutor

from triton_compile import DEVICES, _import_from, read_compiled, settings_module

KERNELS = ("_pool_maps_kernel", "_combine_maps_kernel")
# (device, type, channels, positions, channels last)
TARGETS = [("sm_90", dtype, 2048, 49, last) for dtype in ("fp32", "bf16") for last in (False, True)]
TARGETS += [("sm_90", "bf16", 512, 196, False), ("sm_90", "bf16", 16500, 1, True)]
TARGETS += [(d, "bf16", 2048, 49, True) for d in ("sm_80", "sm_100", "gfx942")]
JOBS = [(kernel, *target) for kernel in KERNELS for target in TARGETS]

POINTERS = {"maps_ptr": None, "mask_ptr": "*u8", "list_ptr": "*i32", "num_active_ptr": "*i32"}


def map_settings(device: str, channels: int, positions: int, channels_last: bool):
    module = settings_module()
    capability = module.Capability(device, *DEVICES[device])
    return module.map_settings(channels, positions, channels_last, capability)


def measure(job: tuple[str, str, str, int, int, bool]) -> dict[str, object]:
    """Compiled as the launch would for dense maps, two-sided, with the mean of what is above 0."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, device, dtype, channels, positions, channels_last = job
    kernel = getattr(importlib.import_module("qscore_fast.kernels.triton.score_maps"), name)
    s = map_settings(device, channels, positions, channels_last)
    pool = name == "_pool_maps_kernel"
    values = {
        "C": channels,
        "P": positions,
        "COMBINE": 1,
        "RECTIFY": True,
        "TWO_SIDED": True,
        "BLOCK_C": s.pool_c if pool else s.list_c,
        "BLOCK_P": s.pool_p if pool else s.combine_p,
        "BLOCK_M": s.combine_m,
        "sample_stride": channels * positions,
        "channel_stride": 1 if channels_last else positions,
        "position_stride": channels if channels_last else 1,
    }
    signature, constants, attributes = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument.endswith("_ptr"):
            signature[argument] = POINTERS.get(argument, "*fp32") or f"*{dtype}"
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif argument == "N" or (argument.endswith("_stride") and values[argument] != 1):
            signature[argument] = "i32"
            if argument != "N" and values[argument] % 16 == 0:
                attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "constexpr"
            constants[argument] = values[argument]
    warp_size = DEVICES[device][1]
    num_warps = s.pool_warps if pool else s.combine_warps
    target = (
        GPUTarget("cuda", int(device.removeprefix("sm_")), warp_size)
        if device.startswith("sm_")
        else GPUTarget("hip", device, warp_size)
    )
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=target, options={"num_warps": num_warps})
    return {
        "kernel": name,
        "device": device,
        "dtype": dtype,
        "channels": channels,
        "positions": positions,
        "channels_last": channels_last,
        "threads": warp_size * num_warps,
        "shared": compiled.metadata.shared,
        **read_compiled(compiled.asm, target),
    }


if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=_import_from, initargs=(sys.argv[1],)) as pool:
        print(json.dumps(list(pool.map(measure, JOBS, chunksize=4))))
