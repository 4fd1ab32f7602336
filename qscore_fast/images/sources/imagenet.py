"""ImageNet (ILSVRC 2012) on disk, where a folder's names do not give the labels."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

from qscore_fast.errors import SettingsError, SourceError, UnavailableError
from qscore_fast.images.sample_id import sample_id_of_path
from qscore_fast.images.sources.file_systems import is_file, is_folder, open_place
from qscore_fast.images.sources.folder import FolderSource
from qscore_fast.images.sources.heads import heads
from qscore_fast.images.sources.imagenet_devkit import validation_labels
from qscore_fast.images.sources.remote import RemoteFolderSource
from qscore_fast.images.sources.source import Sample, Unit, is_url, manifest_hash

SPLITS = ("train", "val", "test")


_Images = FolderSource | RemoteFolderSource


class _LabelledFolder:
    """The images of a folder, with labels from elsewhere or none."""

    def __init__(self, images: _Images, labels: Sequence[str] | None, missing: int) -> None:
        self._images = images
        self._missing = missing
        self._classes = tuple(sorted(set(labels or ())))
        places = {label: place for place, label in enumerate(self._classes)}
        self._labels = array("l", (places[label] for label in labels or ()))

    @property
    def location(self) -> str:
        """The folder of the images, or its URL, as text."""
        return self._images.location

    @property
    def has_labels(self) -> bool:
        """Whether the labels are known."""
        return bool(self._classes)

    def known_classes(self) -> frozenset[str]:
        """The labels that images have."""
        return frozenset(self._classes)

    @property
    def num_samples(self) -> int:
        """How many images there are."""
        return self._images.num_samples

    @property
    def notes(self) -> dict[str, int]:
        """What was passed over, and how many labels have no image."""
        return {**self._images.notes, "images of the ground truth missing": self._missing}

    @cached_property
    def manifest_hash(self) -> str:
        """SHA-256 (hex) over every sample id, file size and label, in order."""
        labels = manifest_hash((self._classes[place], place) for place in self._labels)
        return manifest_hash([(self._images.manifest_hash, 0), (labels, 0)])

    def units(self, size: int) -> Sequence[Unit]:
        """Runs of ``size`` images; the last may be shorter."""
        return self._images.units(size)

    def read(self, unit: Unit) -> Iterator[Sample]:
        """The images of a unit, by their paths, or from a URL with their content.

        Raises:
            UnavailableError: a store does not answer.
        """
        return self._labelled(unit, self._images.read(unit))

    def heads(self, unit: Unit) -> Iterator[Sample]:
        """The same without content."""
        return self._labelled(unit, heads(self._images, unit))

    def _labelled(self, unit: Unit, samples: Iterator[Sample]) -> Iterator[Sample]:
        for index, sample in zip(unit.payload, samples, strict=True):
            label = self._classes[self._labels[index]] if self._labels else None
            yield replace(sample, label=label)


class ImageNetValSource(_LabelledFolder):
    """The flat validation folder with the development kit's ground truth; labels are WordNet ids.

    The ground truth counts ILSVRC ids, from 1 and in an order of their own: not that of the sorted WordNet
    ids, which folders and most networks follow. The kit's table of synsets tells which is which. A sample's
    id is its file name.

    Args:
        folder: holds ILSVRC2012_val_00000001.JPEG and so on, and no class folders; may be a URL.
        ground_truth: on a disk, ILSVRC2012_devkit_t12 as a folder or as its .tar.gz (read in memory), or
            ILSVRC2012_validation_ground_truth.txt.
        synsets: the kit's meta.mat or map_clsloc.txt, or a text file of the WordNet ids in the order of the
            ILSVRC ids; None: the first two are looked for in the kit, or beside the text file.

    Raises:
        SourceError: something is missing, damaged, or does not belong together.
        MissingExtraError: reading meta.mat takes scipy.
    """

    kind: ClassVar[str] = "imagenet-val"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        ground_truth: str | os.PathLike[str],
        synsets: str | os.PathLike[str] | None = None,
    ) -> None:
        images = _images_of(os.fspath(folder))
        labels = validation_labels(ground_truth, synsets)
        super().__init__(images, *_of_stems(images, labels, os.fspath(ground_truth)))


class ImageNetKaggleSource(_LabelledFolder):
    """One split of Kaggle's tree (ILSVRC/Data/CLS-LOC and LOC_val_solution.csv); labels are WordNet ids.

    A sample's id is its path below the split's folder, which is the same as in the other layouts. ``test``
    has no labels.

    Args:
        root: the folder that holds ILSVRC, or ILSVRC itself, or Data/CLS-LOC in it, or a URL of one of them;
            LOC_val_solution.csv is looked for in the first two.
        split: "train", "val" or "test".

    Raises:
        SettingsError: there is no such split.
        SourceError: something is missing, damaged, or does not belong together.
    """

    kind: ClassVar[str] = "imagenet-kaggle"

    def __init__(self, root: str | os.PathLike[str], split: str = "val") -> None:
        if split not in SPLITS:
            raise SettingsError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        base = os.fspath(root)
        found = kaggle_base(base)
        folder = None if found is None else os.path.join(found, *_INNER, split)
        if found is None or folder is None or not is_folder(folder):
            inner = os.path.join(*_INNER, split)
            raise SourceError(
                f"there is no folder {os.path.join('ILSVRC', inner)} in {base}, nor {inner}: give the "
                "folder that holds ILSVRC"
            )
        images = _images_of(folder)
        if split == "val":
            solution = _solution(dict.fromkeys((base, found, _above(found))))
            super().__init__(images, *_of_stems(images, _solution_labels(solution), solution))
        elif split == "test":
            super().__init__(images, None, 0)
        else:
            super().__init__(images, _of_folders(images), 0)


_INNER = ("Data", "CLS-LOC")


def kaggle_base(place: str) -> str | None:
    """The folder or URL that holds Data/CLS-LOC: the place itself, ILSVRC in it, or where the place is that
    folder, the one above; None: none of them.

    Raises:
        SourceError: a store does not say.
        MissingExtraError: the URL's driver is not installed.
    """
    bases = [os.path.join(place, "ILSVRC"), place]
    if is_kaggle_inner(place):
        bases.append(_above(_above(place)))
    return next((base for base in bases if is_folder(os.path.join(base, *_INNER))), None)


def is_kaggle_inner(place: str) -> bool:
    """Whether a path or URL ends in Data/CLS-LOC."""
    parts = place.rstrip("/").split("/") if is_url(place) else os.path.abspath(place).split(os.sep)
    return tuple(parts[-2:]) == _INNER


def _above(place: str) -> str:
    if is_url(place):
        return place.rstrip("/").rpartition("/")[0]
    return os.path.dirname(os.path.abspath(place))


def _images_of(place: str) -> _Images:
    return RemoteFolderSource(place) if is_url(place) else FolderSource(place)


def _of_folders(images: _Images) -> list[str]:
    if not images.has_labels:
        raise SourceError(f"{images.location} has images beside its class folders: move them away")
    return [sample_id_of_path(path.split(b"/", 1)[0]) for path in images.paths]


def _of_stems(images: _Images, labels: Mapping[bytes, str], origin: str) -> tuple[list[str], int]:
    """The label of every image by its file name, and how many labels are left over."""
    found = []
    stems = set()
    for path in images.paths:
        if b"/" in path:
            raise SourceError(
                f"{images.location} has images in folders, such as {sample_id_of_path(path)}: give a flat "
                "validation folder here; one that is sorted into class folders needs no ground truth"
            )
        stem = path.rpartition(b".")[0]
        label = labels.get(stem)
        if label is None:
            raise SourceError(
                f"{origin} has no label for {sample_id_of_path(path)} in {images.location}: it covers "
                f"{len(labels)} images, named ILSVRC2012_val_00000001.JPEG and so on"
            )
        found.append(label)
        stems.add(stem)
    return found, len(labels) - len(stems)


def _solution(folders: Collection[str]) -> str:
    for folder in folders:
        path = os.path.join(folder, "LOC_val_solution.csv")
        if is_file(path):
            return path
    places = ", ".join(folders)
    raise SourceError(f"there is no LOC_val_solution.csv, which has the labels of val, in {places}")


def _solution_labels(path: str) -> dict[bytes, str]:
    """Stem -> WordNet id; a row is ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``."""
    labels: dict[bytes, str] = {}
    try:
        with (
            open_place(path) as content,
            io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as file,
        ):
            for row in csv.DictReader(file):
                # The boxes of an image all have its one class.
                words = (row.get("PredictionString") or "").split()
                name = row.get("ImageId")
                if not name or not words:
                    raise SourceError(
                        f"row {len(labels) + 1} of {path} has no ImageId and PredictionString"
                    )
                labels[os.fsencode(name)] = words[0]
    except UnavailableError as error:
        raise SourceError(f"cannot read {path}: {error.args[0]}") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
    if not labels:
        raise SourceError(f"{path} is empty: it should have one row for each image of val")
    return labels
