"""Images behind URLs: an S3 server of the test's own, and file systems that fail on purpose."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from object_store import object_store

from qscore_fast.errors import MissingExtraError, SourceError, UnavailableError
from qscore_fast.images import retries
from qscore_fast.images.sources import file_systems, read_ahead, remote
from qscore_fast.images.sources.file_systems import open_binary
from qscore_fast.images.sources.parquet import ParquetSource
from qscore_fast.images.sources.remote import RemoteFolderSource

NAMES = ["cat/1.jpg", "cat/deep/2.PNG", "dog/3.webp", "dog/é \\.bmp"]


class FlakyFileSystem(MemoryFileSystem):
    """Memory that throttles: each read of a name fails as often as ``failures`` says."""

    protocol = "flaky"
    store: dict[str, Any] = {}  # noqa: RUF012 (shared, as in the base class)
    pseudo_dirs = [""]  # noqa: RUF012
    failures: dict[str, int] = {}  # noqa: RUF012
    reads = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("flaky://").strip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        type(self).reads += 1
        name = path.rpartition("/")[2]
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise RuntimeError("SlowDown: please reduce your request rate")
        return super().cat_file(path, start, end)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with object_store("pictures") as store:
        yield store


@pytest.fixture
def bucket(server: Any) -> Any:
    if server.exists("pictures/set"):
        server.rm("pictures/set", recursive=True)
    for name in NAMES:
        server.pipe_file(f"pictures/set/{name}", name.encode())
    server.pipe_file("pictures/set/notes.txt", b"ignored")
    return server


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> type[FlakyFileSystem]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    monkeypatch.setattr(retries, "WAITS", (0.001,) * 4)
    for field, value in (("store", {}), ("pseudo_dirs", [""]), ("failures", {}), ("reads", 0)):
        monkeypatch.setattr(FlakyFileSystem, field, value)
    for name in "abc":
        FlakyFileSystem().pipe_file(f"/set/{name}.png", name.encode())
    return FlakyFileSystem


def everything(source: Any, size: int = 3) -> list[tuple[str, str | None, bytes | None]]:
    source = pickle.loads(pickle.dumps(source))
    samples = [s for unit in source.units(size) for s in source.read(unit)]
    assert all(sum(x is not None for x in (s.path, s.content, s.error)) == 1 for s in samples)
    return [(s.sample_id, s.label, s.content) for s in samples]


def errors(source: Any) -> dict[str, str]:
    samples = (s for unit in source.units(100) for s in source.read(unit))
    return {s.sample_id: str(s.error) for s in samples if s.error}


def test_a_bucket_is_listed_and_read_in_order(bucket: Any) -> None:
    source = RemoteFolderSource("s3://pictures/set/")
    assert everything(source) == [
        ("cat/1.jpg", "cat", b"cat/1.jpg"),
        ("cat/deep/2.PNG", "cat", b"cat/deep/2.PNG"),
        ("dog/3.webp", "dog", b"dog/3.webp"),
        ("dog/é \\\\.bmp", "dog", "dog/é \\.bmp".encode()),
    ]
    assert [unit.num_samples for unit in source.units(3)] == [3, 1]
    assert source.has_labels and source.num_samples == 4
    assert source.notes == {"files of other kinds ignored": 1, "of them .txt": 1}
    bucket.pipe_file("pictures/set/stray.jpg", b"x")
    stray = RemoteFolderSource("s3://pictures/set")
    assert not stray.has_labels
    assert everything(stray)[-1] == ("stray.jpg", None, b"x")


def test_the_manifest_sees_new_content_of_the_same_size(bucket: Any) -> None:
    first = RemoteFolderSource("s3://pictures/set").manifest_hash
    assert RemoteFolderSource("s3://pictures/set").manifest_hash == first
    bucket.pipe_file("pictures/set/cat/1.jpg", b"CAT/1.jpg")
    assert RemoteFolderSource("s3://pictures/set").manifest_hash != first


def test_objects_that_vanish_or_change_are_errors(bucket: Any) -> None:
    bucket.pipe_file("pictures/set/cat/empty.png", b"")
    bucket.pipe_file("pictures/set/cat/filled.png", b"")
    source = RemoteFolderSource("s3://pictures/set")
    bucket.rm_file("pictures/set/cat/1.jpg")
    bucket.pipe_file("pictures/set/dog/3.webp", b"much longer than it was before")
    bucket.pipe_file("pictures/set/cat/deep/2.PNG", b"less")
    bucket.pipe_file("pictures/set/cat/filled.png", b"no longer empty")
    found = errors(source)
    assert found.keys() == {"cat/1.jpg", "dog/3.webp", "cat/deep/2.PNG", "cat/filled.png"}
    assert "vanished" in found.pop("cat/1.jpg")
    assert all("changed since it was listed" in reason for reason in found.values())
    contents = {name: content for name, _, content in everything(source)}
    assert contents["cat/empty.png"] == b""


@pytest.mark.parametrize("url", ["s3://no-such-bucket/set", "s3://pictures/no-such-prefix"])
def test_a_wrong_place_is_named(bucket: Any, url: str) -> None:
    with pytest.raises(SourceError, match=url):
        RemoteFolderSource(url)
    with pytest.raises(SourceError, match=url):
        ParquetSource(url)


def test_a_place_without_images_is_refused(bucket: Any) -> None:
    bucket.pipe_file("pictures/texts/a.txt", b"")
    with pytest.raises(SourceError, match="no image in s3://pictures/texts .* 1 other file"):
        RemoteFolderSource("s3://pictures/texts")


def test_throttling_is_waited_out_and_then_no_fault_of_the_image(
    flaky: type[FlakyFileSystem],
) -> None:
    flaky.failures = {"a.png": 3}
    source = RemoteFolderSource("flaky://set")
    assert [content for _, _, content in everything(source)] == [b"a", b"b", b"c"]
    assert flaky.reads == 4 + 1 + 1
    flaky.failures, flaky.reads = {"b.png": 10**6}, 0
    samples = source.read(source.units(3)[0])
    assert next(samples).content == b"a"
    with pytest.raises(UnavailableError, match=r"b\.png: failed 5 times: SlowDown"):
        next(samples)
    assert flaky.reads == 1 + 5 + 1


def test_a_place_that_is_gone_or_closed_is_no_fault_of_its_images(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RemoteFolderSource("flaky://set")

    def closed(self: Any, path: str, start: int | None = None, end: int | None = None) -> bytes:
        if path.endswith("b.png"):
            raise PermissionError("Access Denied")
        return bytes(MemoryFileSystem.cat_file(self, path, start, end))

    with monkeypatch.context() as patch:
        patch.setattr(flaky, "cat_file", closed)
        assert errors(source) == {"b.png": "cannot be read: Access Denied"}
        patch.setattr(flaky, "exists", lambda *_: False)  # the credentials have expired
        with pytest.raises(UnavailableError, match="flaky://set is gone or closed: Access Denied"):
            errors(source)
    flaky().rm("/set", recursive=True)
    with pytest.raises(UnavailableError, match="flaky://set is gone"):
        errors(source)


def test_reading_ahead_is_bounded(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        flaky().pipe_file(f"/many/{number:03}.jpg", bytes(1000))
    monkeypatch.setattr(read_ahead, "_READ_AHEAD_BYTES", 5000)
    source = RemoteFolderSource("flaky://many")
    samples = source.read(source.units(100)[0])
    assert next(samples).sample_id == "000.jpg"
    assert flaky.reads <= 6
    samples.close()


def test_an_object_above_the_limit_is_not_read(
    flaky: type[FlakyFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky().pipe_file("/set/large.png", bytes(2000))
    monkeypatch.setattr(remote, "MAX_IMAGE_BYTES", 1000)
    assert "above the limit" in errors(RemoteFolderSource("flaky://set"))["large.png"]
    assert flaky.reads == 3


@pytest.mark.parametrize("name", ["shards/*.parquet", "shards", "shards/a.parquet"])
def test_parquet_from_a_bucket(bucket: Any, name: str) -> None:
    file = io.BytesIO()
    images = [bytes([n]) * 100_000 for n in range(50)]
    pq.write_table(pa.table({"image": images, "label": range(50)}), file, row_group_size=20)
    bucket.pipe_file("pictures/shards/a.parquet", file.getvalue())
    assert everything(ParquetSource(f"s3://pictures/{name}"), 20) == [
        (f"a.parquet#{n // 20}/{n % 20}", str(n), images[n]) for n in range(50)
    ]


def test_a_tar_from_a_bucket(bucket: Any) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for n in range(3):
            info = tarfile.TarInfo(f"{n}.jpg")
            info.size = 3_000_000
            archive.addfile(info, io.BytesIO(bytes([n]) * info.size))
    bucket.pipe_file("pictures/a.tar", file.getvalue())
    with open_binary("s3://pictures/a.tar") as stream:
        assert stream.read() == file.getvalue()
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            last = archive.extractfile("2.jpg")
            assert last is not None and last.read() == bytes([2]) * 3_000_000


def test_reads_of_a_stream_are_tried_again(flaky: type[FlakyFileSystem]) -> None:
    class Stream(io.BytesIO):
        left = 2

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            if self.left:
                self.left -= 1
                raise OSError("connection reset")
            return content

    class Store:
        def open(self, path: str, mode: str, block_size: int) -> Stream:
            return Stream(b"0123456789")

    with file_systems.open_file(Store(), "x") as stream:
        assert stream.read(4) == b"0123"
        assert stream.read() == b"456789"


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"qscore-fast\[s3\]"):
        RemoteFolderSource("s3://pictures/set")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(SourceError, match="cannot open nosuch://x"):
        RemoteFolderSource("nosuch://x")


def test_the_endpoint_comes_from_the_environment(bucket: Any) -> None:
    code = (
        "from qscore_fast.images.sources.remote import RemoteFolderSource as R\n"
        "print(R('s3://pictures/set').num_samples)"
    )
    conf = fsspec.config.conf["s3"]
    given = {f"FSSPEC_S3_{key.upper()}": value for key, value in conf.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **given}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "4", done.stderr
