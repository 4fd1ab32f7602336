"""The float16 representations of one unit in a file of their own: NumPy's format, or Parquet."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.scoring.atomic import replacing
from qscore_fast.scoring.part import DamagedPartError, is_damage

Format = Literal["npy", "parquet"]


def write_embeddings(
    rows: np.ndarray, sample_ids: list[str], path: Path, file_format: Format
) -> int | None:
    """Write (n, r) float16 atomically; Parquet holds the n sample ids beside them.

    Returns:
        The CRC-32 of an ``.npy``, which has no place for it; None of Parquet, whose pages have theirs.
    """
    with replacing(path) as temporary:
        if file_format == "npy":
            rows = np.ascontiguousarray(rows)
            header = io.BytesIO()
            fields = np.lib.format.header_data_from_array_1_0(rows)
            np.lib.format.write_array_header_1_0(header, fields)
            with temporary.open("wb") as file:
                file.write(header.getvalue())
                file.write(rows.data)
            return zlib.crc32(rows.data, zlib.crc32(header.getvalue()))
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        table = pa.table({"sample_id": pa.array(sample_ids, pa.string()), "embedding": vectors})
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            write_page_checksum=True,
        )
    return None


def read_embeddings(path: Path, file_format: Format, checksum: int | None = None) -> np.ndarray:
    """(n, r) float16: mapped from an ``.npy``, read from a Parquet file.

    Args:
        checksum: what ``write_embeddings`` returned: the file is read and compared before it is mapped. None
            where nobody knows, or it was compared already.

    Raises:
        DamagedPartError: missing or damaged. StoreError: it cannot be read now.
    """
    try:
        if file_format == "npy":
            if checksum is not None and _crc32(path) != checksum:
                raise ValueError("its content is not what was written")
            return np.load(path, mmap_mode="r", allow_pickle=False)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            vectors = file.read(["embedding"])["embedding"].combine_chunks()
        return vectors.flatten().to_numpy().reshape(len(vectors), vectors.type.list_size)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0]
        if not (isinstance(error, ValueError | KeyError) or is_damage(error)):
            raise StoreError(f"cannot read {path}: {reason}") from error
        raise DamagedPartError(
            f"{path} is missing or damaged ({reason}): delete it and run the same qscore score again, which "
            "redoes this part alone"
        ) from error


def _crc32(path: Path) -> int:
    checksum, buffer = 0, bytearray(2**20)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            checksum = zlib.crc32(memoryview(buffer)[:count], checksum)
    return checksum


def num_embeddings(path: Path, file_format: Format) -> int | None:
    """How many rows the file says it has, without reading them; None if it is missing or cut off."""
    try:
        if file_format == "npy":
            return len(np.load(path, mmap_mode="r", allow_pickle=False))
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError, pa.ArrowException):
        return None
