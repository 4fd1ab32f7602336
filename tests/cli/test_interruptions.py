"""Nothing is lost: whatever happens to a run, gone on with it ends byte for byte as one left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import finish, start
from forked_command import ForkServer
from small_run import (
    PARTS,
    RESULTS,
    bytes_of,
    parts_of,
    save_small_source,
    score_command,
    temporary_files,
    wait_until,
)

KILLS = 20
VALUE_COLUMN = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("outputs")) as server:
        yield server


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, source: Path, checkpoint: Path, server: ForkServer
) -> dict[str, bytes]:
    """The files of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("alone")
    run = server.run(*score_command(source, checkpoint, out))
    assert run.returncode == 0, run.stderr
    found = bytes_of(out)
    assert len(parts_of(out)) == PARTS
    assert found.keys() == {*RESULTS, "listing.txt.zst"} | {
        f"parts/part-{i:06d}.{kind}" for i in range(PARTS) for kind in ("parquet", "npy")
    }
    assert pq.read_table(out / "errors.parquet")["sample_id"].to_pylist() == [
        "bag/bad.png", "coat/empty.png", "trouser/text.jpg",
    ]  # fmt: skip
    return found


@pytest.fixture
def half_done(tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer) -> Path:
    """A run that was killed when some of its parts were there."""
    out = tmp_path / "out"
    command = server.start(*score_command(source, checkpoint, out))
    wait_until(lambda: len(parts_of(out)) >= 5, lambda: command.poll() is None)
    command.send_signal(signal.SIGKILL)
    assert command.finish().returncode == -signal.SIGKILL
    assert 5 <= len(parts_of(out)) < PARTS
    return out


@pytest.fixture
def complete(tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer) -> Path:
    """A run of its own, to be damaged."""
    out = tmp_path / "out"
    assert server.run(*score_command(source, checkpoint, out)).returncode == 0
    return out


def test_twenty_kills(
    tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes],
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """Each at a random point of the work: a count of parts, or any file that is being written, in
    the results too. What ends before its kill is compared, and another run takes its place.
    """
    seed = time.time_ns()
    record_property("seed", seed)
    rng = random.Random(seed)
    moments: list[tuple[int, int, int]] = []
    for _ in range(10 * KILLS):
        out = tmp_path / f"out-{sum(code == 0 for code, *_ in moments)}"
        command = server.start(*score_command(source, checkpoint, out))
        found = len(parts_of(out))
        wanted = found + rng.randrange(8)
        writing = rng.random() < 0.5

        def reached(out: Path = out, wanted: int = wanted, writing: bool = writing) -> bool:
            if len(parts_of(out)) < min(wanted, PARTS):
                return False
            return bool(temporary_files(out)) if writing or wanted > PARTS else True

        wait_until(reached, lambda command=command: command.poll() is None)  # type: ignore[misc]
        time.sleep(rng.choice([0, rng.uniform(0, 0.03)]))
        if sum(code == -signal.SIGKILL for code, *_ in moments) < KILLS:
            command.send_signal(signal.SIGKILL)
        ended = command.finish()
        moments.append((ended.returncode, found, len(parts_of(out))))
        if ended.returncode == 0:
            assert bytes_of(out) == alone, (seed, moments)
            assert not temporary_files(out), (seed, moments)
            if sum(code == -signal.SIGKILL for code, *_ in moments) == KILLS:
                break
        else:
            assert ended.returncode == -signal.SIGKILL, (seed, moments, ended.stderr)
    assert sum(code == -signal.SIGKILL for code, *_ in moments) == KILLS, (seed, moments)
    assert any(0 < after < PARTS for code, _, after in moments if code), (seed, moments)


def test_sigterm_is_a_clean_stop(
    tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    process = start(*score_command(source, checkpoint, out))
    wait_until(lambda: len(parts_of(out)) >= 5, lambda: process.poll() is None)
    before = {path.name: path.read_bytes() for path in parts_of(out)}
    process.terminate()
    process.wait(10)  # the time that a cluster's scheduler gives at the least
    stopped = finish(process)
    assert stopped.returncode == 143, stopped.stderr
    assert "finished parts stay" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert 5 <= len(parts_of(out)) < PARTS
    assert before.items() <= {path.name: path.read_bytes() for path in parts_of(out)}.items()
    assert not temporary_files(out)
    assert not (out / "scores.parquet").exists()
    _goes_on(server, source, checkpoint, out, alone)


def test_a_full_disk(
    tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes]
) -> None:
    """A small file system where one can be mounted, otherwise a limit on a file's size."""
    out = tmp_path / "disk" / "out"
    out.parent.mkdir()
    with _small_disk(out.parent) as mounted:
        command = score_command(source, checkpoint, out)
        if mounted:
            run = server.run(*command)
            reason = "No space left on device"
        else:
            # The scores of 303 images are the first file above it: no part is.
            run = server.run(*command, largest_file=len(alone["scores.parquet"]) - 1)
            reason = "File too large"
        assert run.returncode == 2, (run.stdout, run.stderr)
        _is_one_clear_error(run, out, reason)
        assert mounted is False or 0 < len(parts_of(out)) < PARTS
        assert not (out / "scores.parquet").exists()
        if mounted:
            _mount("-o", "remount,size=64m", out.parent)
        _goes_on(server, source, checkpoint, out, alone)
        if mounted:
            parts_of(out)[-1].unlink()
            _mount("-o", "remount,ro", out.parent)
            before = bytes_of(out)
            refused = server.run(*command)
            assert refused.returncode == 2
            _is_one_clear_error(refused, out, "Read-only file system")
            assert bytes_of(out) == before


@pytest.mark.parametrize("state", ["new", "half done", "killed while writing"])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes],
    half_done: Path, state: str,
) -> None:  # fmt: skip
    closed = tmp_path / "closed"
    closed.mkdir()
    out = closed / "out" if state == "new" else half_done
    for path in temporary_files(half_done):
        path.unlink()
    if state == "killed while writing":
        (out / "parts" / ".tmp-0123456789abcdef-part-000050.parquet").write_bytes(b"PAR1")
    folders = [closed] if state == "new" else [out, out / "parts"]
    before = _state_of(folders[0])
    for folder in folders:
        folder.chmod(0o555)
    try:
        run = server.run(*score_command(source, checkpoint, out), obey_permissions=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert run.returncode == 2, (run.stdout, run.stderr)
    _is_one_clear_error(run, out, "Permission denied")
    assert _state_of(folders[0]) == before
    _goes_on(server, source, checkpoint, out, alone)


@pytest.mark.parametrize("damage", ["cut part", "empty part", "no json", "cut json", "cut npy"])
def test_a_damaged_part_is_done_again(
    source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes], complete: Path,
    damage: str,
) -> None:  # fmt: skip
    how, kind = damage.split()
    path = parts_of(complete)[17].with_suffix(f".{kind}".replace("part", "parquet"))
    if how == "no":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if how == "cut" else 0])
    run = _goes_on(server, source, checkpoint, complete, alone, "--json")
    assert '"parts_done": 1,' in run.stdout


def test_a_flipped_byte_is_named_and_the_part_done_again(
    source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes], complete: Path
) -> None:
    """It shows when the pages are read, to make the results: the footer is whole."""
    path = parts_of(complete)[17]
    content = bytearray(path.read_bytes())
    values = pq.read_metadata(path).row_group(0).column(VALUE_COLUMN)
    content[values.data_page_offset + values.total_compressed_size - 9] ^= 0xFF
    path.write_bytes(content)
    read_only = server.run("rescore", complete, "--eps", "3")
    assert read_only.returncode == 2, (read_only.stdout, read_only.stderr)
    _is_one_clear_error(read_only, path, "damaged")
    assert "delete it" in read_only.stderr
    (complete / "scores.parquet").unlink()
    run = _goes_on(server, source, checkpoint, complete, alone, "--json")
    assert f"warning: {path.with_suffix('')} turned out damaged, and is made again" in run.stderr
    assert '"parts_done": 1,' in run.stdout


@pytest.mark.parametrize("year", [1970, 2100])
def test_no_decision_hangs_on_the_clock(
    source: Path, checkpoint: Path, server: ForkServer, alone: dict[str, bytes], half_done: Path,
    year: int,
) -> None:  # fmt: skip
    """Files of another time, and a clock that goes back an hour at every look."""
    there = {path.name for path in parts_of(half_done)}
    stamp = (year - 1970) * 31_556_952
    for path in [half_done, *half_done.rglob("*")]:
        os.utime(path, (stamp, stamp))
    command = score_command(source, checkpoint, half_done)
    run = server.run(*command, "--json", clock_runs_backwards=True)
    assert run.returncode == 0, run.stderr
    assert f'"parts_found": {len(there)},' in run.stdout
    assert bytes_of(half_done) == alone


@pytest.mark.parametrize("limit", ["0.4", "0.6"])
def test_max_error_rate(
    tmp_path: Path, checkpoint: Path, server: ForkServer, source: Path, limit: str
) -> None:
    """Every second image is bad."""
    images = tmp_path / "images"
    images.mkdir()
    good = sorted((source / "bag").glob("0*.png"))[0].read_bytes()
    for number in range(240):
        (images / f"{number:03d}.png").write_bytes(b"broken" if number % 2 else good)
    command = score_command(images, checkpoint, tmp_path / "out")
    run = server.run(*command, "--max-error-rate", limit)
    if limit == "0.6":
        assert run.returncode == 0, run.stderr
    else:
        assert run.returncode == 3, (run.stdout, run.stderr)
        _is_one_clear_error(run, "max_error_rate = 0.4", "images are bad")
        assert "as in 001.png" in run.stderr
        known = pq.read_table(tmp_path / "out" / "errors.parquet")["sample_id"].to_pylist()
        assert known == [f"{number:03d}.png" for number in range(1, 2 * len(known), 2)]
        assert 100 // 2 <= len(known) < 120
        assert 0 < len(parts_of(tmp_path / "out")) < 40
        assert not (tmp_path / "out" / "scores.parquet").exists()
        assert server.run(*command).returncode == 0
    assert pq.read_metadata(tmp_path / "out" / "errors.parquet").num_rows == 120


def test_a_small_run_of_errors_alone_exceeds_the_rate(
    tmp_path: Path, checkpoint: Path, server: ForkServer
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(12):
        (images / f"{number}.png").write_bytes(b"broken")
    command = score_command(images, checkpoint, tmp_path / "out")
    run = server.run(*command, "--max-error-rate", "0.5")
    assert run.returncode == 3, (run.stdout, run.stderr)
    _is_one_clear_error(run, "max_error_rate = 0.5", "12 of 12")


def _goes_on(
    server: ForkServer, source: Path, checkpoint: Path, out: Path, alone: dict[str, bytes],
    *options: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    run = server.run(*score_command(source, checkpoint, out), *options)
    assert run.returncode == 0, run.stderr
    assert bytes_of(out) == alone
    return run


def _is_one_clear_error(run: subprocess.CompletedProcess[str], thing: object, reason: str) -> None:
    errors = [line for line in run.stderr.splitlines() if line.startswith("qscore: error: ")]
    assert len(errors) == 1, run.stderr
    assert str(thing) in errors[0]
    assert reason in errors[0]
    assert "Traceback" not in run.stderr


def _state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.stat() for path in [folder, *folder.rglob("*")]}
    return {path: (s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found.items()}


def _mount(*arguments: object) -> bool:
    try:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Whether 200 kB could be mounted there: fewer than the run needs."""
    mounted = _mount("-t", "tmpfs", "-o", "size=200k", "none", folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
