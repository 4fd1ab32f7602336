"""A machine or a store that fails costs no image: nothing is recorded, and the run goes on later."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_data import save_images
from small_run import bytes_of, parts_of
from tars import write_tar

from qscore_fast.cli import main
from qscore_fast.errors import UnavailableError
from qscore_fast.images import FolderSource, Sample, open_source, retries
from qscore_fast.images.sources import local_file
from qscore_fast.images.sources.file_list import FileListSource
from qscore_fast.images.sources.parquet import ParquetSource
from qscore_fast.images.sources.subset import Subset
from qscore_fast.images.sources.webdataset import WebDatasetSource
from qscore_fast.scoring import Progress, image_loader, score

UNIT = 10


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_images(tmp_path / "source", 100)


def run(source: Any, checkpoint: Path, out: Path, **settings: Any) -> Any:
    return score(
        source, checkpoint, out, unit_size=UNIT, batch_size=5, workers=1, device="cpu", **settings
    )


def once_after(parts: int, action: Callable[[], object]) -> Callable[[Progress], None]:
    done: list[object] = []

    def watch(state: Progress) -> None:
        if state.done >= parts * UNIT and not done:
            done.append(action())

    return watch


def listed(source: Path, absolute: bool) -> FileListSource:
    """In a folder of its own, so that the list stays when the images go."""
    path = source.with_name("lists") / f"{absolute}.txt"
    path.parent.mkdir(exist_ok=True)
    files = sorted(source.rglob("*.png"))
    path.write_text("".join(f"{f if absolute else f.relative_to(source)}\n" for f in files))
    return FileListSource(path, root=None if absolute else source)


@pytest.mark.parametrize("kind", ["folder", "choice", "list", "absolute list"])
@pytest.mark.parametrize("how", ["renamed", "empty"])
def test_a_source_that_goes_away_and_comes_back(
    tmp_path: Path, source: Path, checkpoint: Path, kind: str, how: str
) -> None:
    images: Any = {
        "folder": lambda: FolderSource(source),
        "choice": lambda: Subset(FolderSource(source), limit=95),
        "list": lambda: listed(source, absolute=False),
        "absolute list": lambda: listed(source, absolute=True),
    }[kind]()
    alone = run(images, checkpoint, tmp_path / "alone")
    gone = tmp_path / "gone"

    def go() -> None:
        source.rename(gone)
        if how == "empty":  # what an unmounted disk leaves
            source.mkdir()

    with pytest.raises(UnavailableError, match="give the same command again"):
        run(images, checkpoint, tmp_path / "out", progress=once_after(3, go))
    assert 3 <= len(parts_of(tmp_path / "out")) < 10
    assert not (tmp_path / "out" / "errors.parquet").exists()
    if how == "empty":
        source.rmdir()
    gone.rename(source)
    again = run(images, checkpoint, tmp_path / "out")
    assert again.session.parts_found >= 3
    assert again.errors().num_rows == 0
    assert bytes_of(tmp_path / "out") == bytes_of(alone.path)


@pytest.mark.parametrize("kind", ["folder of tars", "pattern of tars", "Parquet files"])
def test_archives_that_go_away_and_come_back(
    tmp_path: Path, source: Path, checkpoint: Path, kind: str
) -> None:
    files = sorted(source.rglob("*.png"))
    place = tmp_path / "archives"
    place.mkdir()
    for number in range(10):
        some = files[10 * number : 10 * number + 10]
        if kind == "Parquet files":
            table = pa.table({"image": [file.read_bytes() for file in some]})
            pq.write_table(table, place / f"{number}.parquet")
        else:
            write_tar(place / f"{number}.tar", *((f.name, f.read_bytes()) for f in some))
    images = open_source(f"{place}/{{0..9}}.tar" if kind == "pattern of tars" else place)
    alone = run(images, checkpoint, tmp_path / "alone")
    with pytest.raises(UnavailableError, match="archives: No such file"):
        gone = once_after(3, lambda: place.rename(tmp_path / "gone"))
        run(images, checkpoint, tmp_path / "out", progress=gone)
    assert 3 <= len(parts_of(tmp_path / "out")) < 10
    (tmp_path / "gone").rename(place)
    assert run(images, checkpoint, tmp_path / "out").errors().num_rows == 0
    assert bytes_of(tmp_path / "out") == bytes_of(alone.path)
    # A single one is an error of its own.
    next(place.glob("4.*")).rename(tmp_path / "moved")
    lost = run(images, checkpoint, tmp_path / "lost").errors().to_pylist()
    assert len(lost) == (10 if kind == "Parquet files" else 1)
    assert {row["stage"] for row in lost} == {"read"}


def test_an_archive_whose_disk_fails_is_not_damaged(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(source.rglob("*.png"))[:3]
    write_tar(tmp_path / "a.tar", *((f.name, f.read_bytes()) for f in files))
    pq.write_table(pa.table({"image": [f.read_bytes() for f in files]}), tmp_path / "a.parquet")
    tar, table = open_source(tmp_path / "a.tar"), open_source(tmp_path / "a.parquet")

    def fails(*_: object) -> Any:
        raise OSError(errno.EIO, "Input/output error", "a")

    with monkeypatch.context() as patch:
        patch.setattr(tar, "_open", fails)
        with pytest.raises(UnavailableError, match="Input/output error"):
            list(tar.read(tar.units(3)[0]))
        patch.setattr(table, "_open", fails)
        with pytest.raises(UnavailableError, match="Input/output error"):
            list(table.read(table.units(3)[0]))


@pytest.mark.parametrize("name", ["EMFILE", "ETIMEDOUT", "ENOMEM"])
@pytest.mark.parametrize("times", [1, 10**6])
def test_what_the_system_says_of_itself_is_waited_out_or_ends_the_run(
    tmp_path: Path, source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    times: int,
) -> None:  # fmt: skip
    number, victim = getattr(errno, name), os.fsencode(sorted(source.rglob("*.png"))[35])
    left, real = [times], os.open

    def failing(path: Any, *more: Any, **settings: Any) -> int:
        if path == victim and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number), path)
        return real(path, *more, **settings)

    monkeypatch.setattr(os, "open", failing)
    if times == 1:
        assert run(source, checkpoint, tmp_path / "out").errors().num_rows == 0
        return
    with pytest.raises(UnavailableError, match=os.strerror(number)) as raised:
        run(source, checkpoint, tmp_path / "out")
    assert os.fsdecode(victim) in str(raised.value)
    assert len(parts_of(tmp_path / "out")) == 3


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
@pytest.mark.parametrize("layout", ["class folders", "a folder an image"])
def test_a_file_that_can_never_be_read_is_one_bad_image(
    tmp_path: Path, source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    layout: str,
) -> None:  # fmt: skip
    if layout == "a folder an image":
        for number, file in enumerate(sorted(source.rglob("*.png"))):
            (source / f"{number:03}").mkdir()
            file.rename(source / f"{number:03}" / "image.png")
    alone = run(source, checkpoint, tmp_path / "alone")
    number, victim = getattr(errno, name), sorted(source.rglob("*.png"))[35]
    real = os.open

    def failing(path: Any, *more: Any, **settings: Any) -> int:
        if path == os.fsencode(victim):
            raise OSError(number, os.strerror(number), path)
        return real(path, *more, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        found = run(source, checkpoint, tmp_path / "out")
    assert found.errors().to_pylist() == [
        {
            "sample_id": str(victim.relative_to(source)),
            "stage": "read",
            "error": f"cannot be read: {os.strerror(number)} each time, though its disk answers",
        }
    ]
    assert found.scores().num_rows == 99
    again = run(source, checkpoint, tmp_path / "out", retry_errors=True)
    assert again.session.parts_done == 1
    assert bytes_of(tmp_path / "out") == bytes_of(alone.path)


@pytest.mark.parametrize("when", ["from then on", "at the second look"])
def test_a_disk_that_fails_while_its_files_are_cached_blames_no_image(
    tmp_path: Path, source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The cache gives out what was read before: only what is asked past it tells of the disk."""
    victim = os.fsencode(sorted(source.rglob("*.png"))[35])
    real, uncached, looks = os.open, set[int](), []

    def failing(path: Any, *more: Any, **settings: Any) -> int:
        if path == victim:
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path, *more, **settings)

    def read(descriptor: int, size: int) -> bytes:
        looks.append(descriptor)
        if descriptor in uncached and (when == "from then on" or len(looks) > 1):
            raise OSError(errno.EIO, "Input/output error")
        return b"from the cache"

    monkeypatch.setattr(os, "open", failing)
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *_: uncached.add(descriptor))
    monkeypatch.setattr(os, "read", read)
    with pytest.raises(UnavailableError, match="Input/output error"):
        run(source, checkpoint, tmp_path / "out")
    assert len(looks) > 1
    assert len(parts_of(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "errors.parquet").exists()


class BadSector(io.FileIO):
    """A file whose bytes from ``sector`` on, up to 512 of them, cannot be read."""

    sector = 0

    def readinto(self, buffer: Any) -> int:
        start = self.tell()
        if self.sector <= start < self.sector + 512:
            raise OSError(errno.EIO, "Input/output error")
        before = self.sector - start
        return super().readinto(memoryview(buffer)[:before] if before > 0 else buffer) or 0


@pytest.mark.parametrize("kind", ["tars", "Parquet files"])
def test_an_archive_with_a_bad_sector_costs_what_lies_there(
    tmp_path: Path, source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    files = sorted(source.rglob("*.png"))[:40]
    place = tmp_path / "archives"
    place.mkdir()
    for number in range(2):
        some = files[20 * number : 20 * number + 20]
        if kind == "tars":
            write_tar(place / f"{number}.tar", *((f.name, f.read_bytes()) for f in some))
        else:
            # The last 64 KiB are read with the footer.
            columns = {"image": [f.read_bytes() for f in some], "other": [os.urandom(9000)] * 20}
            path = place / f"{number}.parquet"
            pq.write_table(pa.table(columns), path, row_group_size=10, use_dictionary=False)
    images: Any = WebDatasetSource(place) if kind == "tars" else ParquetSource(place, "image")
    victim = next(place.glob("1.*"))

    def opened(name: Any) -> Any:
        return (BadSector if name == str(victim) else io.FileIO)(name)

    monkeypatch.setattr(BadSector, "sector", 5 * 1024 if kind == "tars" else 512)
    monkeypatch.setattr(local_file, "FileIO", opened)
    with monkeypatch.context() as patch:  # nor can anything else be read there
        patch.setattr(os, "read", lambda *_: b"")
        with pytest.raises(UnavailableError, match="Input/output error"):
            run(images, checkpoint, tmp_path / "gone")
    found = run(images, checkpoint, tmp_path / "out")
    errors = found.errors().to_pylist()
    assert {row["stage"] for row in errors} == {"read"}
    assert all("Input/output error each time" in row["error"] for row in errors)
    if kind == "tars":  # a tar cannot be read on behind what breaks off
        assert [row["sample_id"] for row in errors] == ["1.tar"]
        assert 20 < found.scores().num_rows < 40
    else:
        assert [row["sample_id"] for row in errors] == [f"1.parquet#0/{i}" for i in range(10)]
        assert found.scores().num_rows == 30


class FailingRead:
    """A decoder that fails once for every image, as a disk or the memory does in the middle of a file."""

    name, version = "failing", "1"

    def __init__(self, error: Callable[[], BaseException], times: int) -> None:
        self._error, self._times = error, times
        self._failed: dict[str, int] = {}

    def decode(self, sample: Sample, mode: str) -> Any:
        from qscore_fast.images.decode import decode_file

        count = self._failed.setdefault(sample.sample_id, 0)
        self._failed[sample.sample_id] += 1
        with open(sample.path or b"", "rb") as file:
            if count < self._times:
                return decode_file(_Broken(file, self._error), mode, 10**6)  # type: ignore[arg-type]
            return decode_file(file, mode, 10**6)  # type: ignore[arg-type]


class _Broken:
    """Its header can be read, and nothing after that."""

    def __init__(self, file: Any, error: Callable[[], BaseException]) -> None:
        self._file, self._error = file, error

    def read(self, size: int = -1) -> bytes:
        if self._file.tell() > 30:
            raise self._error()
        return bytes(self._file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("times", [1, 10**6])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (lambda: OSError(errno.ETIMEDOUT, "Connection timed out"), "Connection timed out"),
        (MemoryError, "not enough memory"),
        (lambda: OSError("out of memory error when reading image file"), "not enough memory"),
        (lambda: OSError("image file is truncated"), None),
    ],
)
def test_reads_that_fail_in_the_middle(
    source: Path, times: int, error: Callable[[], BaseException], reason: str | None
) -> None:
    from sample_data import PREPROCESS

    from qscore_fast.images import Preprocess

    folder = FolderSource(source)
    decoder: Any = FailingRead(error, times)
    loader = image_loader.ImageLoader(folder, Preprocess.from_json(PREPROCESS), decoder)
    sample = next(iter(folder.read(folder.units(1)[0])))
    if reason is None:
        found: Any = loader.load(sample)
        assert (found.stage, str(found)) == (
            "decode", "damaged or truncated: image file is truncated"
        )  # fmt: skip
    elif times == 1:
        assert loader.load(sample).shape == (1, 28, 28)  # type: ignore[union-attr]
    else:
        with pytest.raises(UnavailableError, match=reason) as raised:
            loader.load(sample)
        names_it = os.fsdecode(sample.path or b"") in str(raised.value)
        assert names_it is (reason != "not enough memory")


def test_single_files_that_cannot_be_read_are_errors_and_tried_again_when_asked(
    tmp_path: Path, source: Path, checkpoint: Path
) -> None:
    files = sorted(source.rglob("*.png"))
    alone = run(source, checkpoint, tmp_path / "alone")
    moved = tmp_path / "moved.png"
    (source / "bag" / "link.png").symlink_to("nowhere")
    (source / "bag" / "text.png").write_text("no image")
    with_bad = FolderSource(source)
    files[35].rename(moved)
    first = run(with_bad, checkpoint, tmp_path / "out")
    errors = {row["sample_id"]: (row["stage"], row["error"]) for row in first.errors().to_pylist()}
    victim = str(files[35].relative_to(source))
    assert errors.pop(victim) == ("read", "cannot be opened: No such file or directory")
    assert errors.pop("bag/link.png") == (
        "read", "cannot be opened: No such file or directory"
    )  # fmt: skip
    assert [stage for stage, _ in errors.values()] == ["decode"]
    moved.rename(files[35])
    assert run(with_bad, checkpoint, tmp_path / "out").session.parts_done == 0
    again = run(with_bad, checkpoint, tmp_path / "out", retry_errors=True)
    assert again.session.parts_done == 2  # that of the file, and that of the link
    notes = [path.with_suffix(".json").read_text() for path in parts_of(tmp_path / "out")]
    assert sum(text.count('"stage": "read"') for text in notes) == 1
    scored = {
        row["sample_id"]
        for path in parts_of(tmp_path / "out")
        for row in pq.read_table(path, columns=["sample_id", "status"]).to_pylist()
        if row["status"] == "ok"
    }
    assert scored == set(alone.scores()["sample_id"].to_pylist())


def test_the_command_says_so_and_ends_with_75(
    tmp_path: Path, source: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    real, seen = os.open, []

    def failing(path: Any, *more: Any, **settings: Any) -> int:
        if isinstance(path, bytes) and path.endswith(b".png"):
            seen.append(path)
            if len(seen) > 30:
                raise OSError(errno.EIO, "Input/output error", path)
        return real(path, *more, **settings)

    command = [
        "score", source, "--encoder", checkpoint, "--out", tmp_path / "out", "--unit-size", 10,
        "--workers", 1,
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        assert main([str(word) for word in command]) == 75
    said = capsys.readouterr().err
    assert "error: images cannot be read for now" in said
    assert "Input/output error" in said and "give the same command again" in said
    assert len(parts_of(tmp_path / "out")) == 3
    assert main([str(word) for word in [*command, "--retry-errors"]]) == 0
    assert pq.read_metadata(tmp_path / "out" / "errors.parquet").num_rows == 0
