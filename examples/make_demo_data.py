"""Draw the demo's images from Fashion-MNIST: class-balanced subsets in the original idx.gz layout.

    python examples/make_demo_data.py

The choice depends on --seed only, and the archives carry no time stamp, so a second run writes the
same bytes. `discover` comes from the training images, `score` from the test images.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DEMO_DATA = Path(__file__).resolve().parent.parent / "qscore_fast" / "demo" / "data"

IDX_UINT8 = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Array held by a gzip-compressed idx file of bytes: images (N, 28, 28) or labels (N,).

    Layout: two zero bytes, the type, the number of dimensions, each as big-endian uint32, data.
    """
    with gzip.open(path, "rb") as file:
        content = file.read()
    if len(content) < 4 or content[:3] != bytes([0, 0, IDX_UINT8]):
        raise ValueError(f"{path} is no idx file of unsigned bytes: it starts {content[:4]!r}")
    dims = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=dims, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dims).reshape(shape.tolist())


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write what `read_idx` reads, without name or time in the gzip header."""
    header = bytes([0, 0, IDX_UINT8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


def balanced_choice(
    labels: NDArray[np.uint8], per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Sorted indices of ``per_class`` samples of every class, drawn without replacement."""
    chosen = [
        rng.choice(np.flatnonzero(labels == label), size=per_class, replace=False)
        for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=FASHION_MNIST, help="the original idx.gz files"
    )
    parser.add_argument("--out", type=Path, default=DEMO_DATA)
    parser.add_argument("--discover-per-class", type=int, default=400)
    parser.add_argument("--score-per-class", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    for name, split, per_class in (
        ("discover", "train", args.discover_per_class),
        ("score", "t10k", args.score_per_class),
    ):
        images = read_idx(args.data / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(args.data / f"{split}-labels-idx1-ubyte.gz")
        chosen = balanced_choice(labels, per_class, rng)
        write_idx(args.out / f"{name}-images-idx3-ubyte.gz", images[chosen])
        write_idx(args.out / f"{name}-labels-idx1-ubyte.gz", labels[chosen])
        np.savetxt(args.out / f"{name}-indices.txt", chosen, fmt="%d")
        print(f"{name}: {len(chosen)} of the {len(labels)} {split} images")


if __name__ == "__main__":
    main()
