"""The folder of an interpretation: what was asked, and the parts that are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.saliency.masked_images import Passed
from qscore_fast.scoring.atomic import made_folder, remove_leftovers, replacing, write_text
from qscore_fast.scoring.locks import WRITERS, FolderLocks, Grant, busy
from qscore_fast.scoring.record import differences

FORMAT = "qscore-fast.interpretation"
ASKED = "asked.json"
RESULT_FILES = (
    "interpretation.json",
    "interpretation.md",
    "interpretation.svg",
    "interpretation.parquet",
    "errors.parquet",
    "examples.png",
)

_PASSED = b"qscore.passed"


@dataclass(frozen=True)
class InterpretationStore:
    """A part a unit of the source; it exists whole or not at all, and to resume is to list them.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    @contextmanager
    def writing(
        cls, path: str | os.PathLike[str], asked: Mapping[str, Any], overwrite: bool = False
    ) -> Iterator[InterpretationStore]:
        """Start what ``asked`` describes, or go on with it; one process at a time.

        Raises:
            StoreError: the folder holds something else, cannot be written, or is being written.
        """
        folder = made_folder(path)
        made_folder(folder / "parts")
        store = cls(folder)
        locks = FolderLocks(folder)
        try:
            alone = locks.ask(WRITERS)
            if alone is Grant.BUSY:
                raise busy(folder)
            if alone is Grant.HELD:
                remove_leftovers(folder)
                remove_leftovers(folder / "parts")
            if overwrite:
                store.clear()
            store._start(asked)
            yield store
        finally:
            locks.close()

    def has_part(self, index: int) -> bool:
        """Whether a unit is done."""
        return self._part(index).exists()

    def write_part(self, index: int, rows: pa.Table, passed: Passed) -> None:
        """Make a unit done.

        Raises:
            StoreError: it cannot be written.
        """
        metadata = {_PASSED: json.dumps(asdict(passed)).encode()}
        with replacing(self._part(index)) as temporary:
            pq.write_table(rows.replace_schema_metadata(metadata), temporary, compression="zstd")

    def read_part(self, index: int, columns: list[str] | None = None) -> tuple[pa.Table, Passed]:
        """Rows of a unit that is done, and what else it held.

        Raises:
            StoreError: missing or damaged.
        """
        path = self._part(index)
        try:
            with pq.ParquetFile(path) as file:
                table = file.read(columns)
                passed = Passed(**json.loads(file.schema_arrow.metadata[_PASSED]))
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise StoreError(
                f"{path} is damaged ({reason}): delete it, and the same command makes it again"
            ) from error
        return table.replace_schema_metadata(None), passed

    def clear(self) -> None:
        """Delete what an interpretation writes, and nothing else.

        Raises:
            StoreError: it cannot be deleted.
        """
        for path in [
            *(self.path / "parts").glob("part-*.parquet"),
            *(self.path / name for name in (*RESULT_FILES, ASKED)),
        ]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"cannot delete {path}: {error.strerror or error}") from error

    def _part(self, index: int) -> Path:
        return self.path / "parts" / f"part-{index:06d}.parquet"

    def _start(self, asked: Mapping[str, Any]) -> None:
        path = self.path / ASKED
        if not path.exists():
            if any((self.path / "parts").iterdir()) or (self.path / "run.json").exists():
                raise StoreError(
                    f"{self.path} holds something else than an interpretation: give another folder (--out)"
                )
            content = {"format": FORMAT, "asked": asked}
            write_text(path, json.dumps(content, indent=2) + "\n")
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            before = content["asked"] if content["format"] == FORMAT else None
        except (OSError, ValueError, KeyError, TypeError):
            before = None
        if not isinstance(before, dict):
            raise StoreError(
                f"{path} is damaged: give another folder (--out), or start over (--overwrite)"
            )
        # As it reads after a way through JSON.
        found = differences(before, json.loads(json.dumps(asked)))
        if found:
            raise StoreError(
                f"{self.path} holds an interpretation with other settings ({'; '.join(found)}): give another "
                "folder (--out), or start over (--overwrite)"
            )
