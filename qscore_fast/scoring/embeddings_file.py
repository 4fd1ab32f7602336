"""The float16 representations of one unit in a file of their own: NumPy's format, or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.scoring.atomic import replacing

Format = Literal["npy", "parquet"]


def write_embeddings(
    rows: np.ndarray, sample_ids: list[str], path: Path, file_format: Format
) -> None:
    """Write (n, r) float16 atomically; Parquet holds the n sample ids beside them."""
    with replacing(path) as temporary:
        if file_format == "npy":
            with temporary.open("wb") as file:
                np.save(file, rows, allow_pickle=False)
            return
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        table = pa.table({"sample_id": pa.array(sample_ids, pa.string()), "embedding": vectors})
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            write_page_checksum=True,
        )


def read_embeddings(path: Path, file_format: Format) -> np.ndarray:
    """(n, r) float16: mapped from an ``.npy``, read from a Parquet file.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        if file_format == "npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            vectors = file.read(["embedding"])["embedding"].combine_chunks()
        return vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise StoreError(f"{path} is missing or damaged: {reason}") from error


def num_embeddings(path: Path, file_format: Format) -> int | None:
    """How many rows the file says it has, without reading them; None if it is missing or cut off."""
    try:
        if file_format == "npy":
            return len(np.load(path, mmap_mode="r", allow_pickle=False))
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError, pa.ArrowException):
        return None
