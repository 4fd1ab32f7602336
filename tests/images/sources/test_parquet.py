"""Images in Parquet files, whole and broken."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qscore_fast.errors import SourceError
from qscore_fast.images.sources import image_columns
from qscore_fast.images.sources.parquet import ParquetSource
from qscore_fast.images.sources.source import Sample

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def read(source: Any, size: int = 1) -> list[Sample]:
    source = pickle.loads(pickle.dumps(source))
    samples: list[Sample] = []
    for unit in source.units(size):
        part = list(source.read(unit))
        assert len(part) == unit.num_samples
        samples += part
    assert len(samples) == source.num_samples
    assert len({s.sample_id for s in samples}) == len(samples)
    assert all(sum(x is not None for x in (s.path, s.content, s.error)) == 1 for s in samples)
    return samples


def write(path: Path, rows_per_group: int = 1000, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group, compression="none")
    return path


def test_files_of_a_folder_by_row_groups(tmp_path: Path) -> None:
    write(tmp_path / "data/b.parquet", 2, image=[b"0", b"1", b"2", b"3", b"4"])
    write(tmp_path / "data/a.parquet", image=[b"5"])
    write(tmp_path / "data/.hidden.parquet", image=[b"6"])
    (tmp_path / "readme.md").write_text("")
    source = ParquetSource(tmp_path)
    assert [(s.sample_id, s.content) for s in read(source)] == [
        ("data/a.parquet#0/0", b"5"),
        ("data/b.parquet#0/0", b"0"), ("data/b.parquet#0/1", b"1"),
        ("data/b.parquet#1/0", b"2"), ("data/b.parquet#1/1", b"3"),
        ("data/b.parquet#2/0", b"4"),
    ]  # fmt: skip
    assert source.notes["files of other kinds ignored"] == 2
    assert not source.has_labels
    assert [u.num_samples for u in source.units(1)] == [1, 2, 2, 1]
    assert [u.num_samples for u in source.units(4)] == [1, 4, 1]
    assert [s.content for s in read(source, 4)] == [s.content for s in read(source, 1)]
    pattern = ParquetSource(f"{tmp_path}/d*/b*.parquet")
    assert read(pattern)[0].sample_id == "data/b.parquet#0/0"
    assert read(ParquetSource(tmp_path / "data/a.parquet"))[0].sample_id == "a.parquet#0/0"


def test_hugging_face_structs_and_class_names(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({
        "extra": pa.array([b"not this"] * 6),
        "image": pa.array([
            {"bytes": b"0", "path": "x.jpg"}, {"bytes": None, "path": "sub/y.jpg"}, None,
            {"bytes": None, "path": "../z.jpg"}, {"bytes": None, "path": "/z.jpg"},
            {"bytes": None, "path": None},
        ], IMAGE),
        "label": pa.array([1, 0, -1, None, 7, 1]),
    }).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    samples = read(ParquetSource(tmp_path))
    assert [s.label for s in samples] == ["dog", "cat", None, None, "7", "dog"]
    assert samples[0].content == b"0"
    assert samples[1].path == os.fsencode(tmp_path / "sub/y.jpg")
    reasons = [str(s.error) for s in samples[2:]]
    assert ["outside" in r for r in reasons] == [False, True, True, False]
    assert ["holds no image" in r for r in reasons] == [True] * 4


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=["binary", "large", "view"]
)
def test_columns_by_name_and_type(tmp_path: Path, kind: pa.DataType) -> None:
    picture = pa.array([b"A", b"B"], kind)
    names = pa.array(["x", "y"]).dictionary_encode()
    file = write(tmp_path / "a.parquet", one=picture, two=picture, kind=names)
    with pytest.raises(SourceError, match="several columns of bytes"):
        ParquetSource(file)
    source = ParquetSource(file, column="two", label_column="kind")
    assert [(s.content, s.label) for s in read(source)] == [(b"A", "x"), (b"B", "y")]
    assert source.manifest_hash != ParquetSource(file, column="one").manifest_hash


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"column": "nowhere"}, "nowhere"),
        ({"column": "text"}, "not the bytes"),
        ({"label_column": "image"}, "not numbers or text"),
        ({"id_column": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, options: dict[str, str], words: str) -> None:
    image = pa.array([{"bytes": b"0", "path": None}], IMAGE)
    file = write(tmp_path / "a.parquet", image=image, text=["t"])
    with pytest.raises(SourceError, match=words):
        ParquetSource(file, **options)


def test_ids_of_a_column_are_made_unique(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 2, image=[b"0", b"1", b"2"], key=["p", "q", "p"])
    write(tmp_path / "b.parquet", image=[b"3", b"4", b"5"], key=["p", None, "p#2"])
    samples = read(ParquetSource(tmp_path, id_column="key"))
    ids = [s.sample_id for s in samples]
    assert ids == ["p", "q", "p#3", "p#4", "b.parquet#0/1", "p#2"]
    assert [s.error is None for s in samples] == [True, True, False, False, True, True]
    assert "second sample of the id p" in str(samples[2].error)


def test_numbers_as_ids_and_odd_text(tmp_path: Path) -> None:
    odd = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a\xff", b"b\\"]).buffers())
    write(tmp_path / "a.parquet", image=[b"0", b"1"], key=[7, 8], label=odd)
    samples = read(ParquetSource(tmp_path, id_column="key"))
    assert [(s.sample_id, s.label) for s in samples] == [("7", r"a\xff"), ("8", "b\\")]


def test_a_corrupt_row_group_accounts_for_each_row(tmp_path: Path) -> None:
    images = [os.urandom(5000) for _ in range(30)]
    file = write(tmp_path / "a.parquet", 10, image=images, label=list(range(30)))
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(0)
    content = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start : start + 40] = b"\xff" * 40
    file.write_bytes(content)
    for size in (1, 100):
        samples = read(ParquetSource(file), size)
        assert [s.content for s in samples[:10] + samples[20:]] == images[:10] + images[20:]
        assert [s.sample_id for s in samples[10:20]] == [f"a.parquet#1/{n}" for n in range(10)]
        assert all("damaged" in str(s.error) and s.error.stage == "read" for s in samples[10:20])
    with_ids = ParquetSource(file, id_column="label")
    assert [s.sample_id for s in read(with_ids)][19:21] == ["a.parquet#1/9", "20"]


def test_a_flipped_bit_is_found_where_pages_have_checksums(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"image": [b"A" * 999, b"B" * 999]})
    pq.write_table(
        table, file, compression="none", write_page_checksum=True, use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
    content = bytearray(file.read_bytes())
    content[content.index(b"A" * 999) + 500] ^= 1
    file.write_bytes(content)
    assert all("damaged" in str(s.error) for s in read(ParquetSource(file)))


def test_one_truncated_file_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", image=[name.encode()] * 3)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    source = ParquetSource(tmp_path)
    samples = read(source)
    assert [s.sample_id for s in samples if s.error] == ["b.parquet"]
    assert len(samples) == 7 and source.notes["damaged files"] == 1
    for name in "ac":
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match="no file of .* can be read"):
        ParquetSource(tmp_path)


def test_files_that_change_after_listing(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", image=[b"1", b"2", b"3"])
    source = ParquetSource(tmp_path)
    (tmp_path / "a.parquet").unlink()
    write(tmp_path / "b.parquet", image=[b"1"])
    write(tmp_path / "c.parquet", other=[b"1", b"2", b"3"])
    samples = read(source)
    assert [s.error is None for s in samples] == [False] * 3 + [True] + [False] * 5
    assert "changed since it was listed" in str(samples[4].error)
    assert ParquetSource(tmp_path, column="image").manifest_hash != source.manifest_hash


def test_a_row_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_columns, "MAX_IMAGE_BYTES", 100)
    write(tmp_path / "a.parquet", image=[b"x" * 100, b"x" * 101])
    samples = read(ParquetSource(tmp_path))
    assert samples[0].content == b"x" * 100
    assert "101 bytes is above the limit" in str(samples[1].error)


def test_unusable_places_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file or folder"):
        ParquetSource(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no Parquet file"):
        ParquetSource(tmp_path)
    write(tmp_path / "a.parquet", text=["a"])
    with pytest.raises(SourceError, match="no column with the bytes"):
        ParquetSource(tmp_path)
    write(tmp_path / "a.parquet", image=pa.array([], pa.binary()))
    with pytest.raises(SourceError, match="holds no row"):
        ParquetSource(tmp_path)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", image=[b"0"])
    os.rename(file, os.path.join(os.fsencode(tmp_path), b"caf\xe9.parquet"))
    assert read(ParquetSource(tmp_path))[0].sample_id == r"caf\xe9.parquet#0/0"


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    """400 MB in one row group of 8 MB pages; what reading adds to the peak of a process of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    schema = pa.schema([("image", pa.binary())])
    block = os.urandom(1_000_000)
    with pq.ParquetWriter(
        tmp_path / "a.parquet", schema, use_dictionary=False, write_batch_size=8, compression="none"
    ) as writer:
        writer.write_table(pa.table({"image": [block] * 400}), row_group_size=400)
    # Not getrusage, whose peak a process takes over from the one that started it.
    code = f"""
from qscore_fast.images.sources.parquet import ParquetSource
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
source = ParquetSource({str(tmp_path)!r})
units = source.units(10)
assert len(units) == 1
before = peak()
print(sum(len(s.content) for s in source.read(units[0])), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    size, growth = map(int, done.stdout.split())
    assert size == 400_000_000
    assert growth < 200
