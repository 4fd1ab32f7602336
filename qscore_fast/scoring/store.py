"""The folder of a run: which parts are there, and how one more gets there."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from qscore_fast.errors import StoreError
from qscore_fast.scoring.atomic import remove_leftovers, replacing, write_text
from qscore_fast.scoring.embeddings_file import (
    num_embeddings,
    read_embeddings,
    write_embeddings,
)
from qscore_fast.scoring.locks import RESULTS, SETUP, WRITERS, FolderLocks, Grant, busy, locked
from qscore_fast.scoring.part import (
    CONTENT,
    KEY,
    OK,
    DamagedPartError,
    Part,
    PartRows,
    part_footer,
    part_schema,
    write_table,
)
from qscore_fast.scoring.prefetch import default_workers
from qscore_fast.scoring.record import RunRecord
from qscore_fast.scoring.run_folder import (
    check_empty,
    clear,
    remove_leftovers_of_parts,
    start_or_join,
)

__all__ = ["Store", "locked"]

T = TypeVar("T")


class Store:
    """A run's folder. A part exists when its parquet file does; nothing else holds state.

    Attributes:
        path: the folder.
        record: the content of its run.json.
    """

    def __init__(self, path: str | os.PathLike[str], locks: FolderLocks | None = None) -> None:
        """Open an existing run; StoreError if there is none.

        Args:
            locks: of a writer; see :meth:`writing`.
        """
        self.path = Path(path)
        self.record = RunRecord.read(self.path / "run.json")
        self._locks = locks
        self._intact: set[int] = set()  # parts whose embeddings were compared with their checksum

    @classmethod
    @contextmanager
    def writing(
        cls, path: str | os.PathLike[str], record: RunRecord, overwrite: bool = False
    ) -> Iterator[Store]:
        """Start the run that ``record`` describes, or join it: any number of processes may, at once.

        Raises:
            StoreError: the folder holds a run with other settings, cannot be written, or is to be
                overwritten while another process writes to it, or where nobody can know whether one does.
        """
        folder = Path(path)
        try:
            (folder / "parts").mkdir(parents=True, exist_ok=True)
            if record.asked["embeddings"] == "parquet":
                (folder / "embeddings").mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
        locks = FolderLocks(folder)
        try:
            with locks.holding(SETUP):
                alone = locks.ask(WRITERS)
                if alone is Grant.BUSY and (overwrite or not locks.acquire(WRITERS, shared=True)):
                    raise busy(folder)
                if alone is Grant.HELD:
                    remove_leftovers(folder)
                    remove_leftovers_of_parts(folder)
                elif overwrite:
                    check_empty(folder)
                if overwrite:
                    clear(folder)
                start_or_join(folder, record)
                locks.acquire(WRITERS, shared=True)
            yield cls(folder, locks)
            with locks.holding(SETUP):
                # The last to leave clears what killed processes left.
                if locks.ask(WRITERS) is Grant.HELD:
                    remove_leftovers_of_parts(folder)
        finally:
            locks.close()

    def claim(self, index: int) -> bool:
        """Whether the unit is now this process's to do: nobody else has it, and it is not done."""
        assert self._locks is not None
        if not self._locks.acquire(index):
            return False
        if self.is_whole(index):  # by somebody who was faster
            self._locks.release(index)
            return False
        return True

    def release(self, index: int) -> None:
        """Give a claimed unit back."""
        assert self._locks is not None
        self._locks.release(index)

    def forget_unread(self, index: int) -> bool:
        """Make a unit missing again if images of its part could not be read, and nobody else has it."""
        assert self._locks is not None
        if not self._locks.acquire(index):
            return False
        try:
            errors = (self.notes_or_none(index) or {}).get("errors", [])
            if not any(error["stage"] == "read" for error in errors):
                return False
            self._remove(index)
            return True
        finally:
            self._locks.release(index)

    @contextmanager
    def writing_results(self) -> Iterator[None]:
        """Be the only writer of this run who writes its results; waits for the others."""
        assert self._locks is not None
        with self._locks.holding(RESULTS):
            yield

    def part_path(self, index: int, suffix: str = ".parquet") -> Path:
        """The file of a unit."""
        return self.path / "parts" / f"part-{index:06d}{suffix}"

    def embeddings_path(self, index: int) -> Path:
        """The file of a unit's embeddings; Parquet has a folder to itself, to be read as one table."""
        if self.record.asked["embeddings"] == "parquet":
            return self.path / "embeddings" / f"part-{index:06d}.parquet"
        return self.part_path(index, ".npy")

    def missing_units(self) -> list[int]:
        """The units without a whole part, ascending."""
        return [index for index in range(self.record.num_units) if not self.is_whole(index)]

    def num_images(self) -> int:
        """How many images a complete run has."""
        known = self.record.num_images
        return sum(n["num_images"] for n in self.part_notes()) if known is None else known

    def num_images_in(self, units: Iterable[int]) -> int:
        """How many images the parts of these units hold, all of them there."""
        counts = ((self.record.unit_rows(index), index) for index in units)
        return sum(
            (self.notes_or_none(index) or {}).get("num_images", 0) if rows is None else rows
            for rows, index in counts
        )

    def check_complete(self) -> None:
        """StoreError if parts are missing."""
        missing = len(self.missing_units())
        if missing:
            total = self.record.num_units
            raise StoreError(
                f"the run in {self.path} is not complete ({total - missing} of {total} parts): "
                "run the same qscore score again to finish it"
            )

    def write_part(self, index: int, rows: PartRows, timings: dict[str, Any]) -> None:
        """Write a unit's files, the parquet file last: it is what makes the part exist.

        Args:
            timings: what the part's JSON says of the speed.
        """
        checksum: int | None = None
        if rows.embeddings is not None:
            scored = [i for i, s in zip(rows.sample_ids, rows.status, strict=True) if s == OK]
            checksum = write_embeddings(
                rows.embeddings,
                scored,
                self.embeddings_path(index),
                self.record.asked["embeddings"],
            )
        content = rows.digest()
        notes = {
            "unit": index,
            "num_images": len(rows.status),
            "num_scored": rows.status.count(OK),
            "content": content,
            **({} if checksum is None else {"embeddings_crc32": checksum}),
            "made_with": rows.made_with,
            **timings,
            "errors": rows.errors,
        }
        write_text(self.part_path(index, ".json"), json.dumps(notes, indent=1) + "\n")
        schema = part_schema(self.record.asked["encoder"]["num_features"])
        with replacing(self.part_path(index)) as temporary:
            metadata = {KEY: self.record.key.encode(), CONTENT: content.encode()}
            write_table(rows.table(schema), temporary, metadata)

    def part(self, index: int, columns: Sequence[str] | None = None) -> Part:
        """A unit's part, or some of its columns, status among them.

        Raises:
            DamagedPartError: it is missing or damaged. StoreError: it cannot be read now.
        """
        asked = self.record.asked
        return Part.read(
            self.part_path(index),
            asked["activation_eps"],
            asked["encoder"]["num_features"],
            columns,
        )

    def map_parts(
        self, function: Callable[[Part], T], columns: Sequence[str] | None = None
    ) -> Iterator[T]:
        """``function`` of every part, in order; a part for each core is read and worked on at a time.

        Args:
            columns: read these alone, status among them.
        """

        def result_of(index: int) -> T:
            return function(self.part(index, columns))

        return self.each_unit(result_of)

    def each_unit(self, function: Callable[[int], T]) -> Iterator[T]:
        """``function`` of every unit's index, in order, some at a time."""
        threads = default_workers()
        waiting: deque[Future[T]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="qscore-parts")
        try:
            for index in range(self.record.num_units):
                waiting.append(pool.submit(function, index))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def remove_damaged(self) -> list[int]:
        """Read every part and delete those that are damaged inside; the units that are missing then."""

        def check(index: int) -> None:
            assert self._locks is not None
            if not self._locks.acquire(index):  # somebody makes it again
                return
            try:
                self.part(index)
                if self.record.asked["embeddings"] != "none":
                    self.embeddings_of(index)
            except DamagedPartError:
                self._remove(index)
            finally:
                self._locks.release(index)

        for _ in self.each_unit(check):
            pass
        return self.missing_units()

    def part_notes(self) -> Iterator[dict[str, Any]]:
        """Counts, timings and errors of every part in order."""
        return map(self.notes, range(self.record.num_units))

    def notes(self, index: int) -> dict[str, Any]:
        """Counts, timings and errors of a part; StoreError if they are missing or damaged."""
        notes = self.notes_or_none(index)
        if notes is None:
            raise StoreError(
                f"{self.part_path(index, '.json')} is missing or damaged: run the same qscore "
                "score again, which redoes this part alone"
            )
        return notes

    def notes_or_none(self, index: int) -> dict[str, Any] | None:
        """The same; None if they are missing or damaged."""
        try:
            notes = json.loads(self.part_path(index, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        whole = isinstance(notes, dict) and {"num_images", "num_scored", "errors"} <= notes.keys()
        return notes if whole else None

    def made_with(self, index: int) -> dict[str, Any] | None:
        """What a part was made with, see ``made_with``; None where there is none, or it does not say."""
        return (self.notes_or_none(index) or {}).get("made_with")

    def embeddings(self) -> Iterator[np.ndarray]:
        """The embeddings of every part, (scored images, r) float16, mapped where they are ``.npy``.

        Raises:
            StoreError: the run was made without embeddings, or a file is missing or damaged. (An ``.npy`` is
                read and compared with its checksum the first time.)
        """
        if self.record.asked["embeddings"] == "none":
            raise StoreError(
                f'the run in {self.path} has no embeddings: score with embeddings="npy" '
                "(--embeddings npy)"
            )
        for index in range(self.record.num_units):
            yield self.embeddings_of(index)

    def embeddings_of(self, index: int) -> np.ndarray:
        """Those of one part of a run that has them; raises as ``embeddings``."""
        checksum = None
        if index not in self._intact:
            checksum = (self.notes_or_none(index) or {}).get("embeddings_crc32")
        kept = self.record.asked["embeddings"]
        rows = read_embeddings(self.embeddings_path(index), kept, checksum)
        self._intact.add(index)
        return rows

    def check_embeddings(self) -> None:
        """DamagedPartError if embeddings of some part are not what was written; nothing without any."""

        def check(index: int) -> None:
            self.embeddings_of(index)

        if self.record.asked["embeddings"] != "none":
            for _ in self.each_unit(check):
                pass

    def _remove(self, index: int) -> None:
        path = self.part_path(index)
        self._intact.discard(index)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {path}: {error.strerror or error}") from error

    def is_whole(self, index: int) -> bool:
        """Whether the part is there with all that belongs to it; a damaged one counts as missing."""
        if not self.part_path(index).exists():
            return False
        try:
            num_rows, metadata = part_footer(self.part_path(index))
        except StoreError:
            return False
        notes = self.notes_or_none(index)
        if notes is None or num_rows != notes["num_images"]:
            return False
        # Of two processes that did a unit at once, each may have written one of both files.
        if metadata.get(CONTENT, b"") != str(notes.get("content", "")).encode():
            return False
        if self.record.unit_rows(index) not in (None, num_rows):
            return False
        if metadata.get(KEY) != self.record.key.encode():
            return False
        kept = self.record.asked["embeddings"]
        return (
            kept == "none"
            or num_embeddings(self.embeddings_path(index), kept) == notes["num_scored"]
        )
