"""``open_source``: which kind of source a path or URL is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.images.sources.folder import EXTENSIONS, FolderSource
from qscore_fast.images.sources.source import Source, is_url

_LISTS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson")
_TARS = (".tar", ".tar.gz", ".tgz")
_IMAGENET_SHARD = re.compile(r"n\d{8}\.tar")


def open_source(
    spec: str | os.PathLike[str],
    *,
    column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    split: str | None = None,
) -> Source:
    """The source that a path or URL names, told by what is there.

    Args:
        spec: a folder of images; a list of them (.txt, .csv, .tsv, .jsonl, or .parquet with a column of
            paths); a WebDataset tar, a folder of such or a pattern with braces; Parquet files with
            images, or a folder or pattern of such; a folder that Hugging Face's datasets saved; ImageNet's
            original tars, or its tree as Kaggle has it; a URL of a file system that fsspec knows.
        column, label_column, id_column: of a list or Parquet files, where their names do not tell.
        ground_truth: ImageNet's devkit, for the labels of its flat val folder or of its val tar.
        split: of Kaggle's tree: "train", "val" (the default) or "test".

    Raises:
        SourceError: there is nothing there, or nothing that holds images.
        SettingsError: an option that this kind of source does not have.
        MissingExtraError: a library that the source needs is not installed.
    """
    name = os.fspath(spec)
    columns = {"column": column, "label_column": label_column, "id_column": id_column}
    options = {**columns, "ground_truth": ground_truth, "split": split}
    kind = _kind(name, ground_truth is not None)
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(given.keys() - _OPTIONS.get(kind, set()))
    if unknown:
        raise SettingsError(
            f"{name} is read as {_WORDS[kind]}, which has no {' and no '.join(unknown)}"
        )
    return _open(kind, name, given)


_WORDS = {
    "folder": "a folder of images",
    "list": "a list of images",
    "webdataset": "WebDataset tars",
    "parquet": "Parquet files",
    "hf_dataset": "a saved Hugging Face data set",
    "imagenet_tar": "an original tar of ImageNet",
    "imagenet_val": "ImageNet's flat val folder",
    "imagenet_kaggle": "ImageNet as Kaggle has it",
    "remote": "a remote folder of images",
}
_COLUMNS = {"column", "label_column", "id_column"}
_OPTIONS = {
    "list": _COLUMNS,
    "parquet": _COLUMNS,
    "hf_dataset": _COLUMNS,
    "imagenet_tar": {"ground_truth"},
    "imagenet_val": {"ground_truth"},
    "imagenet_kaggle": {"split"},
}


def _kind(name: str, has_ground_truth: bool) -> str:
    last = name.lower().rstrip("/").rpartition("/")[2]
    if last.endswith(_TARS):
        if not is_url(name) and _is_imagenet_tar(Path(name)):
            return "imagenet_tar"
        return "webdataset"
    if last.endswith(".parquet"):
        return "parquet" if _holds_images(name) else "list"
    if last.removesuffix(".gz").endswith(_LISTS):
        return "list"
    if is_url(name):
        return "remote"
    folder = Path(name)
    if has_ground_truth:
        return "imagenet_val"
    if (folder / "Data" / "CLS-LOC").is_dir() or (folder / "ILSVRC/Data/CLS-LOC").is_dir():
        return "imagenet_kaggle"
    if any((folder / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        return "hf_dataset"
    return _kind_of_folder(folder)


def _kind_of_folder(folder: Path) -> str:
    """By its own files, or those in its "data" folder, as on Hugging Face's hub."""
    for place in (folder, folder / "data"):
        try:
            names = [entry.name.lower() for entry in os.scandir(place) if entry.is_file()]
        except OSError:
            continue
        if any(name.endswith(tuple(e.decode() for e in EXTENSIONS)) for name in names):
            return "folder"
        for endings, kind in ((_TARS, "webdataset"), ((".parquet",), "parquet")):
            if any(name.endswith(endings) for name in names):
                return kind
    return "folder"


def _is_imagenet_tar(path: Path) -> bool:
    """ImageNet's own train tar (of tars) or val tar, told by the first member's name."""
    import tarfile

    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
    except (OSError, tarfile.TarError, EOFError):
        return False
    return first is not None and (
        _IMAGENET_SHARD.fullmatch(first.name) is not None
        or re.fullmatch(r"(\./)?ILSVRC2012_(val|test)_\d{8}\.JPEG", first.name) is not None
    )


def _holds_images(name: str) -> bool:
    """Whether a Parquet file has a column of bytes, not only of paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from qscore_fast.images.sources.image_columns import holds_images

    if is_url(name) or any(sign in name for sign in "*?[{"):
        return True
    try:
        schema = pq.read_schema(name)
    except (OSError, pa.ArrowException):
        return True
    return any(holds_images(field.type) for field in schema)


def _open(kind: str, name: str, given: dict[str, Any]) -> Source:
    remote = is_url(name)
    if kind == "list":
        from qscore_fast.images.sources.file_list import FileListSource

        if remote:
            raise SourceError(f"{name} is a list at a URL: download it, it may name files anywhere")
        return FileListSource(name, **given)
    if kind == "webdataset":
        from qscore_fast.images.sources.file_systems import open_binary
        from qscore_fast.images.sources.webdataset import WebDatasetSource

        return WebDatasetSource(name, open_binary=open_binary) if remote else WebDatasetSource(name)
    if kind == "parquet":
        from qscore_fast.images.sources.parquet import ParquetSource

        return ParquetSource(name, **given)
    if kind == "hf_dataset":
        from qscore_fast.images.sources.hf_dataset import HFDatasetSource

        return HFDatasetSource(name, **given)
    if kind == "remote":
        from qscore_fast.images.sources.remote import RemoteFolderSource

        return RemoteFolderSource(name)
    if kind == "imagenet_val":
        from qscore_fast.images.sources.imagenet import ImageNetValSource

        return ImageNetValSource(name, given["ground_truth"])
    if kind == "imagenet_kaggle":
        from qscore_fast.images.sources.imagenet import ImageNetKaggleSource

        return ImageNetKaggleSource(name, given.get("split", "val"))
    if kind == "imagenet_tar":
        from qscore_fast.images.sources.imagenet_devkit import validation_labels
        from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource

        labels = None
        if "ground_truth" in given:
            stems = validation_labels(given["ground_truth"])
            labels = {f"{stem.decode()}.JPEG": label for stem, label in stems.items()}
        return ImageNetTarsSource(name, labels)
    return FolderSource(name)
