"""What sources say without reading images, against what reading them gives."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qscore_fast.errors import SourceError
from qscore_fast.images import FolderSource, Sample, Source, Subset
from qscore_fast.images.sources.file_list import FileListSource
from qscore_fast.images.sources.heads import heads, known_classes
from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource
from qscore_fast.images.sources.parquet import ParquetSource
from qscore_fast.images.sources.remote import RemoteFolderSource
from qscore_fast.images.sources.table_source import TableSource
from qscore_fast.images.sources.webdataset import WebDatasetSource
from tests.support.tars import entry, tar_bytes, write_tar

IMAGE = 3000
FILES = [
    ("0.jpg", b"0" * IMAGE), ("0.cls", b"cat"), ("1.cls", b"dog"), ("1.jpg", b"1" * IMAGE),
    ("2.json", b'{"label": "cat"}'), ("2.png", b"2" * IMAGE), ("2.png", b"again"), ("3.txt", b""),
    ("../4.jpg", b"4"), ("0.jpg", b"later"), ("5.jpg", b""), ("6.cls", b"owl"), ("6.bmp", b"6" * IMAGE),
]  # fmt: skip


def read(source: Source) -> list[Sample]:
    return [sample for unit in source.units(3) for sample in source.read(unit)]


def agree(source: Source) -> None:
    """Heads are the samples; ``known_classes`` are their labels."""
    source = pickle.loads(pickle.dumps(source))
    for unit in source.units(3):
        without, samples = list(heads(source, unit)), list(source.read(unit))
        assert [(s.sample_id, s.label) for s in without] == [
            (s.sample_id, s.label) for s in samples
        ]
        assert not any(sample.content for sample in without)
        # An error may lie in the content.
        assert all(s.error for head, s in zip(without, samples, strict=True) if head.error)
    known = known_classes(source)
    if known is not None:
        assert known == {sample.label for sample in read(source)} - {None}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cut", [100, 1000, 3500, 3590, 4096, 4700, 9000, 15000, -10, None])
def test_tars(tmp_path: Path, packed: bool, cut: int | None) -> None:
    content = tar_bytes([*FILES, entry("7.jpg", b"2", "0.jpg")])
    content = (gzip.compress(content, 0) if packed else content)[:cut]
    (tmp_path / ("a.tar.gz" if packed else "a.tar")).write_bytes(content)
    agree(WebDatasetSource(tmp_path))


@pytest.mark.parametrize("cut", [None, 9000])
def test_imagenet_tars(tmp_path: Path, cut: int | None) -> None:
    inner = [(f"n{n:08}_{k}.JPEG", bytes([n, k]) * IMAGE) for n in (1, 2) for k in (1, 2)]
    train = write_tar(
        tmp_path / "train.tar",
        ("n00000001.tar", tar_bytes(inner[:2])[:cut]),
        ("n00000002.tar", tar_bytes(inner[2:])),
        ("n00000003.tar", tar_bytes([])),
    )
    agree(ImageNetTarsSource(train))
    val = write_tar(tmp_path / "val.tar", *inner)
    val.write_bytes(val.read_bytes()[: None if cut is None else -9000])
    agree(ImageNetTarsSource(val, {"n00000001_1.JPEG": "a"}))


def table(rows: int) -> pa.Table:
    images = [bytes([n]) * IMAGE for n in range(rows)]
    labels = [None if n == 4 else f"c{n % 3}" for n in range(rows)]
    return pa.table({"image": images, "label": labels, "id": [f"i{n // 2}" for n in range(rows)]})


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(table(10), tmp_path / "a.parquet", row_group_size=4)
    agree(ParquetSource(tmp_path))
    agree(ParquetSource(tmp_path, id_column="id"))
    assert known_classes(ParquetSource(tmp_path)) == {"c0", "c1", "c2"}
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    agree(ParquetSource(tmp_path))
    assert known_classes(ParquetSource(tmp_path)) is None


def test_folders_and_lists(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe({f"/heads/{c}/{n}.jpg": b"x" for c in "ab" for n in range(3)})
    agree(RemoteFolderSource("memory://heads"))
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    agree(FolderSource(tmp_path))
    (tmp_path / "l.csv").write_text("path,label\na/1.jpg,cat\n,dog\na/1.jpg,\n")
    agree(FileListSource(tmp_path / "l.csv"))
    agree(Subset(FolderSource(tmp_path), classes=["b", "c"]))


class Counting(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        Counting.total += len(content)
        return content


def _open_counting(name: str) -> BinaryIO:
    return Counting(Path(name).read_bytes())


def test_a_limit_goes_by_the_headers_of_tars(tmp_path: Path) -> None:
    for shard in range(3):
        files = [(f"{n}.jpg", bytes(100_000)) for n in range(5)]
        write_tar(tmp_path / f"{shard}.tar", *files)
    names = [str(tmp_path / f"{shard}.tar") for shard in range(3)]
    source = WebDatasetSource(names, open_binary=_open_counting)
    Counting.total = 0
    units = Subset(source, limit=12).units(100)
    assert [unit.num_samples for unit in units] == [5, 5, 2]
    assert 0 < Counting.total < 40_000  # of 1,500,000


def test_a_limit_opens_no_shard_that_it_does_not_need(tmp_path: Path) -> None:
    opened: list[str] = []

    def open_noting(name: str) -> BinaryIO:
        opened.append(name)
        return open(name, "rb")

    for shard in range(9):
        write_tar(tmp_path / f"{shard}.tar", *((f"{n}.jpg", b"x") for n in range(5)))
    names = [str(tmp_path / f"{shard}.tar") for shard in range(9)]
    source = WebDatasetSource(names, open_binary=open_noting)
    opened.clear()
    assert len(Subset(source, limit=5).units(100)) == 1
    assert opened == names[:1]


@pytest.mark.parametrize("settings", [{}, {"share": 0.5}, {"classes": ["c1"]}])
def test_a_limit_reads_no_image_of_a_table_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    pq.write_table(table(40), tmp_path / "a.parquet", row_group_size=4)
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/limit/c{n % 3}/{n}.jpg": b"x" for n in range(40)})
    makers: list[Callable[[], Source]] = [
        lambda: ParquetSource(tmp_path),
        lambda: RemoteFolderSource("memory://limit"),
    ]
    for make in makers:
        expected = [s.sample_id for s in read(Subset(make(), **settings))][:10]
        with monkeypatch.context() as patch:
            for reader in (TableSource, RemoteFolderSource):
                patch.setattr(reader, "read", None)
            subset = Subset(make(), limit=10, **settings)
            units = subset.units(3)
        assert sum(unit.num_samples or 0 for unit in units) == 10
        assert [s.sample_id for s in read(subset)] == expected


def test_classes_that_no_image_has(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True)
        (tmp_path / "folder" / name).write_bytes(b"x")
    (tmp_path / "l.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    pq.write_table(pa.table({"image": [b"1", b"2"], "label": ["a", "b"]}), tmp_path / "p.parquet")
    for source in (
        FolderSource(tmp_path / "folder"),
        FileListSource(tmp_path / "l.csv"),
        ParquetSource(tmp_path / "p.parquet"),
    ):
        some = Subset(source, classes=["b", "zebra", "owl"])
        assert some.unmatched == ("owl", "zebra")
        assert some.notes == {**source.notes, "classes without an image: owl, zebra": 2}
        with pytest.raises(SourceError, match="has the class owl, zebra: its classes are a, b"):
            Subset(source, classes=["zebra", "owl"])
    write_tar(tmp_path / "s" / "0.tar", *FILES)
    shards = WebDatasetSource(tmp_path / "s")
    assert len(Subset(shards, classes=["dog", "owl"]).units(9)) == 1
    write_tar(tmp_path / "s" / "0.tar", ("0.jpg", b"0"), ("0.cls", b"cat"))
    with pytest.raises(SourceError, match="no image of .* has the class dog, owl"):
        Subset(WebDatasetSource(tmp_path / "s"), classes=["dog", "owl"]).units(9)


def test_errors_of_other_classes_are_left_out(tmp_path: Path) -> None:
    content = "path,label\na.jpg,a\na.jpg,b\n,b\n,a\nc.jpg,\n,\n"
    (tmp_path / "c.csv").write_text(content)
    chosen = read(Subset(FileListSource(tmp_path / "c.csv"), classes=["a"]))
    # What the last one would have been is not known.
    assert [(s.sample_id, s.label) for s in chosen] == [
        ("a.jpg", "a"), ("c.csv#4", "a"), ("c.csv#6", None),
    ]  # fmt: skip
    assert [s.error is not None for s in chosen] == [False, True, True]
