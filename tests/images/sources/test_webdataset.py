"""WebDataset shards, against the webdataset library, and shards that go wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import pickle
import tarfile
from pathlib import Path
from typing import BinaryIO

import braceexpand
import pytest
import webdataset

from qscore_fast.errors import SourceError
from qscore_fast.images import decode_bytes
from qscore_fast.images.sources.brace_pattern import expand_braces
from qscore_fast.images.sources.folder import EXTENSIONS
from qscore_fast.images.sources.source import Sample
from qscore_fast.images.sources.webdataset import IMAGE_FIELDS, WebDatasetSource
from tests.support.hostile_images import jpeg_bytes, photo
from tests.support.tars import entry, tar_bytes, write_tar


def read(source: WebDatasetSource) -> list[Sample]:
    return [sample for unit in source.units(100) for sample in source.read(unit)]


def brief(path: Path) -> list[tuple[str, str | None, bytes | str]]:
    return [
        (
            sample.sample_id,
            sample.label,
            str(sample.error) if sample.error else sample.content or b"",
        )
        for sample in read(WebDatasetSource(path))
    ]


def test_samples_are_those_of_the_webdataset_library(tmp_path: Path) -> None:
    pictures = [jpeg_bytes(photo(seed=seed)) for seed in range(6)]
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"train-{shard:03d}.tar")) as writer:
            for number in range(3):
                writer.write(
                    {
                        "__key__": f"part.{shard}/s{number}",
                        "jpg": pictures[shard * 3 + number],
                        "cls": number,
                        "seg.png": b"a mask, not the image",
                    }
                )
    write_tar(
        tmp_path / "train-002.tar",
        ("__meta__/info.json", b"{}"), ("x.cls", b" 7 \n"), ("x.JPG", b"x"), ("y.a.jpg", b"no"),
        ("y.jpg", b"y"), ("noext", b""), ("d/x.jpg", b"dx"), ("d/x.cls", b"cat"), ("x.jpg", b"x2"),
    )  # fmt: skip
    pattern = str(tmp_path / "train-{000..002}.tar")
    expected = [
        (sample["jpg"], sample["cls"].decode().strip() if "cls" in sample else None)
        for sample in webdataset.WebDataset(pattern, shardshuffle=False)
    ]
    source = WebDatasetSource(pattern)
    samples = read(source)
    assert [(sample.content, sample.label) for sample in samples] == expected
    assert source.has_labels
    assert [sample.sample_id for sample in samples[2:5]] == [
        "train-000.tar/part.0/s2.jpg", "train-001.tar/part.1/s0.jpg", "train-001.tar/part.1/s1.jpg",
    ]  # fmt: skip
    assert [sample.sample_id for sample in samples[6:]] == [
        f"train-002.tar/{name}" for name in ("x.JPG", "y.jpg", "d/x.jpg", "x.jpg")
    ]
    assert samples[0].content is not None and decode_bytes(samples[0].content).size == (40, 30)


@pytest.mark.parametrize(
    "pattern",
    ["a-{000..012}.tar", "{7..11}", "{3..1}x", "{a,b}/{0..9..4}.tar", "{08..10}{x,}", "plain"],
)
def test_braces_as_braceexpand(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand.braceexpand(pattern))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("{0..99999999999}", "more than"),
        ("{0..9999}{0..9999}", "100,000,000 names"),
        ("{0..3", "do not pair"),
        ("{a,{b,c}}", "do not pair"),
        ("{x}.tar", "neither a range"),
        ("s-{0..3}.tar", "3 of 4 shards are missing, the first is s-1.tar"),
        ("pipe:echo pwned", "missing"),
    ],
)
def test_patterns_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "s-0.tar", ("a.jpg", b"x"))
    with pytest.raises(SourceError, match=words):
        WebDatasetSource(pattern)


def test_a_folder_is_listed_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.tar", "val/a.tar", ".hidden.tar"):
        write_tar(tmp_path / name, ("k.jpg", name.encode()))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes([("k.jpg", b"gz")])))
    source = WebDatasetSource(tmp_path)
    assert [(sample.sample_id, sample.content) for sample in read(source)] == [
        ("a.tar.gz/k.jpg", b"gz"), ("b.tar/k.jpg", b"b.tar"), ("val/a.tar/k.jpg", b"val/a.tar"),
    ]  # fmt: skip
    assert not source.has_labels
    assert [unit.name for unit in source.units(5)] == ["a.tar.gz", "b.tar", "val/a.tar"]
    with pytest.raises(SourceError, match="no shard in"):
        (tmp_path / "empty").mkdir()
        WebDatasetSource(tmp_path / "empty")


def test_every_field_of_a_format_that_is_decoded(tmp_path: Path) -> None:
    assert {f".{field}".encode() for field in IMAGE_FIELDS} == set(EXTENSIONS)
    write_tar(tmp_path / "a.tar", ("0.gif", b"0"), ("0.jpg", b"jpg"), ("1.GIF", b"1"))
    assert brief(tmp_path / "a.tar") == [("a.tar/0.jpg", None, b"jpg"), ("a.tar/1.GIF", None, b"1")]
    size = (tmp_path / "a.tar").stat().st_size
    listed = f"fields jpg jpeg png webp bmp, label cls\0-1\na.tar\0{size}\n"
    assert WebDatasetSource(tmp_path).manifest_hash == hashlib.sha256(listed.encode()).hexdigest()


def test_the_manifest_is_of_names_and_sizes(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", ("k.jpg", b"1"))
    one = WebDatasetSource(tmp_path)
    assert WebDatasetSource(str(tmp_path)).manifest_hash == one.manifest_hash
    assert pickle.loads(pickle.dumps(one)).manifest_hash == one.manifest_hash
    assert WebDatasetSource(tmp_path, keys=["png"]).manifest_hash != one.manifest_hash
    write_tar(tmp_path / "b.tar", ("k.jpg", b"1"))
    assert WebDatasetSource(tmp_path).manifest_hash != one.manifest_hash


def test_labels_and_preferred_fields(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        ("0.json", b'{"label": 3}'), ("0.jpg", b"0"),
        ("1.png", b"png"), ("1.json", b'{"class": "owl", "label": true}'), ("1.jpg", b"jpg"),
        ("2.json", b'{"label": 3}'), ("2.cls", b"9"), ("2.png", b"2"),
        ("3.json", b"[" * 5000), ("3.cls", b"\xff"), ("3.jpg", b"3"),
        ("4.cls", b"x" * 2000), ("4.jpg", b"4"),
        ("5.json", b'{"label": "\\ud800"}'), ("5.jpg", b"5"),
    )  # fmt: skip
    assert brief(tmp_path / "a.tar") == [
        ("a.tar/0.jpg", "3", b"0"), ("a.tar/1.jpg", "owl", b"jpg"), ("a.tar/2.png", "9", b"2"),
        ("a.tar/3.jpg", None, b"3"), ("a.tar/4.jpg", None, b"4"), ("a.tar/5.jpg", None, b"5"),
    ]  # fmt: skip


def test_every_hostile_member_is_accounted_for(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        ("0.jpg", b"0"), ("0.jpg", b"again"), ("1.cls", b"5"), ("2.jpg", b"2"),
        ("../3.jpg", b"3"), ("/4.jpg", b"4"), entry("5.jpg", tarfile.SYMTYPE, "0.jpg"),
        ("0.jpg", b"later"), ("._0.jpg", b"AppleDouble"), ("6\n.jpg", b"6"),
    )  # fmt: skip
    got = brief(tmp_path / "a.tar")
    reasons = {key: text for key, _, text in got if isinstance(text, str)}
    assert [(key, data) for key, _, data in got if key not in reasons] == [
        ("a.tar/0.jpg", b"0"), ("a.tar/2.jpg", b"2"), ("a.tar/6\n.jpg", b"6"),
    ]  # fmt: skip
    words = {
        "a.tar/0.jpg#2": "a second image in the same field",
        "a.tar/1": "no image among its fields (cls)",
        "a.tar/../3.jpg": "out of the archive",
        "a.tar//4.jpg": "out of the archive",
        "a.tar/5.jpg": "symbolic link",
        "a.tar/0.jpg#3": "a second sample of the id",
    }
    assert reasons.keys() == words.keys()
    assert all(word in reasons[key] for key, word in words.items())
    assert len({key for key, _, _ in got}) == len(got)


@pytest.mark.parametrize("cut", [0, 100, 600, 1536, 1700, 2100, 2600, 3300])
def test_a_shard_cut_in_the_middle_ends_with_an_error(tmp_path: Path, cut: int) -> None:
    files = [("0.jpg", b"0" * 600), ("1.cls", b"1"), ("1.jpg", b"1" * 600)]
    (tmp_path / "a.tar").write_bytes(tar_bytes(files)[:cut])
    write_tar(tmp_path / "b.tar", ("0.jpg", b"b"))
    got = brief(tmp_path)
    # A member is a block of 512 bytes and its content in whole blocks.
    whole = [("a.tar/0.jpg", None, b"0" * 600)] if cut >= 1112 else []
    assert got[: len(whole)] == whole
    assert [key for key, _, _ in got[len(whole) :]] == ["a.tar", "b.tar/0.jpg"]
    assert "cut off" in str(got[len(whole)][2])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(10240), "holds no sample"),
        (b"text" * 999, "not a tar"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "Zstandard"),
    ],
)
def test_what_is_no_shard_is_one_error(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    [(sample_id, _, text)] = brief(tmp_path)
    assert sample_id == "a.tar"
    assert words in str(text)


class Remote:
    """Shards in memory, as an opener of URLs gives them."""

    def __init__(self) -> None:
        self.data = {f"s3://b/x/{n}.tar": tar_bytes([("k.jpg", bytes([n]))]) for n in range(3)}

    def __call__(self, name: str) -> BinaryIO:
        if name not in self.data:
            raise FileNotFoundError(name)
        return io.BytesIO(self.data[name])


def test_shards_from_elsewhere_and_named_twice() -> None:
    source = WebDatasetSource("s3://b/x/{0..2}.tar", open_binary=Remote())
    ids = [sample.sample_id for sample in read(pickle.loads(pickle.dumps(source)))]
    assert ids == ["0.tar/k.jpg", "1.tar/k.jpg", "2.tar/k.jpg"]
    names = list(itertools.repeat("s3://b/x/1.tar", 2))
    twice = WebDatasetSource(names, open_binary=Remote())
    assert [sample.sample_id for sample in read(twice)] == ["1.tar/k.jpg"]
    assert twice.notes == {"shards named twice, read once": 1}
    with pytest.raises(SourceError, match=r"1 of 4 shards are missing.*3\.tar"):
        WebDatasetSource("s3://b/x/{0..3}.tar", open_binary=Remote())
