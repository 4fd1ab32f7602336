"""The options that say which images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.terminal import say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from qscore_fast.images import Source

# The kinds of ``open_source``, written out here because --help imports no image library.
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

IMAGES_HELP = (
    "a folder of JPEG, PNG, WebP, BMP or GIF images at any depth (where every image lies below a folder, the "
    "first folder is its label); a list (.txt, .csv, .tsv, .jsonl, .parquet); WebDataset tars "
    "('train-{0000..0099}.tar'); Parquet files with images; a data set saved by Hugging Face; ImageNet's "
    "own tars and trees; or a URL such as s3://bucket/folder of any of these but the last two trees"
)


def add_source(parser: ArgumentParser) -> None:
    """The options of ``source_from``."""
    add = parser.add_argument_group("which images").add_argument
    add(
        "--classes",
        type=str | None,
        metavar="FILE",
        help="only the images of these labels: a file with one a line, or imagenet100",
    )
    add("--limit", type=int | None, metavar="N", help="only the first N images")
    add(
        "--sample",
        type=float | None,
        metavar="SHARE",
        help="only this share of the images, above 0 and up to 1, drawn by their ids: the same each time",
    )
    add(
        "--source-kind",
        type=SourceKind | None,
        help="what IMAGES is read as (default: what is there tells)",
    )
    add("--column", type=str | None, help="of a list or Parquet: the paths or images")
    add("--label-column", type=str | None, help="of a list or Parquet: the labels")
    add("--id-column", type=str | None, help="of a list or Parquet: the sample ids")
    add(
        "--ground-truth",
        type=str | None,
        metavar="DEVKIT",
        help="labels of ImageNet's flat val folder or val tar: its devkit, as a folder or .tar.gz",
    )
    add(
        "--split",
        type=Literal["train", "val", "test"] | None,
        help="of ImageNet as Kaggle has it (default: val)",
    )
    add(
        "--no-list-sizes",
        action="store_true",
        help="of a list: its files' sizes do not tell whether it has changed: for slow file systems and "
        "stores, and to continue a run that began without them",
    )


def source_from(options: Namespace) -> Source:
    """The source that the options of a command ask for.

    Raises:
        QScoreError: there is nothing there, or it cannot be read so.
    """
    from qscore_fast.images import Subset, class_list, open_source
    from qscore_fast.images.sources.subset import names

    source = open_source(
        options.images,
        kind=options.source_kind,
        column=options.column,
        label_column=options.label_column,
        id_column=options.id_column,
        ground_truth=options.ground_truth,
        split=options.split,
        sizes=False if options.no_list_sizes else None,
    )
    if options.classes is None and options.limit is None and options.sample is None:
        return source
    classes = None if options.classes is None else class_list(options.classes)
    subset = Subset(source, classes, options.limit, options.sample)
    if subset.unmatched:
        say(f"no image has the class {names(subset.unmatched)}")
    return subset
