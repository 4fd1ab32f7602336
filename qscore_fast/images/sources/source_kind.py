"""``kind_of``: what a path or URL is read as, told by what is there."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.sources.folder import EXTENSIONS, is_folder
from qscore_fast.images.sources.shard_list import SHARD_EXTENSIONS
from qscore_fast.images.sources.source import is_url

SourceKind = Literal[
    "folder",
    "list",
    "webdataset",
    "parquet",
    "hf_dataset",
    "imagenet-tars",
    "imagenet-val",
    "imagenet-kaggle",
    "remote",
]

_LISTS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
_IMAGES = tuple(extension.decode() for extension in EXTENSIONS)
_INNER_TAR = re.compile(rb"n\d{8}\.tar")
_FLAT_IMAGE = re.compile(rb"ILSVRC2012_(val|test)_\d{8}\.JPEG")
_ORIGINAL_TAR = re.compile(r"(?:^|/)ILSVRC2012_img_\w+\.tar$")
_PARQUET_TRIED = 8


class Told(NamedTuple):
    """What a place is read as.

    Attributes:
        kind: of source.
        top: the top level of a URL, where it was listed to find out.
    """

    kind: SourceKind
    top: Sequence[dict[str, Any]] | None = None


def kind_of(name: str, has_ground_truth: bool = False) -> Told:
    """The kind of source that a path or URL is.

    A folder of images and a folder of tars or Parquet files are told by the folder itself and, as on
    Hugging Face's hub, by its folder "data". Parquet files without a column of bytes decide nothing.

    Args:
        name: a path, pattern or URL.
        has_ground_truth: whether labels of ImageNet's validation images were given.

    Raises:
        SourceError: a folder holds images and tars or Parquet files, or original tars of ImageNet; a URL
            cannot be listed.
        MissingExtraError: the URL's driver is not installed.
    """
    last = name.lower().rstrip("/").rpartition("/")[2]
    if last.endswith(SHARD_EXTENSIONS):
        return Told("imagenet-tars" if _is_imagenet_tar(name) else "webdataset")
    if last.endswith(".parquet"):
        return Told("parquet" if _is_pattern(name) or holds_images(name, True) else "list")
    if last.removesuffix(".gz").endswith(_LISTS):
        return Told("list")
    if is_url(name):
        return _kind_of_url(name, has_ground_truth)
    from qscore_fast.images.sources.imagenet import kaggle_base

    if has_ground_truth:
        return Told("imagenet-val")
    if kaggle_base(name) is not None:
        return Told("imagenet-kaggle")
    if any(os.path.isfile(os.path.join(name, file)) for file in _SAVED):
        return Told("hf_dataset")
    return Told(_kind_of_folder(name, _local_entries, "folder"))


_SAVED = ("dataset_dict.json", "dataset_info.json")


def holds_images(name: str, otherwise: bool) -> bool:
    """Whether a Parquet file has a column of bytes, not only of paths; ``otherwise`` if it is unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from qscore_fast.images.sources import image_columns
    from qscore_fast.images.sources.file_systems import open_binary

    try:
        with open_binary(name) if is_url(name) else open(name, "rb") as file:
            schema = pq.read_schema(file)
    except (OSError, pa.ArrowException):
        return otherwise
    return any(image_columns.holds_images(field.type) for field in schema)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[{") and (is_url(name) or not os.path.exists(name))


def _is_imagenet_tar(name: str) -> bool:
    """ImageNet's own train tar (of tars) or val tar, told by the first member's name."""
    import gzip

    from qscore_fast.images.sources.file_systems import open_binary
    from qscore_fast.images.sources.local_file import open_local
    from qscore_fast.images.sources.tar_members import members, open_tar

    if _is_pattern(name):
        return False
    try:
        with open_tar(name, open_binary if is_url(name) else open_local) as stream:
            if isinstance(stream, gzip.GzipFile):
                return False
            first = next(members(stream), None)
    except ImageError:
        return False
    return first is not None and any(
        pattern.fullmatch(first.name) for pattern in (_INNER_TAR, _FLAT_IMAGE)
    )


_Entries = Callable[[str], tuple[list[str], list[str]]]  # of a folder: its files, its folders


def _local_entries(folder: str) -> tuple[list[str], list[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.path, is_folder(entry)) for entry in entries]
    except OSError:
        return [], []
    return sorted(p for p, is_dir in found if not is_dir), sorted(
        p for p, is_dir in found if is_dir
    )


def _kind_of_url(url: str, has_ground_truth: bool) -> Told:
    from qscore_fast.images.sources.file_systems import filesystem_of
    from qscore_fast.images.sources.imagenet import is_kaggle_inner, kaggle_base
    from qscore_fast.images.sources.remote import top_level

    if _is_pattern(url):
        raise SourceError(
            f"{url} does not say what it stands for: end the pattern with .tar or .parquet, or give the "
            "kind of source (--source-kind)"
        )
    if has_ground_truth:
        return Told("imagenet-val")
    filesystem, root = filesystem_of(url)
    top = top_level(url)
    names = {entry["name"].rstrip("/").rpartition("/")[2] for entry in top}
    of_kaggle = names & {"ILSVRC", "Data"} or is_kaggle_inner(url)
    if of_kaggle and kaggle_base(url) is not None:
        return Told("imagenet-kaggle")
    if names & set(_SAVED):
        return Told("hf_dataset")

    def entries(folder: str) -> tuple[list[str], list[str]]:
        found = top
        if folder != root:
            found = top_level(filesystem.unstrip_protocol(folder))
        names = [(entry["name"], entry.get("type") == "directory") for entry in found]
        files = [filesystem.unstrip_protocol(name) for name, is_folder in names if not is_folder]
        return sorted(files), sorted(name for name, is_folder in names if is_folder)

    return Told(_kind_of_folder(root, entries, "remote"), top)


def _kind_of_folder(
    root: str, entries: _Entries, of_images: Literal["folder", "remote"]
) -> SourceKind:
    files, folders = entries(root)
    data = next((f for f in folders if f.rstrip("/").rpartition("/")[2] == "data"), None)
    for place in (files, entries(data)[0] if data is not None and not _packed(files) else []):
        if packed := _packed(place):
            break
    else:
        return of_images
    tars = [file for file in packed if file.lower().endswith(SHARD_EXTENSIONS)]
    tables = [file for file in packed if file not in tars]
    if original := next((tar for tar in tars if _ORIGINAL_TAR.search(tar)), None):
        raise SourceError(
            f"{root} holds an original tar of ImageNet: give the tar itself ({original}), or the kind of "
            "source (--source-kind)"
        )
    with_images = next((t for t in tables[:_PARQUET_TRIED] if holds_images(t, False)), None)
    image = next(_images(files, folders, entries), None)
    found: dict[SourceKind, str] = {}
    if image is not None:
        found[of_images] = image
    if tars:
        found["webdataset"] = tars[0]
    if with_images is not None:
        found["parquet"] = with_images
    if len(found) > 1:
        examples = " and ".join(found.values())
        raise SourceError(
            f"{root} holds several kinds of images, such as {examples}: say which to read (--source-kind "
            f"{' or '.join(found)})"
        )
    return next(iter(found), "parquet")


def _packed(files: Sequence[str]) -> list[str]:
    """The tars and Parquet files among them."""
    return [
        file
        for file in files
        if file.lower().endswith((*SHARD_EXTENSIONS, ".parquet"))
        and not file.rpartition("/")[2].startswith(".")
    ]


def _images(files: list[str], folders: list[str], entries: _Entries) -> Iterator[str]:
    """The images of a folder at any depth, those near the top first; each real folder once."""
    waiting, visited = deque(folders), set()
    yield from (file for file in files if file.lower().endswith(_IMAGES))
    while waiting:
        folder = waiting.popleft()
        real = folder if is_url(folder) else os.path.realpath(folder)
        if real not in visited:
            visited.add(real)
            files, folders = entries(folder)
            yield from (file for file in files if file.lower().endswith(_IMAGES))
            waiting.extend(folders)
