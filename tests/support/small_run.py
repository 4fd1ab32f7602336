"""A run of many small parts, for tests that disturb it: its command, its files, its progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sample_data import save_images

PARTS, UNIT_SIZE = 51, 6
RESULTS = ("features.npz", "scores.parquet", "errors.parquet")


def save_small_source(folder: Path) -> Path:
    """303 images, three of them bad, in 51 units of six at most."""
    save_images(folder, 300)
    (folder / "bag" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "coat" / "empty.png").write_bytes(b"")
    (folder / "trouser" / "text.jpg").write_text("no image")
    return folder


def score_command(images: Path, checkpoint: Path, out: Path) -> tuple[object, ...]:
    """Small batches on one thread, so that there is time to disturb it."""
    return (
        "score", images, "--encoder", checkpoint, "--out", out, "--embeddings", "npy",
        "--unit-size", UNIT_SIZE, "--batch-size", 2, "--workers", 1, "--eps", "auto",
    )  # fmt: skip


def bytes_of(out: Path) -> dict[str, bytes]:
    """Every file that must not depend on what happened: all but run.json and the parts' JSON, in
    which versions and timings are, and hidden files.
    """
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix != ".json" and not path.name.startswith(".")
    }


def parts_of(out: Path) -> list[Path]:
    """The parts that are there, in order."""
    return sorted((out / "parts").glob("part-*.parquet"))


def temporary_files(out: Path) -> list[Path]:
    """What is being written, or was when its process was killed."""
    return [path for folder in (out, out / "parts") for path in folder.glob(".*tmp*")]


def wait_until(happened: Callable[[], object], running: Callable[[], bool]) -> None:
    """Look every millisecond, for as long as the process runs."""
    while running() and not happened():
        time.sleep(0.001)
