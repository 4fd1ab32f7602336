"""Rows and classes to measure with: Fashion-MNIST's under the bundled encoder, or synthetic ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TRAIN, TEST = 60_000, 10_000
PART = 1024  # the default ``unit_size`` of ``score``


@dataclass(frozen=True, eq=False)
class Problem:
    """Train and test rows (n, r) float16 with their classes (n,) int64, and what they are."""

    name: str
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    num_classes: int

    def describe(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": len(self.x),
            "features": self.x.shape[1],
            "classes": self.num_classes,
            "dtype": self.x.dtype.name,
            "test_rows": len(self.test_x),
        }


def synthetic(
    rows: int, features: int, classes: int, *, test_rows: int = TEST, seed: int = 0
) -> Problem:
    """Like the pooled features of a network: of low rank, then ReLU; sparse, heavy-tailed, unequal scales.

    A sample is its class's centre plus noise in features / 4 dimensions, whose variances fall as 1 / j, the
    spectrum that trained networks have (alpha-ReQ near 1); classes overlap.
    """
    generator = torch.Generator().manual_seed(seed)
    rank = features // 4
    spread = torch.arange(1, rank + 1).float().rsqrt()
    centres = torch.randn(classes, rank, generator=generator) * spread
    mixing = torch.randn(rank, features, generator=generator) / spread.norm()
    scale = torch.empty(features).log_normal_(-0.5, 0.5, generator=generator)
    y = torch.randint(classes, (rows + test_rows,), generator=generator)
    x = torch.empty(len(y), features, dtype=torch.float16)
    for start in range(0, len(y), 8192):
        part = y[start : start + 8192]
        noise = torch.randn(len(part), rank, generator=generator) * spread
        inner = 0.35 * centres[part] + noise
        x[start : start + 8192] = ((inner @ mixing - 0.5).clamp_(min=0) * scale).half()
    x_all, y_all = x.numpy(), y.numpy()
    return Problem(
        f"synthetic, {classes} classes",
        x_all[:rows],
        y_all[:rows],
        x_all[rows:],
        y_all[rows:],
        classes,
    )


def fashion_mnist(folder: Path, device: str) -> Problem:
    """All 60,000 and 10,000 images under the bundled encoder.

    Raises:
        ImportError: the pipeline's own dependencies (Pillow and others) are not installed.
        FileNotFoundError: the data set's files are not in ``folder``.
    """
    from qscore_fast.demo.fashion_mnist import idx_array
    from qscore_fast.encoders import load_encoder

    encoder = load_encoder("demo", device=device)
    parts = []
    for stem in ("train", "t10k"):
        images, labels = (
            idx_array((folder / name).read_bytes(), name)
            for name in (f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz")
        )
        rows = []
        for start in range(0, len(images), 1024):
            pixels = torch.from_numpy(images[start : start + 1024].copy())[:, None]
            prepared = encoder.preprocess.normalise(
                pixels.expand(-1, encoder.preprocess.channels, -1, -1).to(device)
            )
            rows.append(encoder(prepared).half().cpu().numpy())
        parts += [np.concatenate(rows), labels.astype(np.int64)]
    return Problem("Fashion-MNIST under the bundled encoder", *parts, 10)


def many_rows(rows: int, features: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """``rows`` float16 rows in parts as long as a run's, that share memory: no two are equal, little is held.

    The parts are views of one buffer at offsets that are no multiples of the row's length.
    """
    held = min(rows, 65_536)
    buffer = np.random.default_rng(seed).standard_normal(held * features + 64 * 31, np.float32)
    np.maximum(buffer, 0, out=buffer)
    kept = buffer.astype(np.float16)
    parts = []
    for start in range(0, rows, PART):
        number, inside = divmod(start, held)
        first, length = (31 * number) % (64 * 31), min(PART, rows - start)
        first += inside * features
        parts.append(kept[first : first + length * features].reshape(length, features))
    return tuple(parts)
