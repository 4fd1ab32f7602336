"""image_names_map.csv of a class: which images have a mask of which feature."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from pathlib import Path

from qscore_fast.errors import SourceError
from qscore_fast.saliency.bounded_text import bounded_text
from qscore_fast.saliency.published_name import NAME

MAX_BYTES = 2**24

_FEATURE = re.compile(r"[0-9]{1,5}")


def read_mask_listing(path: Path) -> dict[int, dict[str, None]]:
    """Feature index -> the images that have a mask of it, in the file's order.

    A column is a feature, its cells are names without extension; features with fewer images than others
    end in empty cells. A column without a heading, as pandas writes its index, is passed over.

    Raises:
        SourceError: missing or too large, a heading that is no feature, a cell that is no image's name,
            or a row with more cells than there are columns; the text names its line.
    """
    reader = csv.reader(io.StringIO(bounded_text(path, MAX_BYTES), newline=""), strict=True)
    listing: dict[int, dict[str, None]] = defaultdict(dict)
    try:
        columns = [_feature(path, heading) for heading in next(reader, [])]
        if not any(column is not None for column in columns):
            raise SourceError(f"{path} has no column of a feature: take the published file")
        if len(columns) != len(set(columns)):
            raise SourceError(f"{path} has two columns of one feature: take the published file")
        for row in reader:
            if len(row) > len(columns):
                raise SourceError(
                    f"{path}, line {reader.line_num}: {len(row)} cells under {len(columns)} headings: take "
                    "the published file"
                )
            for column, name in zip(columns, row, strict=False):
                if column is None or not name:
                    continue
                if not NAME.fullmatch(name):
                    raise SourceError(
                        f"{path}, line {reader.line_num}: {name[:60]!r} is no name of an image such as "
                        "n01440764_10026: take the published file"
                    )
                listing[column][name] = None
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: {error}") from error
    return dict(listing)


def _feature(path: Path, heading: str) -> int | None:
    if not heading or heading.startswith("Unnamed:"):
        return None
    if not _FEATURE.fullmatch(heading):
        raise SourceError(
            f"{path}: the heading {heading[:60]!r} is no index of a feature: take the published file"
        )
    return int(heading)
