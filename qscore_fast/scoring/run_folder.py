"""How a run begins in a folder, is joined there, and is cleared away."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from qscore_fast.errors import StoreError
from qscore_fast.images.sources.listing import describe_change, hash_of_listing
from qscore_fast.scoring.atomic import remove_leftovers, write_bytes
from qscore_fast.scoring.record import RunRecord, differences

LISTING = "listing.txt.zst"
"""The source's manifest; a folder without one is a run all the same."""

PART_FOLDERS = ("parts", "embeddings")
RESULT_FILES = ("features.npz", "scores.parquet", "errors.parquet")
ANSWERS = "probe.parquet"  # of qscore probe, about these images


def start_or_join(folder: Path, record: RunRecord) -> None:
    """Write the run's record, or see that the run that is there has the same.

    Raises:
        StoreError: there is a run with other settings, or what is left of one.
    """
    if (folder / "run.json").exists():
        _check_same(folder, record)
    elif any((folder / "parts").glob("part-*")):
        raise StoreError(
            f"{folder} holds parts but no run.json: give another folder (--out), "
            "or start over (--overwrite)"
        )
    else:
        if record.listing is not None:
            write_bytes(folder / LISTING, record.listing)
        record.write(folder / "run.json")


def check_empty(folder: Path) -> None:
    """StoreError unless there is nothing to overwrite, where nobody can know who else writes."""
    if (folder / "run.json").exists() or any((folder / "parts").glob("part-*")):
        raise StoreError(
            f"{folder} lies on a file system without locks, so whether another process writes to it cannot "
            "be known: delete it yourself instead of --overwrite, or give another folder (--out)"
        )


def clear(folder: Path) -> None:
    """Delete what a run writes, and nothing else; run.json last, so that a kill leaves a run."""
    parts = (path for name in PART_FOLDERS for path in (folder / name).glob("part-*"))
    for path in [*parts, *(folder / name for name in (*RESULT_FILES, ANSWERS, LISTING))]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or it holds what is not ours
        (folder / "embeddings").rmdir()
    (folder / "run.json").unlink(missing_ok=True)


def remove_leftovers_of_parts(folder: Path) -> None:
    """Delete the temporary files of parts, see ``remove_leftovers``."""
    for name in PART_FOLDERS:
        remove_leftovers(folder / name)


def _check_same(folder: Path, record: RunRecord) -> None:
    old = RunRecord.read(folder / "run.json")
    found = differences(old.asked, record.asked)
    if found:
        raise StoreError(
            f"{folder} holds a run with other settings ({'; '.join(found)}){_change(folder, old, record)}: "
            "give another folder (--out), or start over (--overwrite)"
        )


def _change(folder: Path, old: RunRecord, new: RunRecord) -> str:
    """What has changed in the source, where the listings tell."""
    before, after = (record.asked["source"]["manifest_hash"] for record in (old, new))
    if before == after or new.listing is None:
        return ""
    try:
        listing = (folder / LISTING).read_bytes()
    except OSError:
        if old.asked["source"]["kind"] == "list" == new.asked["source"]["kind"]:
            return (
                "; if nothing has changed, the run began when sizes were no part of a list, and goes on "
                "without them (--no-list-sizes, or open_source(..., sizes=False))"
            )
        return ""
    if hash_of_listing(listing) != before:
        return ""
    return f"; in the source {describe_change(listing, new.listing)}"
