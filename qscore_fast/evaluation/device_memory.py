"""room_for_rows: how much of a device's memory cached rows may take."""

from __future__ import annotations

import torch

HOST_BYTES = 8 << 30


def room_for_rows(device: torch.device) -> int:
    """Bytes: half of what is free on a GPU, 8 GiB elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return HOST_BYTES
