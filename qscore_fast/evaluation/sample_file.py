"""Files that say something about samples: Parquet or CSV with a sample_id in each row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from qscore_fast.errors import SettingsError

ID = "sample_id"


def read_samples(path: Path) -> pa.Table:
    """All of a Parquet or CSV file; sample_id, label and prediction of a CSV are text."""
    kind = path.suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise SettingsError(f"{path} is neither .parquet nor .csv: give one of these")
    try:
        if kind == ".parquet":
            with pq.ParquetFile(path) as file:
                return file.read()
        # An id such as 0001, or a class such as 00, must stay text.
        text = dict.fromkeys((ID, "label", "prediction"), pa.string())
        options = pa.csv.ConvertOptions(column_types=text, strings_can_be_null=True)
        return pa.csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise SettingsError(
            f"{path} cannot be read ({reason}): give a Parquet or CSV file"
        ) from error


def text_of(column: pa.ChunkedArray) -> pa.Array:
    """(n,) strings, whatever the column holds."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string()).combine_chunks()


def check_ids(path: Path, ids: pa.Array) -> None:
    """SettingsError unless every row has an id of its own."""
    if len(ids) == 0:
        raise SettingsError(f"{path} has no rows: give one for each sample")
    if ids.null_count:
        raise SettingsError(
            f"{path} has {ids.null_count:,} rows without a sample_id: add or drop them"
        )
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    if len(repeated):
        raise SettingsError(
            f"{path} holds {len(repeated):,} ids more than once, such as {some_of(repeated)}: give one "
            "row a sample"
        )


def refuse_nulls(path: Path, column: pa.ChunkedArray, name: str, ids: pa.Array) -> None:
    """SettingsError, naming the first, if a row has no value."""
    if column.null_count:
        at = pc.index(pc.is_null(column.combine_chunks()), True).as_py()
        raise SettingsError(
            f"{path} has {column.null_count:,} rows without {name}, the first is {ids[at].as_py()!r}: fill "
            "them in, or drop the rows and use --subset"
        )


def some_of(ids: pa.Array | list[str]) -> str:
    """The first three, for a message."""
    first = [i if isinstance(i, str) else i.as_py() for i in ids[:3]]
    return ", ".join(repr(i) for i in first) + (", ..." if len(ids) > 3 else "")
