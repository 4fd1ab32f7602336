"""The folder of a run: which parts are there, and how one more gets there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qscore_fast.errors import StoreError
from qscore_fast.scoring.atomic import remove_leftovers, replacing, write_text
from qscore_fast.scoring.part import KEY, OK, Part, PartRows, part_footer, part_schema, write_table
from qscore_fast.scoring.record import RunRecord, differences

RESULTS = ("features.npz", "scores.parquet", "errors.parquet")


class Store:
    """A run's folder. A part exists when its parquet file does; nothing else holds state.

    Attributes:
        path: the folder.
        record: the content of its run.json.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open an existing run; StoreError if there is none."""
        self.path = Path(path)
        self.record = RunRecord.read(self.path / "run.json")

    @classmethod
    @contextmanager
    def writing(
        cls, path: str | os.PathLike[str], record: RunRecord, overwrite: bool = False
    ) -> Iterator[Store]:
        """Start the run that ``record`` describes, or continue it, as the only writer.

        Raises:
            StoreError: the folder holds a run with other settings, is being written by another
                process, or cannot be written.
        """
        folder = Path(path)
        try:
            (folder / "parts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error
        with locked(folder):
            remove_leftovers(folder)
            remove_leftovers(folder / "parts")
            if overwrite:
                _clear(folder)
            if (folder / "run.json").exists():
                _check_same(folder, record)
            elif any((folder / "parts").glob("part-*")):
                raise StoreError(
                    f"{folder} holds parts but no run.json: give another folder (--out), "
                    "or start over (--overwrite)"
                )
            else:
                record.write(folder / "run.json")
            yield cls(folder)

    def part_path(self, index: int, suffix: str = ".parquet") -> Path:
        """The file of a unit."""
        return self.path / "parts" / f"part-{index:06d}{suffix}"

    def missing_units(self) -> list[int]:
        """The units without a whole part, ascending."""
        return [index for index in range(self.record.num_units) if not self._is_whole(index)]

    def num_images(self) -> int:
        """How many images a complete run has."""
        known = self.record.num_images
        return sum(n["num_images"] for n in self.part_notes()) if known is None else known

    def images_in_parts(self, missing: Sequence[int]) -> int:
        """How many images the parts hold that are not ``missing``."""
        absent = set(missing)
        there = (index for index in range(self.record.num_units) if index not in absent)
        counts = ((self.record.unit_rows(index), index) for index in there)
        return sum(
            (self._notes(index) or {}).get("num_images", 0) if rows is None else rows
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

    def write_part(self, index: int, rows: PartRows, timings: dict[str, float]) -> None:
        """Write a unit's files, the parquet file last: it is what makes the part exist."""
        if rows.embeddings is not None:
            with (
                replacing(self.part_path(index, ".npy")) as temporary,
                temporary.open("wb") as file,
            ):
                np.save(file, rows.embeddings, allow_pickle=False)
        notes = {
            "unit": index,
            "num_images": len(rows.status),
            "num_scored": rows.status.count(OK),
            "seconds": {name: round(seconds, 4) for name, seconds in timings.items()},
            "errors": rows.errors,
        }
        write_text(self.part_path(index, ".json"), json.dumps(notes, indent=1) + "\n")
        schema = part_schema(self.record.asked["encoder"]["num_features"])
        with replacing(self.part_path(index)) as temporary:
            write_table(rows.table(schema), temporary, {KEY: self.record.key.encode()})

    def parts(self, columns: list[str] | None = None) -> Iterator[Part]:
        """Every part in order, one in memory at a time; with ``columns`` these alone, status among them."""
        for index in range(self.record.num_units):
            yield Part.read(self.part_path(index), self.record.asked["activation_eps"], columns)

    def part_notes(self) -> Iterator[dict[str, Any]]:
        """Counts, timings and errors of every part in order."""
        for index in range(self.record.num_units):
            notes = self._notes(index)
            if notes is None:
                raise StoreError(
                    f"{self.part_path(index, '.json')} is missing or damaged: run the same qscore "
                    "score again, which redoes this part alone"
                )
            yield notes

    def embeddings(self) -> Iterator[np.ndarray]:
        """The embeddings of every part, (scored images, r) float16, mapped, not read.

        Raises:
            StoreError: the run was made without embeddings, or a file is missing or damaged.
        """
        if self.record.asked["embeddings"] == "none":
            raise StoreError(
                f'the run in {self.path} has no embeddings: score with embeddings="npy" '
                "(--embeddings npy)"
            )
        for index in range(self.record.num_units):
            path = self.part_path(index, ".npy")
            try:
                yield np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise StoreError(f"{path} is missing or damaged: {error}") from error

    def _notes(self, index: int) -> dict[str, Any] | None:
        try:
            notes = json.loads(self.part_path(index, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return notes if isinstance(notes, dict) and "num_scored" in notes else None

    def _is_whole(self, index: int) -> bool:
        """Whether the part is there with all that belongs to it; a damaged one counts as missing."""
        if not self.part_path(index).exists():
            return False
        try:
            num_rows, metadata = part_footer(self.part_path(index))
        except StoreError:
            return False
        notes = self._notes(index)
        if notes is None or num_rows != notes.get("num_images"):
            return False
        if self.record.unit_rows(index) not in (None, num_rows):
            return False
        if metadata.get(KEY) != self.record.key.encode():
            return False
        if self.record.asked["embeddings"] == "none":
            return True
        try:
            rows = np.load(self.part_path(index, ".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return False
        return len(rows) == notes["num_scored"]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other writers; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another qscore process is writing to {folder}") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _check_same(folder: Path, record: RunRecord) -> None:
    found = differences(RunRecord.read(folder / "run.json").asked, record.asked)
    if found:
        raise StoreError(
            f"{folder} holds a run with other settings ({'; '.join(found)}): "
            "give another folder (--out), or start over (--overwrite)"
        )


def _clear(folder: Path) -> None:
    """Delete what a run writes, and nothing else; run.json last, so that a kill leaves a run."""
    for path in [*(folder / "parts").glob("part-*"), *(folder / name for name in RESULTS)]:
        path.unlink(missing_ok=True)
    (folder / "run.json").unlink(missing_ok=True)
