"""All that a run holds, in a form that can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def tables_of(out: Path) -> dict[str, Any]:
    """Every table with its metadata, every array of features.npz and of the embeddings."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found[name] = (table.to_pylist(), table.schema.metadata)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found[name] = {key: arrays[key].tolist() for key in arrays}
        elif path.suffix == ".npy":
            found[name] = np.load(path).tobytes()
        elif path.is_file() and path.suffix != ".json":
            found[name] = "unexpected"
    return found
