"""The validation labels of ImageNet's development kit."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import zlib
from typing import Any

from qscore_fast.errors import MissingExtraError, SourceError

TRUTH = "validation_ground_truth.txt"  # ILSVRC2012_..., in later kits ILSVRC2015_clsloc_...
SYNSETS = ("map_clsloc.txt", "meta.mat")  # later kits, ILSVRC2012's kit

# The kit has 2.5 MB; what unpacks to more than this is something else.
MAX_BYTES = 1 << 26
_WNID = re.compile(r"n\d{8}")


def validation_labels(
    ground_truth: str | os.PathLike[str], synsets: str | os.PathLike[str] | None = None
) -> dict[bytes, str]:
    """The stem of every validation image, such as ``ILSVRC2012_val_00000001`` -> its WordNet id.

    Args:
        ground_truth: the kit as a folder or as ``.tar.gz`` (read in memory), or its text file of one
            ILSVRC id (from 1) a line.
        synsets: what maps the ids; see :func:`synset_ids`. None: ``map_clsloc.txt`` or ``meta.mat`` of the
            kit, or beside the text file.

    Raises:
        SourceError: something is missing, damaged or contradicts itself.
        MissingExtraError: there is only ``meta.mat``, and scipy is not installed.
    """
    place = os.fspath(ground_truth)
    files = _kit_files(place)
    truth = next((name for name in sorted(files) if name.endswith(TRUTH)), None)
    if truth is None:
        raise SourceError(f"there is no ILSVRC2012_{TRUTH} in {place}, nor in a folder data there")
    if synsets is not None:
        name, content = os.fspath(synsets), _read(os.fspath(synsets))
    else:
        name = next((name for name in SYNSETS if name in files), "")
        if not name:
            raise SourceError(
                f"there is no {' and no '.join(reversed(SYNSETS))} in {place} to tell which classes the "
                "ILSVRC ids are: give the whole development kit"
            )
        content = files[name]
    wnids = synset_ids(name, content)
    labels = {}
    for number, word in enumerate(files[truth].split(), start=1):
        wnid = wnids.get(int(word)) if word.isdigit() and len(word) < 9 else None
        if wnid is None:
            text = word[:40].decode("utf-8", "backslashreplace")
            raise SourceError(
                f"entry {number} of {truth} in {place} is {text!r}, not one of the {len(wnids)} ILSVRC "
                f"ids of {name}"
            )
        labels[b"ILSVRC2012_val_%08d" % number] = wnid
    if not labels:
        raise SourceError(f"{truth} in {place} is empty: it should hold one ILSVRC id a line")
    return labels


def synset_ids(name: str, content: bytes) -> dict[int, str]:
    """ILSVRC id (from 1) -> WordNet id.

    Args:
        name: ``.mat``: the kit's ``meta.mat``; else text: a line begins with the WordNet id, and either
            each has the ILSVRC id next (``map_clsloc.txt``), or the lines are in the order of the ids.
        content: the file.

    Raises:
        SourceError: it cannot be read, or its lines are in the order of the WordNet ids.
        MissingExtraError: scipy is not installed.
    """
    pairs = _mat_pairs(name, content) if name.endswith(".mat") else _text_pairs(name, content)
    wnids = dict(pairs)
    wrong = next((w for w in wnids.values() if not _WNID.fullmatch(w)), None)
    if wrong is not None:
        raise SourceError(f"{name} has {wrong[:40]!r} where a WordNet id (n02119789) belongs")
    if not pairs or not len(pairs) == len(wnids) == len(set(wnids.values())):
        raise SourceError(f"{name} does not give each ILSVRC id one WordNet id of its own")
    return wnids


def _text_pairs(name: str, content: bytes) -> list[tuple[int, str]]:
    text = content.decode("utf-8-sig", "backslashreplace")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if all(len(row) > 1 and row[1].isdecimal() for row in rows):
        return [(int(row[1][:9]), row[0]) for row in rows]
    wnids = [row[0] for row in rows]
    if len(wnids) > 1 and wnids == sorted(wnids):
        raise SourceError(
            f"{name} is sorted by WordNet id, which is not the order of the ILSVRC ids: give the kit's "
            "meta.mat or map_clsloc.txt"
        )
    return list(enumerate(wnids, start=1))


def _mat_pairs(name: str, content: bytes) -> list[tuple[int, str]]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("scipy", "imagenet") from None
    try:
        synsets: Any = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        # Entries with children are groups above the classes, numbered after them.
        return [
            (int(entry["ILSVRC2012_ID"]), str(entry["WNID"]))
            for entry in synsets.reshape(-1)
            if int(entry["num_children"]) == 0
        ]
    except Exception as error:  # scipy's reader raises whatever a damaged file leads to
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{name} is not the kit's table of synsets: {reason}") from error


def _kit_files(place: str) -> dict[str, bytes]:
    """The files that matter, by their names without folders."""
    if place.endswith((".tar.gz", ".tgz", ".tar")):
        return _packed_files(place)
    if os.path.isfile(place):
        folder, own = os.path.split(place)
        beside = {name: os.path.join(folder, name) for name in SYNSETS}
        found = {name: _read(path) for name, path in beside.items() if os.path.isfile(path)}
        return {own if own.endswith(TRUTH) else f"{own} as {TRUTH}": _read(place), **found}
    if not os.path.isdir(place):
        raise SourceError(
            f"there is no {place}: give ImageNet's development kit (a folder or .tar.gz) or its {TRUTH}"
        )
    for folder in (place, os.path.join(place, "data")):
        names = [name for name in _names(folder) if _matters(name)]
        if names:
            return {name: _read(os.path.join(folder, name)) for name in names}
    return {}


def _packed_files(place: str) -> dict[str, bytes]:
    found = {}
    try:
        with open(place, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(place) if packed else open(place, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SourceError(f"{place} unpacks to more than {MAX_BYTES} bytes: not the kit")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                name = os.path.basename(member.name)
                if member.isreg() and _matters(name) and (inner := tar.extractfile(member)):
                    found[name] = inner.read()
    except FileNotFoundError:
        raise SourceError(f"there is no development kit {place}") from None
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"cannot read the development kit {place}: {error}") from error
    return found


def _matters(name: str) -> bool:
    return name.endswith(TRUTH) or name in SYNSETS


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise SourceError(
                f"{path} has more than {MAX_BYTES} bytes: not a file of ImageNet's kit"
            )
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
