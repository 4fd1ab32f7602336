"""A store that stops answering holds neither a run that is to stop nor the interpreter at its end."""

from __future__ import annotations

import io
import signal
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import finish, start
from hanging_store import hanging_store
from small_run import parts_of

SECONDS = 10  # what a cluster's scheduler gives at the least


@pytest.fixture(scope="module")
def files(images: Path) -> dict[str, bytes]:
    found = sorted(images.rglob("*.png"))[:60]
    return {f"{number:03d}.png": path.read_bytes() for number, path in enumerate(found)}


def as_tars(files: dict[str, bytes]) -> dict[str, bytes]:
    """Twelve images a shard."""
    shards = {}
    names = sorted(files)
    for shard in range(5):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in names[12 * shard : 12 * shard + 12]:
                info = tarfile.TarInfo(name)
                info.size = len(files[name])
                tar.addfile(info, io.BytesIO(files[name]))
        shards[f"{shard}.tar"] = archive.getvalue()
    return shards


def as_tables(files: dict[str, bytes]) -> dict[str, bytes]:
    """Twelve images a table."""
    tables, names = {}, sorted(files)
    for number in range(5):
        content = io.BytesIO()
        some = names[12 * number : 12 * number + 12]
        pq.write_table(pa.table({"image": [files[name] for name in some]}), content)
        tables[f"{number}.parquet"] = content.getvalue()
    return tables


@pytest.mark.parametrize("what", ["tables", "names of tables", "tars that are counted", "sizes"])
def test_a_listing_that_hangs_is_stopped(
    tmp_path: Path, files: dict[str, bytes], checkpoint: Path, what: str
) -> None:
    content = {"tables": as_tables, "names of tables": as_tables}.get(what, as_tars)(files)
    # What the source is told by, or has its first labels from, is answered.
    answers = {"tables": 4, "names of tables": 1, "tars that are counted": 2, "sizes": 0}[what]
    with hanging_store(content, answers, heads=what in ("names of tables", "sizes")) as store:
        place = {
            "tables": f"{store.url}/{{0..4}}.parquet",
            "names of tables": f"{store.url}/{{0..4}}.parquet",
            "tars that are counted": f"{store.url}/{{0..4}}.tar",
            "sizes": str(tmp_path / "list.txt"),
        }[what]
        (tmp_path / "list.txt").write_text("".join(f"{store.url}/{name}\n" for name in content))
        limit = ["--limit", "50"] if what == "tars that are counted" else []
        process = start(
            "score", place, "--encoder", checkpoint, "--out", tmp_path / "out", *limit
        )  # fmt: skip
        while process.poll() is None and not store.hanging.wait(0.05):
            pass
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
        stopped = finish(process)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stderr and "Exception" not in stopped.stderr
    assert not (tmp_path / "out" / "parts").exists() or not parts_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "signal_number"),
    [
        ("hangs", signal.SIGTERM),
        ("hangs in a tar", signal.SIGINT),
        ("is throttled", signal.SIGTERM),
    ],
)
def test_a_stop_is_a_stop(
    tmp_path: Path, files: dict[str, bytes], checkpoint: Path, kind: str, signal_number: int
) -> None:
    in_tars = kind == "hangs in a tar"
    content = as_tars(files) if in_tars else files
    answers = 3 if in_tars else 40
    with hanging_store(content, answers, fails=kind == "is throttled") as store:
        place = f"{store.url}/{{0..4}}.tar" if in_tars else store.url
        process = start(
            "score", place, "--encoder", checkpoint, "--out", tmp_path / "out", "--unit-size", 6,
            "--batch-size", 2, "--workers", 2,
        )  # fmt: skip
        while process.poll() is None and not store.hanging.wait(0.05):
            pass
        process.send_signal(signal_number)
        process.wait(SECONDS)
        stopped = finish(process)
    assert stopped.returncode == (143 if signal_number == signal.SIGTERM else 130), stopped.stderr
    assert "finished parts stay" in stopped.stderr
    assert "Traceback" not in stopped.stderr and "Exception" not in stopped.stderr
    if not in_tars:
        assert len(parts_of(tmp_path / "out")) >= 2
