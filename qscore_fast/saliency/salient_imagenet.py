"""SalientImageNet: the published masks on the disk, found by the name of an image."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from qscore_fast.errors import SourceError
from qscore_fast.images import Sample
from qscore_fast.saliency.mask_listing import read_mask_listing
from qscore_fast.saliency.published_name import name_of
from qscore_fast.saliency.salient_masks import SalientMasks, union_of_masks
from qscore_fast.saliency.wordnet_dict import read_wordnet_dict
from qscore_fast.saliency.worker_answers import WNID, WorkerAnswers

LISTING = "image_names_map.csv"
ANSWERS = "discover_spurious_features.csv"
FOLDER = "salient_imagenet_dataset"


@dataclass(frozen=True, eq=False)
class SalientImageNet:
    """Core and spurious masks of ImageNet's training images (Singla and Feizi, ICLR 2022).

    Read as it is published, nothing unpacked or converted; its licence allows no copies, so none is here::

        ROOT/n01440764/image_names_map.csv              a column a feature: images with a mask of it
        ROOT/n01440764/feature_59/n01440764_10026.JPEG  its soft mask, 224 x 224, grey
        ROOT/wordnet_dict.py                            {class index: wnid}; parsed, never run
        discover_spurious_features.csv                  the workers' answers, of the code's repository

    Nothing is held but the names, about 30 bytes an image.

    Args:
        root: that folder, or the one that holds it as salient_imagenet_dataset.
        answers: the workers' answers; looked for in ``root``, in mturk_results there, and beside it.
        compat: align the masks as the published loader does, which enlarges them by 8/7 against their
            images; by default they lie as they were made.

    Raises:
        SourceError: something is missing, malformed, or the parts are of different releases.

    Attributes:
        root: the folder of the masks.
        answers: which feature of which class is what.
        classes: wnids that have masks, ascending.
        notes: what was passed over -> how many.
    """

    root: Path
    answers: WorkerAnswers
    compat: bool
    classes: tuple[str, ...] = field(init=False, repr=False)
    notes: dict[str, int] = field(init=False)
    _names: np.ndarray = field(init=False, repr=False)
    _class_of: np.ndarray = field(init=False, repr=False)
    _members: np.ndarray = field(init=False, repr=False)

    def __init__(
        self,
        root: str | os.PathLike[str],
        answers: str | os.PathLike[str] | None = None,
        compat: bool = False,
    ) -> None:
        folder = _folder(Path(root))
        found = WorkerAnswers.read(_answers(folder) if answers is None else answers)
        for name, value in (("root", folder), ("answers", found), ("compat", compat)):
            object.__setattr__(self, name, value)
        self._check_numbers(folder / "wordnet_dict.py")
        self._list()

    def __len__(self) -> int:
        """Images that have a mask."""
        return len(self._names)

    def find(self, name: str) -> int | None:
        """The place of an image, by its published name (``n01440764_10026``); None if it has no mask."""
        wanted = name.encode()
        place = int(np.searchsorted(self._names, wanted))
        if place < len(self._names) and self._names[place] == wanted:
            return place
        return None

    def place_of(self, sample: Sample) -> int | None:
        """The place of a sample's image, by its name in whichever copy of ImageNet; None without a mask."""
        name = name_of(sample)
        return None if name is None else self.find(name)

    def name(self, place: int) -> str:
        """The published name of the image there."""
        return bytes(self._names[place]).decode()

    def wnid(self, place: int) -> str:
        """The class whose features its masks show."""
        return self.classes[self._class_of[place]]

    def features(self, place: int, spurious: bool) -> tuple[int, ...]:
        """The core or the spurious features that the image there has a mask of, ascending."""
        kinds = self.answers.spurious[self.wnid(place)]
        members = int(self._members[place])
        return tuple(
            feature
            for bit, (feature, is_spurious) in enumerate(sorted(kinds.items()))
            if members >> bit & 1 and is_spurious == spurious
        )

    def masks(self, place: int) -> SalientMasks:
        """The masks of the image there, read now.

        Raises:
            ImageError: with stage "mask": a file is missing, damaged, or not 224 x 224.
        """
        core, spurious = (
            union_of_masks(self.mask_paths(place, kind), self.compat) for kind in (False, True)
        )
        return SalientMasks(core, spurious)

    def mask_paths(self, place: int, spurious: bool) -> list[Path]:
        """The files of its core or spurious masks."""
        folder, file = self.root / self.wnid(place), f"{self.name(place)}.JPEG"
        return [folder / f"feature_{j}" / file for j in self.features(place, spurious)]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over what is listed: images, classes, features and what these are."""
        digest = hashlib.sha256(f"compat {self.compat}\n".encode())
        for wnid in self.classes:
            digest.update(f"{wnid} {sorted(self.answers.spurious[wnid].items())}\n".encode())
        for array in (self._names, self._class_of, self._members):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def _check_numbers(self, path: Path) -> None:
        if not path.exists():
            return
        numbers = read_wordnet_dict(path)
        for wnid, index in self.answers.class_indices.items():
            if numbers.get(index, wnid) != wnid:
                raise SourceError(
                    f"class {index} is {numbers[index]} in {path} and {wnid} in {self.answers.path}: give "
                    "masks and answers of one release"
                )

    def _list(self) -> None:
        classes, unknown = [], 0
        for wnid in _class_folders(self.root):
            if wnid in self.answers.spurious:
                classes.append(wnid)
            else:
                unknown += 1
        names: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        members: list[np.ndarray] = []
        unanswered = 0
        for number, wnid in enumerate(classes):
            bit_of = {j: bit for bit, j in enumerate(sorted(self.answers.spurious[wnid]))}
            bits: dict[str, int] = {}
            for feature, images in read_mask_listing(self.root / wnid / LISTING).items():
                if feature not in bit_of:
                    unanswered += 1
                    continue
                for name in images:
                    bits[name] = bits.get(name, 0) | 1 << bit_of[feature]
            names.append(np.array([name.encode() for name in bits], "S20"))
            owners.append(np.full(len(bits), number, np.uint16))
            members.append(np.fromiter(bits.values(), np.uint64, len(bits)))
        if not sum(map(len, names)):
            raise SourceError(
                f"no class of {self.root} has an image with a mask whose feature is in {self.answers.path}: "
                "give masks and answers of one release"
            )
        every = np.concatenate(names)
        # An image that two classes list has the masks of the first one; the order is by class.
        unique, first = np.unique(every, return_index=True)
        for attribute, value in (
            ("classes", tuple(classes)),
            ("_names", unique),
            ("_class_of", np.concatenate(owners)[first]),
            ("_members", np.concatenate(members)[first]),
            (
                "notes",
                {
                    "classes without answers": unknown,
                    "features without answers": unanswered,
                    "images that a second class lists": len(every) - len(unique),
                },
            ),
        ):
            object.__setattr__(self, attribute, value)


def _folder(root: Path) -> Path:
    for folder in (root, root / FOLDER):
        if _class_folders(folder):
            return folder
    what = f"has no {LISTING} in a folder of a class" if root.is_dir() else "is no folder"
    raise SourceError(
        f"{root} {what}: give the unpacked {FOLDER} (ROOT/n01440764/{LISTING}, "
        "ROOT/n01440764/feature_59/n01440764_10026.JPEG)"
    )


def _class_folders(folder: Path) -> list[str]:
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if WNID.fullmatch(entry.name))
    except OSError:
        return []
    return [name for name in names if (folder / name / LISTING).is_file()]


def _answers(folder: Path) -> Path:
    places = [
        place / inner / ANSWERS
        for place in (folder, folder.parent)
        for inner in ("", "mturk_results")
    ]
    for path in places:
        if path.is_file():
            return path
    raise SourceError(
        f"no {ANSWERS} in or beside {folder}: it is mturk_results/{ANSWERS} of the published repository; put "
        "it there, or name it (--salient-answers)"
    )
