"""ImageNet's tars in miniature, whole and damaged."""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from qscore_fast.errors import SourceError
from qscore_fast.images import FolderSource, decode_bytes
from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource
from qscore_fast.images.sources.source import Sample
from tests.support.hostile_images import jpeg_bytes, photo
from tests.support.tars import entry, tar_bytes, write_tar

WNIDS = ("n01440764", "n01443537", "n02119789")


def read(source: ImageNetTarsSource, size: int = 2) -> list[Sample]:
    return [sample for unit in source.units(size) for sample in source.read(unit)]


def inner(wnid: str, count: int = 3) -> tuple[str, bytes]:
    files = [(f"{wnid}_{n}.JPEG", jpeg_bytes(photo(seed=n))) for n in range(count)]
    return f"{wnid}.tar", tar_bytes(files)


def errors(samples: list[Sample]) -> dict[str, str]:
    return {sample.sample_id: str(sample.error) for sample in samples if sample.error}


def test_train_is_as_the_unpacked_folder(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "ILSVRC2012_img_train.tar", *map(inner, WNIDS))
    folder = tmp_path / "train"
    with tarfile.open(path) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as tar:
                tar.extractall(folder / member.name.removesuffix(".tar"), filter="data")
    unpacked = FolderSource(folder)
    expected = [
        (unpacked.sample_id(n), unpacked.label(n), Path(os.fsdecode(unpacked.file(n))).read_bytes())
        for n in range(len(unpacked))
    ]
    source = ImageNetTarsSource(path)
    before = sorted(tmp_path.rglob("*"))
    samples = read(pickle.loads(pickle.dumps(source)))
    assert [(s.sample_id, s.label, s.content) for s in samples] == expected
    assert sorted(tmp_path.rglob("*")) == before
    assert source.has_labels and source.num_samples is None
    assert [unit.name for unit in source.units(2)] == list(WNIDS)
    assert samples[0].content is not None and decode_bytes(samples[0].content).size == (40, 30)


def test_val_in_runs_with_labels(tmp_path: Path) -> None:
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 8)]
    path = write_tar(tmp_path / "val.tar", ("README.txt", b""), *((n, n.encode()) for n in names))
    plain = ImageNetTarsSource(path)
    assert (plain.num_samples, plain.has_labels) == (7, False)
    assert plain.notes == {"members of other kinds ignored": 1}
    source = ImageNetTarsSource(path, labels={name: f"c{name[-6]}" for name in names[:6]})
    units = source.units(3)
    assert [unit.num_samples for unit in units] == [3, 3, 1]
    samples = [sample for unit in reversed(units) for sample in source.read(unit)]
    assert sorted((s.sample_id, s.label or "", s.content) for s in samples) == [
        (name, f"c{name[-6]}" if name in names[:6] else "", name.encode()) for name in names
    ]
    assert source.manifest_hash != plain.manifest_hash
    assert ImageNetTarsSource(path).manifest_hash == plain.manifest_hash


def test_an_inner_tar_cut_off_costs_only_its_rest(tmp_path: Path) -> None:
    name, data = inner(WNIDS[1])
    path = write_tar(
        tmp_path / "t.tar", inner(WNIDS[0]), (name, data[: len(data) // 8]), inner(WNIDS[2]),
        (f"{WNIDS[2]}.tar", b"text" * 200), ("n1.tar", bytes(1024)),
    )  # fmt: skip
    samples = read(ImageNetTarsSource(path))
    found = errors(samples)
    assert found.keys() == {"n01443537.tar", "n02119789#2.tar", "n1.tar"}
    assert "cut off" in found["n01443537.tar"]
    assert "not a tar" in found["n02119789#2.tar"]
    assert "no image" in found["n1.tar"]
    assert sum(s.content is not None and s.label == WNIDS[0] for s in samples) == 3
    assert sum(s.content is not None and s.label == WNIDS[2] for s in samples) == 3
    assert {s.label for s in samples} == {*WNIDS, "n1"}


def test_an_outer_tar_cut_off_says_so_in_a_unit_of_its_own(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", *map(inner, WNIDS))
    whole = read(ImageNetTarsSource(path))
    path.write_bytes(path.read_bytes()[: 512 + len(inner(WNIDS[0])[1]) + 512 + 1100])
    source = ImageNetTarsSource(path)
    samples = read(source)
    assert samples[:3] == whole[:3]
    assert {key: "cut off" in text for key, text in errors(samples).items()} == {
        "n01443537.tar": True,
        "t.tar": True,
    }
    assert source.units(9)[-1].name == "damaged end"


def test_a_val_tar_that_shrinks_after_the_listing_names_every_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "v.tar", *((f"{n}.JPEG", b"x" * 512) for n in range(6)))
    source = ImageNetTarsSource(path)
    path.write_bytes(path.read_bytes()[: 1024 * 3 + 700])
    samples = read(source, 4)
    assert [s.sample_id for s in samples] == [f"{n}.JPEG" for n in range(6)]
    assert errors(samples).keys() == {"3.JPEG", "4.JPEG", "5.JPEG"}


def test_hostile_members(tmp_path: Path) -> None:
    files = [
        ("../a.JPEG", b"x"), ("/b.JPEG", b"x"), entry("c.JPEG", tarfile.LNKTYPE, "d.JPEG"),
        ("d.JPEG", b"d"), ("d.JPEG", b"again"), ("e.txt", b""),
    ]  # fmt: skip
    bad = {"../a.JPEG", "/b.JPEG", "c.JPEG", "d.JPEG#2"}
    flat = read(ImageNetTarsSource(write_tar(tmp_path / "v.tar", *files)), 3)
    assert errors(flat).keys() == bad
    assert [s.content for s in flat if s.error is None] == [b"d"]
    nested = read(ImageNetTarsSource(write_tar(tmp_path / "t.tar", ("n1.tar", tar_bytes(files)))))
    assert errors(nested).keys() == {f"n1/{name}" for name in bad}
    assert [s.content for s in nested if s.error is None] == [b"d"]


def test_what_cannot_be_listed_says_why(tmp_path: Path) -> None:
    train = write_tar(tmp_path / "t.tar", inner(WNIDS[0]))
    with pytest.raises(SourceError, match="give no labels"):
        ImageNetTarsSource(train, labels={"a": "b"})
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(train.read_bytes()))
    (tmp_path / "text.tar").write_text("text" * 200)
    write_tar(tmp_path / "none.tar", ("readme.txt", b""))
    for name, words in {
        "t.tar.gz": "gunzip", "text.tar": "not a tar", "none.tar": "no image in", "x.tar": "no file",
        ".": "not a regular file",
    }.items():  # fmt: skip
        with pytest.raises(SourceError, match=words):
            ImageNetTarsSource(tmp_path / name)
