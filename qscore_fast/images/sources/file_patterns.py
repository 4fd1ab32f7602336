"""Files that a pattern with braces or wildcards stands for."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from qscore_fast.images.sources.brace_pattern import expand_braces
from qscore_fast.images.sources.file_systems import (
    ListedFile,
    filesystem_of,
    list_files,
    listed_file,
    listing,
)
from qscore_fast.images.sources.in_order import in_order
from qscore_fast.images.sources.source import is_url


def matching_files(location: str, *endings: str) -> tuple[Any, list[ListedFile], int]:
    """``list_files`` of every place that the braces of a location stand for, in the order of the braces.

    Names are relative to the folder that all files share. A file that occurs again is listed once.

    Raises:
        SourceError: as ``list_files``, for each of the places; or the braces are wrong.
        MissingExtraError: the URL's driver is not installed.
    """
    if "{" not in location or (not is_url(location) and _is_there(location)):
        return list_files(location, *endings)
    places = expand_braces(location)
    filesystem = filesystem_of(location)[0] if is_url(location) else None
    found = None
    if filesystem is not None and not has_wildcard(location):
        found = _named_objects(filesystem, places)
    others = 0
    if found is None:
        found = []
        for place in places:
            _, files, num_others = list_files(place, *endings)
            found += files
            others += num_others
    once = list({file.path: file for file in found}.values())
    start = common_start([file.path for file in once])
    named = [replace(file, name=os.fsencode(file.path[start:])) for file in once]
    return filesystem, named, others


def _is_there(location: str) -> bool:
    """Whether a local location is of names that have braces themselves."""
    return os.path.exists(location) or any(glob.iglob(location, recursive=True))


def has_wildcard(location: str) -> bool:
    """Whether a path or URL has ``*``, ``?`` or ``[...]`` (in a URL, beside its braces)."""
    return glob.has_magic(location)


def common_start(names: Sequence[str]) -> int:
    """The length of the folder, with its slash, that all names share."""
    folders = [name.replace(os.sep, "/").split("/")[:-1] for name in names]
    shared = takewhile(
        lambda pair: pair[0] == pair[1], zip(min(folders), max(folders), strict=False)
    )
    return sum(len(part) + 1 for part, _ in shared)


def _named_objects(filesystem: Any, urls: Sequence[str]) -> list[ListedFile] | None:
    """Objects, some asked for at a time; None where one of them is a folder."""

    def ask(url: str) -> tuple[str, dict[str, Any]]:
        path = filesystem_of(url)[1]
        return path, listing(lambda: filesystem.info(path), url)

    filesystem.invalidate_cache()
    found = list(in_order(partial(ask, url) for url in urls))
    if any(info.get("type") == "directory" for _, info in found):
        return None
    return [listed_file(path.rpartition("/")[0], path, info) for path, info in found]
