"""What all parts of a run hold, in one hash: results that carry another one are out of date."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from qscore_fast.errors import StoreError
from qscore_fast.scoring.store import Store

_TAIL = 8  # of a Parquet file: the footer's length in four bytes, and "PAR1"


def parts_digest(store: Store) -> str:
    """SHA-256 (hex) over the counts, errors and footer of every part, in order.

    The footer has the part's own hash of its rows; in parts of before that, the least and greatest value
    and the size of every column. Nothing else is read: 0.2 ms a part on a local disk.

    Raises:
        StoreError: a part is missing or damaged.
    """

    def of_part(index: int) -> bytes:
        notes = store.notes(index)
        counted = [notes[key] for key in ("num_images", "num_scored", "errors")]
        digest = hashlib.sha256(json.dumps(counted).encode())
        digest.update(_footer(store.part_path(index)))
        return digest.digest()

    digest = hashlib.sha256()
    for one in store.each_unit(of_part):
        digest.update(one)
    return digest.hexdigest()


def _footer(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(end - _TAIL, 0))
            length = int.from_bytes(file.read(4), "little")
            file.seek(max(end - _TAIL - length, 0))
            return file.read(length)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
