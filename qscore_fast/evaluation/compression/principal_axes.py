"""Principal axes: a representation turned so that its first k columns are its k principal components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor
from qscore_fast.evaluation.scatter import Scatter


def principal_axes(rows: FeatureRows, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """Mean (r,) and orthonormal axes (r, r), columns by descending variance; float64, one pass.

    Raises:
        SettingsError: NaN or Inf in the rows.
    """
    scatter = Scatter(rows.num_features, torch.device(device))
    for block in rows.blocks(max(1, (1 << 21) // rows.num_features)):
        part = as_tensor(block).to(device).double()
        if not bool(torch.isfinite(part).all()):
            raise SettingsError("the representations hold NaN or Inf: leave such rows out")
        scatter.add(part)
    _, axes = torch.linalg.eigh(scatter.centred)
    return scatter.mean, axes.flip(1)


def turned(rows: FeatureRows, mean: Tensor, axes: Tensor, file: Path) -> FeatureRows:
    """``(h - mean) @ axes`` of all rows, float32, in ``file`` (.npy), from which they are mapped."""
    shape = (len(rows), axes.shape[1])
    out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    start = 0
    axes32 = axes.float()
    for block in rows.blocks(8192):
        part = as_tensor(block).to(mean.device).double()
        out[start : start + len(part)] = ((part - mean).float() @ axes32).cpu().numpy()
        start += len(part)
    out.flush()
    return FeatureRows((np.load(file, mmap_mode="r"),))
