"""room_for_rows: how much of a device's memory cached rows may take."""

from __future__ import annotations

import torch

HOST_BYTES = 8 << 30


def room_for_rows(device: torch.device) -> int:
    """Bytes: half of what is free on a GPU, PyTorch's unused cache included; 8 GiB elsewhere."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached) // 2
    return HOST_BYTES
