"""interpretation.parquet and errors.parquet, from the parts."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.images import Unit
from qscore_fast.saliency.correctness_by_name import CorrectnessByName
from qscore_fast.saliency.interpretation_rows import part_schema, prefixes
from qscore_fast.saliency.interpretation_store import InterpretationStore
from qscore_fast.saliency.masked_images import Passed
from qscore_fast.saliency.salient_imagenet import SalientImageNet
from qscore_fast.scoring.atomic import replacing


def write_rows(
    store: InterpretationStore,
    units: Sequence[Unit],
    salient: SalientImageNet,
    outcomes: Sequence[CorrectnessByName | None],
) -> tuple[dict[str, int], list[tuple[Unit, int]]]:
    """The parts as interpretation.parquet and errors.parquet, one in memory at a time.

    Returns:
        What there was, and how many rows of interpretation.parquet each unit has.

    Raises:
        StoreError: a part is missing or damaged, or a file cannot be written.
        SettingsError: a file of outcomes knows none of the images.
    """
    full = part_schema(len(outcomes))
    kept = [field for field in full if field.name not in ("stage", "error")]
    kept += [pa.field(f"{prefix}correct", pa.bool_()) for prefix in prefixes(len(outcomes))]
    bad = pa.schema([full.field(name) for name in ("sample_id", "name", "stage", "error")])
    measured = failed = 0
    passed = Passed()
    joined = [0] * len(outcomes)
    rows_of_units: list[tuple[Unit, int]] = []
    example = ""
    with (
        replacing(store.path / "interpretation.parquet") as rows_file,
        replacing(store.path / "errors.parquet") as errors_file,
        pq.ParquetWriter(rows_file, pa.schema(kept), compression="zstd") as rows_writer,
        pq.ParquetWriter(errors_file, bad, compression="zstd") as errors_writer,
    ):
        for unit in units:
            table, unit_passed = store.read_part(unit.index)
            passed += unit_passed
            good = table.filter(table["error"].is_null()).drop_columns(["stage", "error"])
            wrong = table.filter(table["error"].is_valid()).select(bad.names)
            ids, names = good["sample_id"].to_pylist(), good["name"].to_pylist()
            example = example or next(iter(ids), "")
            for number, outcome in enumerate(outcomes):
                found = [None] * len(ids) if outcome is None else outcome.outcomes(ids, names)
                joined[number] += sum(value is not None for value in found)
                field = pa.schema(kept).field(f"{prefixes(len(outcomes))[number]}correct")
                good = good.append_column(field, pa.array(found, pa.bool_()))
            rows_writer.write_table(good)
            errors_writer.write_table(wrong)
            rows_of_units.append((unit, len(good)))
            measured += len(good)
            failed += len(wrong)
        if measured:
            for outcome, count in zip(outcomes, joined, strict=True):
                if outcome is not None:
                    outcome.check_joined(count, example)
    counts = {
        "images_listed": len(salient),
        "images_measured": measured,
        "images_missing": len(salient) - measured - failed,
        "images_failed": failed,
        "others": passed.others,
        "repeated": passed.repeated,
        "unreadable": passed.unreadable,
    }
    return counts, rows_of_units
