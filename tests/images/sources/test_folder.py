"""Listing a folder of images."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image

from qscore_fast.errors import QScoreError, SourceError
from qscore_fast.images import FolderSource
from qscore_fast.images.decode import FORMATS
from qscore_fast.images.sources.folder import EXTENSIONS


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def ids(source: FolderSource) -> list[str]:
    return [source.sample_id(index) for index in range(len(source))]


def test_any_depth_any_case_sorted_by_bytes(tmp_path: Path) -> None:
    make(tmp_path, "b.jpg", "a/z.PNG", "a/b/c/d.JpEg", "a.webp", "é.bmp", "Z.png", "x.txt", "jpg")
    source = FolderSource(tmp_path)
    assert ids(source) == ["Z.png", "a.webp", "a/b/c/d.JpEg", "a/z.PNG", "b.jpg", "é.bmp"]
    assert len(source.ignored) == 2
    assert source.sizes == tuple(len(name.encode()) for name in ids(source))
    assert source.file(2) == os.fsencode(tmp_path / "a/b/c/d.JpEg")


def test_every_name_of_a_format_that_is_decoded(tmp_path: Path) -> None:
    Image.init()
    known = {ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS}
    assert {extension.decode() for extension in EXTENSIONS} == known
    make(tmp_path, *(f"{place}{ending}" for place, ending in enumerate(sorted(known))))
    assert len(FolderSource(tmp_path)) == len(known)


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.gif",
        "b.HEIC",
        "c.heic",
        "d.txt",
        "d.tar.gz",
        "Makefile",
        "x.\x07",
        "y.mp4",
        ".z",
    )
    source = FolderSource(tmp_path)
    assert source.notes == {
        "files of other kinds ignored": 8,
        "of them .heic": 2,
        "of them without an ending": 2,
        "of them .gz": 1,
        "of them .mp4": 1,
        "of them .txt": 1,
        "of them less frequent endings": 1,
        "folders could not be read": 0,
    }
    (tmp_path / "a.gif").unlink()
    with pytest.raises(
        SourceError, match=r"8 other files: 2 \.heic, 2 without an ending, 1 \.gz, "
    ):
        FolderSource(tmp_path)


def test_labels_only_if_every_image_has_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "cat/deep/2.png", "dog/1.png")
    source = FolderSource(tmp_path)
    assert [source.label(index) for index in range(3)] == ["cat", "cat", "dog"]
    make(tmp_path, "stray.png")
    source = FolderSource(tmp_path)
    assert [source.label(index) for index in range(4)] == [None] * 4


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    outside = make(tmp_path / "outside", "o.png", "sub/p.png")
    root = make(tmp_path / "root", "a/1.png", "b/2.png")
    os.symlink(outside, root / "linked")
    os.symlink(root, root / "a" / "up")
    os.symlink(root / "b", root / "a" / "again")
    os.symlink(outside / "o.png", root / "file.png")
    assert ids(FolderSource(root)) == [
        "a/1.png", "b/2.png", "file.png", "linked/o.png", "linked/sub/p.png",
    ]  # fmt: skip


def test_units_cover_everything_once(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, *(f"{n}.png" for n in range(10))))
    units = source.units(4)
    assert [unit.num_samples for unit in units] == [4, 4, 2]
    assert [[s.sample_id for s in source.read(unit)] for unit in units] == [
        ["0.png", "1.png", "2.png", "3.png"],
        ["4.png", "5.png", "6.png", "7.png"],
        ["8.png", "9.png"],
    ]
    assert next(source.read(units[1])).path == os.fsencode(tmp_path / "4.png")


def test_manifest_hash_is_of_ids_and_sizes(tmp_path: Path) -> None:
    source = FolderSource(make(tmp_path, "a.png", "b\\.png"))
    by_hand = hashlib.sha256(b"a.png\x005\nb\\\\.png\x006\n").hexdigest()
    assert source.manifest_hash == by_hand
    (tmp_path / "a.png").write_bytes(b"longer now")
    assert FolderSource(tmp_path).manifest_hash != by_hand


@pytest.mark.parametrize("prepare", ["missing", "file", "empty"])
def test_unusable_folders_say_what_is_wrong(tmp_path: Path, prepare: str) -> None:
    path = tmp_path / "images"
    if prepare == "file":
        path.write_text("")
    elif prepare == "empty":
        make(path, "readme.txt")
    words = {"missing": "no folder", "file": "is a file", "empty": r"no image .* 1 other file"}
    with pytest.raises(SourceError, match=words[prepare]) as raised:
        FolderSource(path)
    assert str(path) in str(raised.value)
    assert isinstance(raised.value, QScoreError)
    assert isinstance(raised.value, ValueError)


def test_folders_that_cannot_be_read_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/1.png", "closed/2.png", "b/3.png")
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = FolderSource(tmp_path)
    assert ids(source) == ["a/1.png", "b/3.png"]
    assert source.num_unreadable == 1
