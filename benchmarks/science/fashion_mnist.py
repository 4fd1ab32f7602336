"""All of Fashion-MNIST, from the data set's own files to class folders: 60,000 and 10,000 images."""

from __future__ import annotations

from pathlib import Path

from qscore_fast.demo.fashion_mnist import idx_array, save_class_folders
from qscore_fast.errors import SourceError
from qscore_fast.images import Preprocess

FILES = {"train": "train", "test": "t10k"}
# Where Debian's package dataset-fashion-mnist puts them.
DEFAULT = Path("/usr/share/datasets/fashion-mnist")
# As they are, with the mean and deviation of the training images.
PREPROCESS = Preprocess("L", 28, 28, "bilinear", (0.286,), (0.353,))


def class_folders(data: Path, out: Path, limit: int | None = None) -> dict[str, Path]:
    """Write ``out/train`` and ``out/test`` unless they are there.

    Args:
        data: the folder of the four idx files (.gz), as the data set is published.
        limit: take the first images of each split alone.

    Raises:
        SourceError: a file is missing.
    """
    folders = {}
    for split, stem in FILES.items():
        files = [data / f"{stem}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
        for file in files:
            if not file.is_file():
                raise SourceError(
                    f"{file} is missing: install Debian's package dataset-fashion-mnist, or give --data with "
                    "the folder of the data set's four files"
                )
        folders[split] = out / (split if limit is None else f"{split}-{limit}")
        if not folders[split].exists():
            images, labels = (idx_array(file.read_bytes(), file.name) for file in files)
            out.mkdir(parents=True, exist_ok=True)
            save_class_folders(images[:limit], labels[:limit], folders[split])
    return folders
