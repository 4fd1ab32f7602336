"""What a measurement was made on and with."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from .implementations import compile_mode
from .limits import limit_source

ROOT = Path(__file__).resolve().parents[1]
"""The source tree, or where there is none, the folder of the installed package."""


def describe(device: torch.device) -> dict[str, Any]:
    """Device, clocks, versions, date and commit; everything that a figure needs beside it."""
    from qscore_fast import __version__, backend_info

    info = backend_info()
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "device_type": device.type,
        "clocks": _gpu_clocks() if on_gpu else _cpu_clocks(),
        "cores": os.cpu_count(),
        "threads": info.threads,
        "last_level_cache": _last_level_cache(device),
        "backend": info.cuda if on_gpu else info.cpu,
        "limit": limit_source(device),
        "compile_mode": compile_mode(device),
        "qscore_fast": __version__,
        "torch": info.torch,
        "triton": info.triton,
        "compiler": _compiler(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _processor() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.M)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _cpu_clocks() -> dict[str, str]:
    clocks = {}
    if match := re.search(r"^cpu MHz\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.M):
        clocks["core"] = f"{float(match[1]):.0f} MHz"
    if most := _text("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"):
        clocks["core at most"] = f"{int(most) // 1000} MHz"
    return clocks


def _gpu_clocks() -> dict[str, str]:
    fields = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "driver_version")
    line = _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
    return dict(zip(fields, line.splitlines()[0].split(", "), strict=False)) if line else {}


def _last_level_cache(device: torch.device) -> str | None:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_properties(device).L2_cache_size >> 10}K"
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return _text(sizes[-1]).strip() or None if sizes else None


def _compiler() -> str | None:
    """The machine's own; an installed wheel may have been built by another."""
    line = _output("c++", "--version").partition("\n")[0]
    return f"{line} (of this machine)" if line else None


def _commit() -> str | None:
    if not (ROOT / "pyproject.toml").is_file():
        return None  # installed: a repository around it would be another project's
    return _output("git", "describe", "--always", "--dirty") or None


def _output(*command: str) -> str:
    """What a command prints, nothing where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
