"""A synthetic Salient ImageNet in the published layout: listings, masks, answers, numbers of the classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = (
    "WorkerId", "Input.wordnet_id", "Input.class_index", "Input.feature_index", "Input.feature_rank",
    "Answer.main", "Answer.confidence", "Answer.reasons",
)  # fmt: skip

# Answers of five workers, and what the rule of the paper makes of them.
VOTES = {
    "core": ("main_object", "main_object", "main_object", "background", "separate_object"),
    "spurious": ("background", "separate_object", "background", "main_object", "main_object"),
}


def save_salient_tree(
    root: Path,
    masks: Mapping[str, Mapping[int, Mapping[str, np.ndarray]]],
    kinds: Mapping[str, Mapping[int, str]],
    numbers: Mapping[str, int],
) -> Path:
    """Write ``root/salient_imagenet_dataset`` and ``root/mturk_results``; the former is returned.

    Args:
        masks: wnid -> feature -> image name -> uint8 (224, 224).
        kinds: wnid -> feature -> "core" or "spurious".
        numbers: wnid -> class index.
    """
    folder = root / "salient_imagenet_dataset"
    for wnid, features in masks.items():
        for feature, images in features.items():
            place = folder / wnid / f"feature_{feature}"
            place.mkdir(parents=True)
            for name, mask in images.items():
                Image.fromarray(mask).save(place / f"{name}.JPEG", quality=95)
        write_listing(folder / wnid, {f: list(images) for f, images in features.items()})
    (folder / "wordnet_dict.py").write_text(repr({i: wnid for wnid, i in numbers.items()}))
    write_answers(root / "mturk_results" / "discover_spurious_features.csv", kinds, numbers)
    return folder


def write_listing(folder: Path, images: Mapping[int, Sequence[str]]) -> Path:
    """image_names_map.csv as pandas writes columns of unequal lengths: short ones end in empty cells."""
    path = folder / "image_names_map.csv"
    longest = max(map(len, images.values()))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(images)
        for row in range(longest):
            writer.writerow([names[row] if row < len(names) else "" for names in images.values()])
    return path


def write_answers(
    path: Path, kinds: Mapping[str, Mapping[int, str]], numbers: Mapping[str, int]
) -> Path:
    """Five answers a feature; the reasons hold what CSV has to quote, and what Python calls a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for wnid, features in kinds.items():
            for rank, (feature, kind) in enumerate(features.items(), start=1):
                for worker, answer in enumerate(VOTES[kind]):
                    reason = 'it is "red", I\nthink' if worker % 2 else "red\u2028and\x0bblue\x85"
                    place = [worker, wnid, numbers[wnid], feature, rank]
                    writer.writerow([*place, answer, 4.0, reason])
    return path


def square(left: int, top: int, side: int, value: int = 255) -> np.ndarray:
    """A mask that covers one square."""
    mask = np.zeros((224, 224), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask
