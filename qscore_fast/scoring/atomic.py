"""Files that exist whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qscore_fast.errors import StoreError

TEMPORARY = ".tmp-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; moved onto ``path`` when the block ends well.

    The data is on the disk before the name is, and the name before this returns.

    Raises:
        StoreError: the file cannot be written (no space, no permission).
    """
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}-{path.name}")
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of runs that were killed. Call it only while nobody else writes."""
    for pattern in (f"{TEMPORARY}*", ".features.npz.*.tmp"):  # the second: DiscriminativeFeatures
        for path in folder.glob(pattern):
            with suppress(OSError):  # a folder that cannot be written: the next write says so
                path.unlink()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a directory
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
