"""The files of a comparison: its numbers and its tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

from qscore_fast.finetuning.comparison.result import Comparison
from qscore_fast.finetuning.comparison.table import arms_table, table_two
from qscore_fast.scoring.atomic import made_folder, write_text


def write_comparison(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Path]:
    """Write compare.json, which ``Comparison.read`` reads, compare.txt and compare.md.

    Raises:
        StoreError: the folder cannot be written.
    """
    folder = made_folder(folder)
    paths = [folder / f"compare.{ending}" for ending in ("json", "txt", "md")]
    write_text(paths[0], json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n")
    for path, markdown in ((paths[1], False), (paths[2], True)):
        lines = [*arms_table(comparison, markdown), "", *table_two([comparison], markdown)]
        write_text(path, "\n".join(lines) + "\n")
    return paths
