"""``open_source``: the source that a path or URL names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

from qscore_fast.errors import SettingsError
from qscore_fast.images.sources.folder import FolderSource
from qscore_fast.images.sources.source import Source, is_url
from qscore_fast.images.sources.source_kind import SourceKind, Told, kind_of


def open_source(
    spec: str | os.PathLike[str],
    *,
    kind: SourceKind | None = None,
    column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    split: str | None = None,
    sizes: bool | None = None,
) -> Source:
    """The source that a path or URL names.

    Args:
        spec: a folder of images; a list of them (.txt, .csv, .tsv, .jsonl, or .parquet with a column of
            paths or URLs); a WebDataset tar, a folder of such or a pattern with wildcards or braces; Parquet
            files with images, or a folder or pattern of such; a folder that Hugging Face's datasets saved;
            ImageNet's original tars, its flat val folder, or its tree as Kaggle has it. Each may be at a URL
            of a file system that fsspec knows.
        kind: what it is read as, the ``kind`` of the source; None tells by what is there. "folder" is
            "remote" for a URL.
        column, label_column, id_column: of a list or Parquet files, where their names do not tell.
        ground_truth: ImageNet's devkit, for the labels of its flat val folder or of its val tar.
        split: of Kaggle's tree: "train", "val" (the default) or "test".
        sizes: of a list: whether the files' sizes are looked up, as they are by default, see
            ``FileListSource``.

    Raises:
        SourceError: there is nothing there, nothing that holds images, or more than one kind of it.
        SettingsError: an option that this kind of source does not have, or no such kind.
        MissingExtraError: a library that the source needs is not installed.
    """
    name = os.fspath(spec)
    columns = {"column": column, "label_column": label_column, "id_column": id_column}
    options = {**columns, "ground_truth": ground_truth, "split": split, "sizes": sizes}
    told = kind_of(name, ground_truth is not None) if kind is None else _checked(name, kind)
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(given.keys() - _OPTIONS.get(told.kind, set()))
    if unknown:
        raise SettingsError(
            f"{name} is read as {_WORDS[told.kind]}, which has no {' and no '.join(unknown)}"
        )
    return _open(told.kind, name, given, told.top)


_WORDS = {
    "folder": "a folder of images",
    "list": "a list of images",
    "webdataset": "WebDataset tars",
    "parquet": "Parquet files",
    "hf_dataset": "a saved Hugging Face data set",
    "imagenet-tars": "an original tar of ImageNet",
    "imagenet-val": "ImageNet's flat val folder",
    "imagenet-kaggle": "ImageNet as Kaggle has it",
    "remote": "a remote folder of images",
}
_COLUMNS = {"column", "label_column", "id_column"}
_OPTIONS = {
    "list": {*_COLUMNS, "sizes"},
    "parquet": _COLUMNS,
    "hf_dataset": _COLUMNS,
    "imagenet-tars": {"ground_truth"},
    "imagenet-val": {"ground_truth"},
    "imagenet-kaggle": {"split"},
}


def _checked(name: str, kind: SourceKind) -> Told:
    """A kind that was asked for."""
    if kind not in get_args(SourceKind):
        raise SettingsError(f"kind must be one of {', '.join(get_args(SourceKind))}; got {kind!r}")
    if is_url(name):
        return Told("remote" if kind == "folder" else kind)
    if kind == "remote":
        raise SettingsError(f"{name} is no URL, which a source of the kind remote is")
    return Told(kind)


def _open(
    kind: SourceKind, name: str, given: dict[str, Any], top: Sequence[dict[str, Any]] | None
) -> Source:
    if kind == "list":
        from qscore_fast.images.sources.file_list import FileListSource

        return FileListSource(name, **given)
    if kind == "webdataset":
        from qscore_fast.images.sources.webdataset import WebDatasetSource

        return WebDatasetSource(name)
    if kind == "parquet":
        from qscore_fast.images.sources.parquet import ParquetSource

        return ParquetSource(name, **given)
    if kind == "hf_dataset":
        from qscore_fast.images.sources.hf_dataset import HFDatasetSource

        return HFDatasetSource(name, **given)
    if kind == "remote":
        from qscore_fast.images.sources.remote import RemoteFolderSource

        return RemoteFolderSource(name, top)
    if kind == "imagenet-val":
        from qscore_fast.images.sources.imagenet import ImageNetValSource

        if "ground_truth" not in given:
            raise SettingsError(f"{name} as {_WORDS[kind]} needs ground_truth (--ground-truth)")
        return ImageNetValSource(name, given["ground_truth"])
    if kind == "imagenet-kaggle":
        from qscore_fast.images.sources.imagenet import ImageNetKaggleSource

        return ImageNetKaggleSource(name, given.get("split", "val"))
    if kind == "imagenet-tars":
        return _imagenet_tars(name, given.get("ground_truth"))
    return FolderSource(name)


def _imagenet_tars(name: str, ground_truth: str | os.PathLike[str] | None) -> Source:
    from qscore_fast.images.sources.file_systems import open_binary
    from qscore_fast.images.sources.imagenet_devkit import validation_labels
    from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource
    from qscore_fast.images.sources.local_file import open_local

    labels = None
    if ground_truth is not None:
        stems = validation_labels(ground_truth)
        labels = {f"{stem.decode()}.JPEG": label for stem, label in stems.items()}
    return ImageNetTarsSource(name, labels, open_binary if is_url(name) else open_local)
