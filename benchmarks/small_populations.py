"""``python -m benchmarks.small_populations``: how large D is when it is discovered on few images.

On the 4,000 bundled images under the bundled encoder: D of random subsets, against D of all of them. Few
images give few different values of A, and features with equal A stay together.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qscore_fast as qf
from qscore_fast.demo.fashion_mnist import read_idx
from qscore_fast.encoders import load_encoder

from .environment import describe
from .results import RESULTS, write

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
EPS = (2.0, 3.0, 4.0)
SUBSETS = 20


def representations() -> torch.Tensor:
    """(4000, r) float32."""
    encoder = load_encoder("demo", device="cpu")
    images = torch.from_numpy(read_idx("discover", "images-idx3").copy())[:, None]
    pixels = images.expand(-1, encoder.preprocess.channels, -1, -1)
    blocks = [encoder(encoder.preprocess.normalise(block)) for block in pixels.split(250)]
    return torch.cat(blocks)


def row(active: np.ndarray, size: int, eps: float, whole: np.ndarray) -> dict[str, Any]:
    """Means over the subsets, and the range of the size of D.

    Args:
        active: (N, r) bool. whole: (r,) bool, D of all.
    """
    sizes, values, jaccards = [], [], []
    for seed in range(SUBSETS if size < len(active) else 1):
        chosen = np.random.default_rng((seed, size)).permutation(len(active))[:size]
        mask, counts = discovered(active[chosen], eps)
        sizes.append(int(mask.sum()))
        values.append(len(np.unique(counts)))
        jaccards.append(float((mask & whole).sum() / (mask | whole).sum()))
    return {
        "eps": eps,
        "images": size,
        "share_of_features": statistics.mean(sizes) / active.shape[1],
        "smallest": min(sizes) / active.shape[1],
        "largest": max(sizes) / active.shape[1],
        "different_values_of_A": statistics.mean(values),
        "jaccard_with_all": statistics.mean(jaccards),
    }


def discovered(active: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """The mask of D and the counts, both (r,), of active entries (n, r)."""
    counts = torch.from_numpy(active.sum(0))
    census = qf.FeatureCensus.from_counts(counts, len(active), eps)
    return qf.discriminative_features(census).mask.numpy(), counts.numpy()


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; the command's entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_populations", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the results")
    options = parser.parse_args(arguments)
    h = representations()
    rows = []
    for eps in EPS:
        active = qf.highly_active(h, eps).numpy()
        whole, _ = discovered(active, eps)
        rows += [row(active, size, eps, whole) for size in SIZES if size <= len(active)]
    found = {"environment": describe(torch.device("cpu")), "features": h.shape[1], "results": rows}
    for one in rows:
        print(
            f"| {one['eps']:g} | {one['images']:,} | {100 * one['share_of_features']:.1f} "
            f"({100 * one['smallest']:.1f} to {100 * one['largest']:.1f}) | "
            f"{one['different_values_of_A']:.0f} | {one['jaccard_with_all']:.2f} |"
        )
    print(f"written {write(found, options.out, 'small-populations')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
