"""Lists of image files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
from pathlib import Path
from threading import Barrier, Lock
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hanging_store import hanging_store
from hypothesis import given
from hypothesis import strategies as st
from object_store import object_store

from qscore_fast.errors import ImageError, SourceError, UnavailableError
from qscore_fast.images import open_source, retries
from qscore_fast.images.sources import fetch as fetch_module
from qscore_fast.images.sources.file_list import FileListSource
from qscore_fast.images.sources.listing import describe_change
from qscore_fast.images.sources.packed_bytes import PackedBytes
from qscore_fast.images.sources.repeats import Repeats
from qscore_fast.images.sources.source import Sample

ROWS = [("a/1.jpg", "cat"), ("b 2.jpg", "dog"), ("ü,3.jpg", "cat")]


def samples(source: FileListSource, size: int = 2) -> list[Sample]:
    return [sample for unit in source.units(size) for sample in source.read(unit)]


def ids(source: FileListSource) -> list[str]:
    return [sample.sample_id for sample in samples(source)]


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def save_rows(folder: Path, name: str) -> Path:
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        paths, labels = zip(*ROWS, strict=True)
        table = pa.table({"n": [1, 2, 3], "path": paths, "label": labels})
        pq.write_table(table, folder / name, row_group_size=2)
        return folder / name
    text = {
        "txt": "a/1.jpg\nb 2.jpg\nü,3.jpg\n",
        "csv": 'n,path,label\n1,a/1.jpg,cat\n2,b 2.jpg,dog\n3,"ü,3.jpg",cat\n',
        "tsv": "n\tpath\tlabel\n1\ta/1.jpg\tcat\n2\tb 2.jpg\tdog\n3\tü,3.jpg\tcat\n",
        "jsonl": "".join(json.dumps({"n": 1, "path": p, "label": x}) + "\n" for p, x in ROWS),
    }[kind]
    return write(folder, name, text.encode())


@pytest.mark.parametrize(
    "name",
    [
        "l.txt",
        "l.csv",
        "l.tsv",
        "l.jsonl",
        "l.parquet",
        "l.txt.gz",
        "l.CSV.gz",
        "l.tsv.gz",
        "l.jsonl.gz",
    ],
)
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    source = FileListSource(save_rows(tmp_path, name.lower()))
    again = pickle.loads(pickle.dumps(source))
    labelled = ".txt" not in name
    assert source.has_labels is labelled
    assert source.num_samples == 3
    assert [unit.num_samples for unit in source.units(2)] == [2, 1]
    assert samples(again) == [
        Sample(path, label if labelled else None, path=os.fsencode(tmp_path / path))
        for path, label in ROWS
    ]
    assert again.manifest_hash == source.manifest_hash == FileListSource(source.path).manifest_hash


def test_same_manifest_for_the_same_entries_only(tmp_path: Path) -> None:
    first = FileListSource(save_rows(tmp_path, "l.csv"))
    assert FileListSource(save_rows(tmp_path, "l.parquet")).manifest_hash == first.manifest_hash
    content = (tmp_path / "l.csv").read_bytes()
    changed = {first.manifest_hash}
    for old, new in [(b"dog", b"cow"), (b"b 2.jpg", b"b 3.jpg"), (b"2,b 2.jpg,dog\n", b"")]:
        changed.add(
            FileListSource(write(tmp_path, "m.csv", content.replace(old, new))).manifest_hash
        )
    assert len(changed) == 4


def test_the_manifest_has_the_sizes_of_the_files(tmp_path: Path) -> None:
    """Else a run would be continued over other images; without sizes it is as it once was."""
    path = write(
        tmp_path, "l.csv", b"path,label\na.jpg,cat\nb.jpg,dog\nmissing.jpg,\nmemory://none.jpg,\n"
    )
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"123")
    lines = ["a.jpg\0a.jpg\0cat", "b.jpg\0b.jpg\0dog", "missing.jpg\0missing.jpg\0"]
    lines.append("memory://none.jpg\0memory://none.jpg\0")

    def by_hand(*sizes: int) -> str:
        text = "".join(f"{line}\0{size}\n" for line, size in zip(lines, sizes, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()

    assert FileListSource(path).manifest_hash == by_hand(3, 3, -1, -1)
    assert FileListSource(path, sizes=False).manifest_hash == by_hand(-1, -1, -1, -1)
    (tmp_path / "b.jpg").write_bytes(b"other")
    assert FileListSource(path).manifest_hash == by_hand(3, 5, -1, -1)
    assert open_source(path, sizes=False).manifest_hash == by_hand(-1, -1, -1, -1)


def test_the_manifest_has_the_sizes_behind_urls(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/sized/{n}.jpg": bytes(n) for n in range(40)})
    rows = [f"memory://sized/{n}.jpg" for n in range(41)]
    path = write(tmp_path, "l.txt", "\n".join(rows).encode())

    def by_hand(*sizes: int) -> str:
        lines = (f"{row}\0{row}\0\0{size}\n" for row, size in zip(rows, sizes, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    assert FileListSource(path).manifest_hash == by_hand(*range(40), -1)
    assert FileListSource(path, sizes=False).manifest_hash == by_hand(*[-1] * 41)
    memory.pipe_file("/sized/7.jpg", b"other and longer")
    assert FileListSource(path).manifest_hash == by_hand(*range(7), 16, *range(8, 40), -1)


def test_new_content_of_the_same_size_shows_in_an_object_store(tmp_path: Path) -> None:
    path = write(tmp_path, "l.txt", b"s3://listed/1.jpg\ns3://listed/2.jpg\n")
    with object_store("listed") as store:
        store.pipe({f"listed/{n}.jpg": b"old" for n in (1, 2)})
        before = FileListSource(path).manifest_hash
        assert FileListSource(path).manifest_hash == before
        without = FileListSource(path, sizes=False).manifest_hash
        store.pipe_file("listed/2.jpg", b"new")
        after = FileListSource(path).manifest_hash
        assert after != before
        assert FileListSource(path, sizes=False).manifest_hash == without
    assert describe_change(before.listing, after.listing) == (
        "1 changed; first changed: s3://listed/2.jpg"
    )


def test_urls_are_looked_up_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sixteen wait for each other, and nobody for more."""
    together, most, now, lock = Barrier(16, timeout=30), [0], [0], Lock()

    def info(self: Any, path: str, **_: Any) -> dict[str, Any]:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait()
        with lock:
            now[0] -= 1
        return {"name": path, "size": 5, "type": "file"}

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    path = write(tmp_path, "l.txt", b"\n".join(b"memory://x/%d.jpg" % n for n in range(512)))
    assert FileListSource(path).manifest_hash
    assert most == [16]


def test_what_a_web_server_says_of_its_files(tmp_path: Path) -> None:
    """It refuses one object, or it fails: only the latter is no answer."""
    files = {"1.jpg": b"12345", "2.jpg": b"123"}
    with hanging_store(files, 10**6) as store:
        rows = [f"{store.url}/{name}" for name in (*files, "missing.jpg", "closed.jpg")]
        path = write(tmp_path, "l.txt", "\n".join(rows).encode())
        lines = (f"{r}\0{r}\0\0{n}\n" for r, n in zip(rows, (5, 3, -1, -1), strict=True))
        expected = hashlib.sha256("".join(lines).encode()).hexdigest()
        store.codes.update({"missing.jpg": 404, "closed.jpg": 403})
        assert FileListSource(path).manifest_hash == expected


def test_a_store_that_fails_while_sizes_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0))
    files = {"1.jpg": b"12345"}
    with hanging_store(files, 0, fails=True, heads=True) as store:
        path = write(tmp_path, "l.txt", f"{store.url}/1.jpg".encode())
        with pytest.raises(UnavailableError, match=r"set/1\.jpg: failed 3 times"):
            FileListSource(path).manifest_hash  # noqa: B018


@pytest.mark.parametrize("name", ["l.txt", "l.csv.gz", "l.parquet"])
def test_lists_and_entries_behind_urls(tmp_path: Path, name: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/pictures/{n}.jpg": bytes([n]) * 100 for n in range(40)})
    (tmp_path / "near.jpg").write_bytes(b"near")
    rows = [f"memory://pictures/{n}.jpg" for n in range(39)]
    rows[20:20] = [
        "39.jpg",
        "../pictures/0.jpg",
        f"{tmp_path}/near.jpg",
        "memory://pictures/no.jpg",
    ]
    if name == "l.parquet":
        pq.write_table(pa.table({"path": rows}), tmp_path / name)
    else:
        header = "path\n" if "csv" in name else ""
        write(tmp_path, name, (header + "\n".join(rows) + "\n").encode())
    memory.pipe(f"/pictures/{name}", (tmp_path / name).read_bytes())
    source = pickle.loads(pickle.dumps(open_source(f"memory://pictures/{name}")))
    found = samples(source, 100)
    assert [s.sample_id for s in found] == [
        *(f"{n}.jpg" for n in range(20)),
        "39.jpg", "../pictures/0.jpg", f"{tmp_path}/near.jpg", "no.jpg",
        *(f"{n}.jpg" for n in range(20, 39)),
    ]  # fmt: skip
    contents = [s.content for s in found]
    assert contents[:22] == [bytes([n]) * 100 for n in [*range(20), 39, 0]]
    assert found[22].path == os.fsencode(tmp_path / "near.jpg")
    assert "no such object" in str(found[23].error) and contents[24] == bytes([20]) * 100
    local = samples(FileListSource(tmp_path / name, root="memory://pictures"), 100)
    assert [(s.sample_id, s.content) for s in local] == [(s.sample_id, s.content) for s in found]
    heads = list(source.heads(source.units(100)[0]))
    assert [s.sample_id for s in heads] == [s.sample_id for s in found]


def test_objects_that_are_the_reason_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Status(Exception):
        def __init__(self, status: int) -> None:
            self.status = status

    def fail(filesystem: Any, path: str, size: int) -> bytes:
        raise UnavailableError("failed 5 times") from Status(int(path.rpartition("/")[2]))

    monkeypatch.setattr(fetch_module, "read_object", fail)
    with pytest.raises(ImageError, match="HTTP status 403"):
        fetch_module.fetch("memory://host/403")
    for status in (429, 503):
        with pytest.raises(UnavailableError, match=f"memory://host/{status}: failed 5 times"):
            fetch_module.fetch(f"memory://host/{status}")


def test_text_lines(tmp_path: Path) -> None:
    """A byte order mark, both line ends, blank lines, no comments, no end of the last line."""
    content = b"\xef\xbb\xbf a.jpg \r\n\r\n#b.jpg\n   \ncaf\xe9.jpg\nback\\slash.jpg"
    source = FileListSource(write(tmp_path, "l.txt", content))
    assert ids(source) == [" a.jpg ", "#b.jpg", r"caf\xe9.jpg", r"back\\slash.jpg"]
    assert samples(source)[2].path == os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    assert source.notes == {"blank lines": 2}


def test_csv_lines(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbffilename,label,x\r\n"say ""a"".jpg",caf\xe9,1\r\n'
    content += b'"two\nlines.jpg",,2\r\nNA,null,3\r\n'
    found = samples(FileListSource(write(tmp_path, "l.csv", content)))
    assert [s.sample_id for s in found] == ['say "a".jpg', "two\nlines.jpg", "NA"]
    assert [s.label for s in found] == [r"caf\xe9", None, "null"]


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = f"a.jpg\n./b//./c.jpg\n{tmp_path}/imgs/d.jpg\n/elsewhere/e.jpg\n../f.jpg\n"
    path = write(tmp_path, "l.txt", lines.encode())
    (tmp_path / "imgs").mkdir()
    source = FileListSource(path, root=tmp_path / "imgs/..")
    assert ids(source) == ["a.jpg", "b/c.jpg", "imgs/d.jpg", "/elsewhere/e.jpg", "../f.jpg"]
    inner = FileListSource(path, root=tmp_path / "imgs")
    assert ids(inner)[2] == "d.jpg"
    opened = [os.path.normpath(s.path or b"") for s in samples(inner)]
    expected = ["imgs/a.jpg", "imgs/b/c.jpg", "imgs/d.jpg", "/elsewhere/e.jpg", "f.jpg"]
    assert opened == [os.fsencode(tmp_path / name) for name in expected]
    monkeypatch.chdir(tmp_path)
    assert samples(FileListSource("l.txt"))[0].path == os.fsencode(tmp_path / "a.jpg")
    with pytest.raises(SourceError, match="no folder nowhere"):
        FileListSource(path, root="nowhere")


def test_repeated_entries_are_errors_with_ids_of_their_own(tmp_path: Path) -> None:
    lines = b"a.jpg\nb.jpg\na.jpg\na.jpg#2\n./a.jpg\nb.jpg\n"
    found = samples(FileListSource(write(tmp_path, "l.txt", lines)))
    assert [s.sample_id for s in found] == [
        "a.jpg", "b.jpg", "a.jpg#3", "a.jpg#2", "a.jpg#4", "b.jpg#2",
    ]  # fmt: skip
    assert [s.error is not None for s in found] == [False, False, True, False, True, True]
    assert "a.jpg" in str(found[2].error)
    assert all((s.path is None) == (s.error is not None) for s in found)


def test_entries_without_a_path_are_errors(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"path": "a.jpg"}, {"path": None}, {"path": 3}, {}, {"path": ""}, {"path": "n\0l"},
        {"path": "\ud800"}, {"path": os.fsdecode(b"caf\xe9.jpg")},
    ]  # fmt: skip
    content = "\n".join(map(json.dumps, rows)).encode()
    found = samples(FileListSource(write(tmp_path, "l.jsonl", content)))
    assert [s.sample_id for s in found] == [
        "a.jpg", *(f"l.jsonl#{number}" for number in range(2, 8)), r"caf\xe9.jpg",
    ]  # fmt: skip
    assert [str(s.error) for s in found[1:7]] == [
        f"entry {number} of the list names no file" for number in range(2, 8)
    ]
    assert found[0].error is None and found[7].error is None


def test_columns(tmp_path: Path) -> None:
    content = b"ID,Image,big,LABEL,kind\n7,s.jpg,L.jpg,x,1\n,t.jpg,M.jpg,y,2\n7,u.jpg,N.jpg,z,3\n"
    path = write(tmp_path, "l.csv", content)
    found = samples(FileListSource(path))
    assert [(s.sample_id, s.label) for s in found] == [("7", "x"), ("t.jpg", "y"), ("7#2", "z")]
    assert found[0].path == os.fsencode(tmp_path / "s.jpg")
    other = samples(FileListSource(path, column="big", label_column="kind", id_column="Image"))
    assert [(s.sample_id, s.label) for s in other] == [
        ("s.jpg", "1"),
        ("t.jpg", "2"),
        ("u.jpg", "3"),
    ]
    assert other[2].path == os.fsencode(tmp_path / "N.jpg")


def test_parquet_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "file_name": pa.array(["a.jpg", None, "c.jpg"]).dictionary_encode(),
            "label": pa.array([3, None, -1], pa.int64()),
            "id": pa.array([10, 11, 12], pa.uint8()),
        }
    )
    pq.write_table(table, tmp_path / "l.parquet")
    found = samples(FileListSource(tmp_path / "l.parquet"))
    assert [(s.sample_id, s.label) for s in found] == [("10", "3"), ("11", None), ("12", "-1")]
    assert found[1].error is not None and found[2].path == os.fsencode(tmp_path / "c.jpg")


@pytest.mark.parametrize(
    ("name", "content", "column", "reason"),
    [
        ("l.txt", b"", None, "lists no file"),
        ("l.txt", b"\n \r\n", None, "lists no file"),
        ("l.txt", b"a.jpg\n", "path", "has no columns, so no 'path'"),
        ("l.txt", "a.jpg\n".encode("utf-16"), None, "UTF-16"),
        ("l.txt", b"a.jpg\nnosuch://bucket/b.jpg\n", None, "cannot open nosuch://bucket/b.jpg"),
        ("l.txt", b"a\n" + b"x" * 70_000, None, "line 2 .* longer than 65,536 bytes"),
        ("l.csv", b"", None, "lists no file"),
        ("l.csv", b"path,label\n", None, "lists no file"),
        ("l.csv", b"x,y\n1,2\n", None, "no column path or .* which of 'x', 'y'"),
        ("l.csv", b"path,thumbs\n1,2\n", "thumb", "no column 'thumb': the nearest .* is 'thumbs'"),
        ("l.csv", b"path,path\n1,2\n", None, "has 2 columns 'path'"),
        ("l.csv", b"path,label\na.jpg,1\nb.jpg,1,2\n", None, "Expected 2 columns, got 3"),
        ("l.csv", b"path\n" + b"x" * 3_000_000, None, "cannot read the list"),
        ("l.jsonl", b'{"path": "a"}\n{"path": \n', None, "line 2 .* is no JSON"),
        ("l.jsonl", b'{"path": "a"}\n["b"]\n', None, "line 2 .* is no JSON object"),
        ("l.jsonl", b"[" * 100_000, None, "line 1 .* is no JSON"),
        ("l.parquet", b"PAR1 not really", None, "cannot read the list"),
        ("l.zip", b"", None, "is no list of files"),
        ("l.parquet.gz", b"", None, "is no list of files"),
    ],
)
def test_what_is_no_list(
    tmp_path: Path, name: str, content: bytes, column: str | None, reason: str
) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        FileListSource(write(tmp_path, name, content), column)
    assert name in str(caught.value) or "nosuch" in reason
    assert "\n" not in str(caught.value)


def test_missing_damaged_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no list of files"):
        FileListSource(tmp_path / "none.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(SourceError, match="no regular file"):
        FileListSource(tmp_path / "pipe.txt")
    packed = gzip.compress(b"".join(b"%d.jpg\n" % n for n in range(10_000)))
    for content in (packed[:-1000], b"a.jpg\n", packed[:500] + bytes(50) + packed[550:]):
        (tmp_path / "l.txt.gz").write_bytes(content)
        with pytest.raises(SourceError, match="cannot read the list"):
            FileListSource(tmp_path / "l.txt.gz")
    path = save_rows(tmp_path, "l.parquet")
    content = bytearray(path.read_bytes())  # pages, footer, its length, PAR1
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:pages] = bytes(pages - 4)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="cannot read the list"):
        FileListSource(path)


def test_images_in_parquet_are_no_paths(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"\xff\xd8"]}), tmp_path / "l.parquet")
    with pytest.raises(SourceError, match="'image' .* is binary, not text"):
        FileListSource(tmp_path / "l.parquet")


def test_no_object_is_kept_for_an_entry(tmp_path: Path) -> None:
    """The pickle, which is what a worker gets, is the paths and a few bytes each."""
    lines = [b"folder-%03d/%08d.jpg" % (n % 1000, n) for n in range(20_000)]
    source = FileListSource(write(tmp_path, "l.txt", b"\n".join(lines)))
    assert len(pickle.dumps(source)) < sum(map(len, lines)) + 10 * len(lines)
    assert sum(len(unit.payload) for unit in source.units(999)) == 20_000


@given(st.lists(st.binary(max_size=5)))
def test_packed_bytes_are_a_list(items: list[bytes]) -> None:
    packed = PackedBytes(items)
    assert list(packed) == items == [packed[index] for index in range(len(packed))]
    for index in (-1, len(items)):
        with pytest.raises(IndexError):
            packed[index]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#2#2", "b#2"]), max_size=12))
def test_numbers_make_ids_unique(listed: list[str]) -> None:
    repeats = Repeats(lambda: listed, len(listed))
    numbers = [repeats.number(index) for index in range(len(listed))]
    final = [f"{i}#{n}" if n else i for i, n in zip(listed, numbers, strict=True)]
    assert len(set(final)) == len(listed)
    seen = [i in listed[:index] for index, i in enumerate(listed)]
    assert [n is not None for n in numbers] == seen
    assert len(repeats) == sum(seen)
