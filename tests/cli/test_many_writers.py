"""Several processes write one run at the same time: it ends byte for byte as one process's."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked_command import ForkServer
from small_run import (
    PARTS,
    bytes_of,
    parts_of,
    save_small_source,
    score_command,
    temporary_files,
    wait_until,
)


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
    """The files of a run by one process."""
    out = tmp_path_factory.mktemp("alone")
    run = server.run(*score_command(source, checkpoint, out))
    assert run.returncode == 0, run.stderr
    assert len(parts_of(out)) == PARTS
    return bytes_of(out)


@pytest.fixture
def command(tmp_path: Path, source: Path, checkpoint: Path) -> tuple[object, ...]:
    return (*score_command(source, checkpoint, tmp_path / "out"), "--json")


def parts_done(output: str) -> int:
    """How many parts a process says that it made."""
    done = json.loads(output)["session"]["parts_done"]
    assert isinstance(done, int)
    return done


def check_whole(out: Path, alone: dict[str, bytes]) -> None:
    """Every part once, none half, and the results of one process."""
    assert bytes_of(out) == alone
    assert not temporary_files(out)


def test_three_writers_do_each_unit_once(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...]
) -> None:
    ended = [writer.finish() for writer in [server.start(*command) for _ in range(3)]]
    assert [run.returncode for run in ended] == [0, 0, 0], [run.stderr for run in ended]
    assert sum(parts_done(run.stdout) for run in ended) == PARTS
    check_whole(tmp_path / "out", alone)


def test_one_of_three_writers_is_killed(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...]
) -> None:
    out = tmp_path / "out"
    writers = [server.start(*command) for _ in range(3)]
    wait_until(lambda: len(parts_of(out)) >= PARTS // 3, lambda: writers[0].poll() is None)
    writers[0].send_signal(signal.SIGKILL)
    ended = [writer.finish() for writer in writers]
    assert [run.returncode for run in ended] == [-9, 0, 0], [run.stderr for run in ended]
    assert sum(parts_done(run.stdout) for run in ended[1:]) <= PARTS
    check_whole(out, alone)


def test_the_units_of_a_dead_process_are_taken_over(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...]
) -> None:
    """While it merely stands still they are waited for: it may come back."""
    out = tmp_path / "out"
    still = server.start(*command)
    wait_until(lambda: len(parts_of(out)) >= 3, lambda: still.poll() is None)
    still.send_signal(signal.SIGSTOP)
    before = len(parts_of(out))
    other = server.start(*command)
    wait_until(lambda: len(parts_of(out)) > before, lambda: other.poll() is None)
    seen = -1
    while seen != len(parts_of(out)):  # until nothing more comes
        seen = len(parts_of(out))
        time.sleep(1.5)
    assert seen < PARTS
    assert other.poll() is None
    still.send_signal(signal.SIGKILL)
    assert still.finish().returncode == -signal.SIGKILL
    ended = other.finish()
    assert ended.returncode == 0, ended.stderr
    check_whole(out, alone)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...],
    order: tuple[int, ...],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    for count, index in enumerate(order, 1):
        shard = (*command[:-1], "--shard-index", index, "--num-shards", 3)
        run = server.run(*shard)
        assert run.returncode == 0, run.stderr
        assert len(parts_of(out)) == count * PARTS // 3
        assert f"part-{index:06d}.parquet" in {path.name for path in parts_of(out)}
        assert (f"{PARTS - count * PARTS // 3} parts" in run.stdout) == (count < 3)
        assert ("missing" in run.stdout) == (count < 3)
        assert (out / "scores.parquet").exists() == (count == 3)
    check_whole(out, alone)


def test_shards_at_once_and_one_of_them_twice(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...]
) -> None:
    writers = [
        server.start(*command, "--shard-index", index, "--num-shards", 3) for index in (0, 1, 1, 2)
    ]
    ended = [writer.finish() for writer in writers]
    assert [run.returncode for run in ended] == [0, 0, 0, 0], [run.stderr for run in ended]
    first, second, again, third = (parts_done(run.stdout) for run in ended)
    assert (first, second + again, third) == (PARTS // 3, PARTS // 3, PARTS // 3)
    check_whole(tmp_path / "out", alone)


@pytest.mark.parametrize("shard", [(3, 3), (-1, 3), (0, 0), (0, None), (None, 3)])
def test_a_shard_that_does_not_exist(
    tmp_path: Path, server: ForkServer, command: tuple[object, ...], shard: tuple[int | None, ...]
) -> None:
    options = [
        f"{name}={number}"
        for name, number in zip(("--shard-index", "--num-shards"), shard, strict=True)
        if number is not None
    ]
    run = server.run(*command, *options)
    assert run.returncode == 2
    assert "shard" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--activation-eps", "2.5"), "other settings (activation_eps: 2.0 -> 2.5)"),
        (("--overwrite",), "another qscore process is writing"),
    ],
)
def test_other_settings_are_refused_meanwhile(
    tmp_path: Path, server: ForkServer, alone: dict[str, bytes], command: tuple[object, ...],
    options: tuple[str, ...], reason: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    first = server.start(*command)
    wait_until(lambda: len(parts_of(out)) >= 3, lambda: first.poll() is None)
    first.send_signal(signal.SIGSTOP)
    refused = server.run(*command, *options)
    there = len(parts_of(out))
    first.send_signal(signal.SIGCONT)
    assert refused.returncode == 2, refused.stdout
    assert reason in refused.stderr
    assert "Traceback" not in refused.stderr
    assert 3 <= there < PARTS
    ended = first.finish()
    assert ended.returncode == 0, ended.stderr
    assert parts_done(ended.stdout) == PARTS
    check_whole(out, alone)
