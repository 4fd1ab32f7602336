"""On a file system without locks nobody deletes what another process is writing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qscore_fast.errors import StoreError
from qscore_fast.scoring import atomic, store
from qscore_fast.scoring.atomic import remove_leftovers, replacing
from qscore_fast.scoring.locks import FolderLocks, Grant
from qscore_fast.scoring.part import OK, PartRows
from qscore_fast.scoring.record import RunRecord
from qscore_fast.scoring.store import Store

RECORD = RunRecord(
    {
        "source": {"kind": "synthetic", "num_images": 4, "manifest_hash": "0" * 64},
        "encoder": {"fingerprint": "0" * 64, "num_features": 8, "dtype": "float32"},
        "unit_size": 2,
        "activation_eps": 2.0,
        "two_sided": False,
        "embeddings": "none",
    }
)


def rows() -> PartRows:
    return PartRows(
        sample_ids=["a", "b"],
        labels=[None, None],
        status=[OK, OK],
        stats=np.ones((2, 4), np.float32),
        lengths=np.ones(2, np.int32),
        feature=np.zeros(2, np.uint16),
        value=np.ones(2, np.float32),
    )


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Lustre without ``flock``."""

    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.fcntl", refuse)


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


class SlowWriter:
    """A process that is between the writing of a part and its renaming until it is told to go on."""

    def __init__(self, folder: Path) -> None:
        told, self._go_on = os.pipe()
        ready, written = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            code = 1
            try:
                self._write(folder, told, written)
                code = 0
            finally:
                os._exit(code)
        os.close(told)
        os.close(written)
        assert os.read(ready, 1) == b"w"
        os.close(ready)

    def _write(self, folder: Path, told: int, written: int) -> None:
        real = store.write_table

        def slow(*arguments: Any) -> None:
            real(*arguments)
            os.write(written, b"w")
            os.read(told, 1)

        store.write_table = slow
        with Store.writing(folder, RECORD) as opened:
            assert opened.claim(0)
            opened.write_part(0, rows(), {})

    def end(self) -> int:
        """Let it go on; its exit code."""
        os.write(self._go_on, b"g")
        os.close(self._go_on)
        return os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])


@pytest.fixture
def slow_writer(tmp_path: Path) -> Iterator[SlowWriter]:
    writer = SlowWriter(tmp_path)
    yield writer
    if not Store(tmp_path).is_whole(0):
        writer.end()


@pytest.mark.usefixtures("refused")
class TestRefused:
    """A second process comes and goes while the first writes."""

    def test_joining_and_leaving_deletes_nothing(
        self, tmp_path: Path, slow_writer: SlowWriter
    ) -> None:
        (being_written,) = temporary_files(tmp_path)
        with Store.writing(tmp_path, RECORD) as opened:
            assert being_written.exists()
            assert opened.claim(1)
            opened.write_part(1, rows(), {})
        assert temporary_files(tmp_path) == [being_written]
        assert slow_writer.end() == 0
        assert Store(tmp_path).missing_units() == []
        assert not temporary_files(tmp_path)

    def test_overwriting_is_refused(self, tmp_path: Path, slow_writer: SlowWriter) -> None:
        (being_written,) = temporary_files(tmp_path)
        with (
            pytest.raises(StoreError, match=r"without locks.*delete it yourself"),
            Store.writing(tmp_path, RECORD, overwrite=True),
        ):
            pass
        assert being_written.exists()
        assert slow_writer.end() == 0
        assert Store(tmp_path).missing_units() == [1]

    def test_there_is_nothing_to_overwrite(self, tmp_path: Path) -> None:
        with Store.writing(tmp_path, RECORD, overwrite=True) as opened:
            assert opened.missing_units() == [0, 1]

    def test_what_a_lock_is(self, tmp_path: Path) -> None:
        locks = FolderLocks(tmp_path)
        assert locks.ask(0) is Grant.UNSUPPORTED
        assert locks.acquire(0)
        locks.close()


def test_with_locks_the_three_states_differ(tmp_path: Path) -> None:
    first, second = FolderLocks(tmp_path), FolderLocks(tmp_path)
    assert first.ask(0) is Grant.HELD
    assert second.ask(0) is Grant.BUSY
    first.close()
    assert second.ask(0) is Grant.HELD
    second.close()


def test_files_of_other_machines_stay_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each machine's locks are its own, holding one says nothing about the others."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # killed before the end
        for host, name in (("0" * 8, "new"), ("0" * 8, "old"), (atomic._HOST, "own")):
            patch.setattr(atomic, "_HOST", host)
            with pytest.raises(KeyboardInterrupt), replacing(tmp_path / name) as temporary:
                temporary.write_bytes(b"")
                raise KeyboardInterrupt
    (tmp_path / ".tmp-0123456789abcdef-before").write_bytes(b"")
    assert len(temporary_files(tmp_path)) == 4
    (old,) = tmp_path.glob(".tmp-*-old")
    os.utime(old, (old.stat().st_mtime - 90_000,) * 2)
    remove_leftovers(tmp_path)
    (kept,) = temporary_files(tmp_path)
    assert kept.name.endswith("-new")
