"""The shards that a folder, a pattern or a URL stands for."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from qscore_fast.errors import SourceError
from qscore_fast.images.sources.brace_pattern import expand_braces
from qscore_fast.images.sources.file_patterns import common_start, has_wildcard, matching_files
from qscore_fast.images.sources.file_systems import ListedFile, list_files
from qscore_fast.images.sources.file_systems import open_binary as open_url
from qscore_fast.images.sources.in_order import in_order
from qscore_fast.images.sources.local_file import open_local
from qscore_fast.images.sources.source import is_url
from qscore_fast.images.sources.tar_members import OpenBinary

SHARD_EXTENSIONS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ShardList:
    """Shards in order, each once.

    Attributes:
        location: for people.
        sizes: of the shards by their names, bytes.
        open_binary: opens them.
        start: where a shard's id begins in its name.
        notes: what was passed over.
    """

    location: str
    sizes: dict[str, int]
    open_binary: OpenBinary
    start: int
    notes: dict[str, int]


def list_shards(
    pattern: str | os.PathLike[str] | Sequence[str], open_binary: OpenBinary | None
) -> ShardList:
    """The shards of a pattern, see ``WebDatasetSource``. Sizes that no listing gave are looked up.

    Raises:
        SourceError: a shard is missing or cannot be read, there is none, or the braces are wrong.
        MissingExtraError: the URL's driver is not installed.
    """
    found = _listed(pattern, open_binary)
    sizes = _sizes(found.sizes, found.open_binary)
    return replace(found, sizes=dict(zip(found.sizes, sizes, strict=True)))


def _listed(
    pattern: str | os.PathLike[str] | Sequence[str], open_binary: OpenBinary | None
) -> ShardList:
    if not isinstance(pattern, str | os.PathLike):
        if not pattern:
            raise SourceError("no shards given: name at least one .tar")
        more = f" and {len(pattern) - 1} more" if len(pattern) > 1 else ""
        return _named(f"{pattern[0]}{more}", list(pattern), open_binary)
    name = os.fspath(pattern)
    local = not is_url(name)
    if open_binary is not None:
        return _named(name, expand_braces(name), open_binary)
    if local and os.path.isfile(name):
        return _named(name, [name], None)
    if local and os.path.isdir(name):
        return _in_folder(name)
    if has_wildcard(name) or ("{" in name and not name.lower().endswith(SHARD_EXTENSIONS)):
        filesystem, files, num_ignored = matching_files(name, *SHARD_EXTENSIONS)
        return _of_files(name, filesystem, files, num_ignored)
    if local or name.lower().endswith(SHARD_EXTENSIONS):
        return _named(name, expand_braces(name), None)
    return _in_folder(name)


def _named(location: str, names: Sequence[str], open_binary: OpenBinary | None) -> ShardList:
    sizes = dict.fromkeys(names, -1)
    notes = {"shards named twice, read once": len(names) - len(sizes)}
    if open_binary is None:
        open_binary = open_url if any(map(is_url, names)) else open_local
    return ShardList(location, sizes, open_binary, common_start(list(sizes)), notes)


def _in_folder(folder: str) -> ShardList:
    filesystem, files, num_ignored = list_files(folder, *SHARD_EXTENSIONS)
    listed = _of_files(folder, filesystem, files, num_ignored)
    # Ids are relative to the folder that was given, also where all shards lie deeper.
    return replace(listed, start=len(next(iter(listed.sizes))) - len(os.fsdecode(files[0].name)))


def _of_files(
    location: str, filesystem: Any, files: Sequence[ListedFile], num_ignored: int
) -> ShardList:
    if not files:
        kinds = " ".join(SHARD_EXTENSIONS)
        raise SourceError(f"no shard in {location} ({kinds}, at any depth)")
    open_binary: OpenBinary = open_local
    sizes = {file.path: -1 for file in files}
    if filesystem is not None:
        open_binary = open_url
        sizes = {filesystem.unstrip_protocol(file.path): file.size for file in files}
    notes = {"files of other kinds ignored": num_ignored}
    return ShardList(location, sizes, open_binary, common_start(list(sizes)), notes)


def _sizes(known: Mapping[str, int], open_binary: OpenBinary) -> list[int]:
    """The sizes of all shards; those that are not known are looked up, some at a time."""

    def size_of(name: str) -> int | None:
        if known[name] >= 0:
            return known[name]
        try:
            if open_binary is open_local:
                status = os.stat(name)
                if not stat.S_ISREG(status.st_mode):
                    raise SourceError(f"{name} is not a regular file: a shard is a .tar")
                return status.st_size
            with open_binary(name) as stream:
                return stream.seek(0, os.SEEK_END)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"cannot read the shard {name}: {error}") from error

    sizes = list(in_order(partial(size_of, name) for name in known))
    missing = [name for name, size in zip(known, sizes, strict=True) if size is None]
    if missing:
        raise SourceError(
            f"{len(missing)} of {len(known)} shards are missing, the first is {missing[0]}"
        )
    return [size for size in sizes if size is not None]
