"""A store that stops answering holds neither a run that is to stop nor the interpreter at its end."""

from __future__ import annotations

import io
import signal
import tarfile
from pathlib import Path

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
