"""A miniature of ImageNet's tree: train/WNID, a flat val, and the development kit with its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from qscore_fast.demo.fashion_mnist import read_idx

# ILSVRC ids 1, 2, 3: not in the order of the WordNet ids, as in the real kit.
WNIDS = ("n02119789", "n02100735", "n02110185")


def save_imagenet_tree(folder: Path, num_train: int, num_val: int) -> Path:
    """Real images of three classes as JPEGs, ``num_train`` a class, ``num_val`` in all."""
    images, labels = read_idx("score", "images-idx3"), read_idx("score", "labels-idx1")
    of_class = {wnid: iter(images[labels == n]) for n, wnid in enumerate(WNIDS)}
    for wnid in WNIDS:
        place = folder / "train" / wnid
        place.mkdir(parents=True)
        for number in range(num_train):
            _save(next(of_class[wnid]), place / f"{wnid}_{number}.JPEG")
    (folder / "val").mkdir()
    truth = [1 + number % len(WNIDS) for number in range(num_val)]
    for number, ilsvrc_id in enumerate(truth, start=1):
        image = next(of_class[WNIDS[ilsvrc_id - 1]])
        _save(image, folder / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    name = "ILSVRC2012_validation_ground_truth.txt"
    (data / name).write_text("".join(f"{ilsvrc_id}\n" for ilsvrc_id in truth))
    rows = [(n, wnid, "w", "g", 0, np.zeros(0), 0, 1300) for n, wnid in enumerate(WNIDS, start=1)]
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss"]
    fields += ["num_children", "children", "wordnet_height", "num_train_images"]
    table = np.array(rows, dtype=[(field, object) for field in fields]).reshape(-1, 1)
    savemat(data / "meta.mat", {"synsets": table}, do_compression=True)
    return folder


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).convert("RGB").resize((64, 48)).save(path, quality=92)
