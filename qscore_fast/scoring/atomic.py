"""Files that exist whole or not at all."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qscore_fast.errors import StoreError

TEMPORARY = ".tmp-"

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_OF_HOST = re.compile(rf"{re.escape(TEMPORARY)}([0-9a-f]{{8}})-[0-9a-f]{{16}}-")
_DAY = 86_400.0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; moved onto ``path`` when the block ends well.

    The data is on the disk before the name is, and the name before this returns.

    Raises:
        StoreError: the file cannot be written (no space, no permission).
    """
    temporary = path.with_name(f"{TEMPORARY}{_HOST}-{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what stopped the writing may stop this too
            temporary.unlink(missing_ok=True)


def made_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if it is missing, with those above it.

    Raises:
        StoreError: it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of runs that were killed. Call it only while nobody else writes.

    Those that another machine began within a day stay: some file systems keep the locks of each machine
    to itself, and then nobody can know that nobody else writes.
    """
    for pattern in (f"{TEMPORARY}*", ".features.npz.*.tmp"):  # the second: DiscriminativeFeatures
        for path in folder.glob(pattern):
            with suppress(OSError):  # a folder that cannot be written: the next write says so
                of_host = _OF_HOST.match(path.name)
                if of_host and of_host[1] != _HOST and time.time() - path.stat().st_mtime < _DAY:
                    continue
                path.unlink()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a directory
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
