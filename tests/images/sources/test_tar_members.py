"""Members of tars, against tarfile where the tar is whole, and bounds where it is not."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qscore_fast.errors import ImageError
from qscore_fast.images.sources import local_file
from qscore_fast.images.sources.tar_members import MAX_MEMBER_BYTES, content, members, open_tar
from tests.support.tars import entry, raw_header, tar_bytes, write_tar

END = bytes(1024)


def problems(data: bytes) -> dict[bytes, str | None]:
    return {member.name: member.problem for member in members(io.BytesIO(data))}


_part = st.text(st.sampled_from("ab.é \n\\"), min_size=1, max_size=150).filter(
    lambda text: text not in (".", "..") and not text.startswith(".")
)
_names = st.lists(_part, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(_names, st.binary(max_size=1500)), min_size=1, max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_as_tarfile_reads_it(files: list[tuple[str, bytes]], format: int) -> None:
    data = tar_bytes(files, format)
    stream = io.BytesIO(data)
    got = [(m.name, m.offset, content(stream, m)) for m in members(stream)]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [
            (m.name.encode(), m.offset_data, tar.extractfile(m).read()) for m in tar.getmembers()
        ]
    assert got == expected
    assert len(got) == len(files)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_an_image_error(data: st.DataObject) -> None:
    whole = bytearray(tar_bytes([("a" * 120, b"x" * 700), ("b.jpg", b"y")], tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    stream = io.BytesIO(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        for member in members(stream):
            if member.problem is None:
                content(stream, member)
    except ImageError as error:
        assert error.stage == "read"


def test_reading_begins_at_any_header_and_ends_where_told() -> None:
    inner = tar_bytes([("x" * 200 + ".jpg", b"one"), ("y.jpg", b"two")])
    outer = tar_bytes([("first", b"."), ("in.tar", inner), ("last", b".")])
    stream = io.BytesIO(outer)
    member = list(members(stream))[1]
    assert next(members(stream, member.header)) == member
    found = list(members(stream, member.offset, member.offset + member.size))
    assert [content(stream, m) for m in found] == [b"one", b"two"]
    assert next(members(stream, found[0].header)).name == b"x" * 200 + b".jpg"
    with pytest.raises(ImageError, match="no end marker"):
        list(members(stream, member.offset, found[1].offset + 512))


def test_what_must_not_be_used_says_why() -> None:
    data = tar_bytes(
        [
            ("./good.jpg", b"x"),
            ("/etc/passwd", b"x"),
            ("a/../../b", b"x"),
            entry("sym", tarfile.SYMTYPE, "/etc/passwd"),
            entry("hard", tarfile.LNKTYPE, "good.jpg"),
            entry("dev", tarfile.CHRTYPE),
            entry("pipe", tarfile.FIFOTYPE),
            entry("folder", tarfile.DIRTYPE),
            ("n" * 5000 + ".jpg", b"x"),
        ]
    )
    got = problems(data)
    words = {
        b"/etc/passwd": "out of the archive",
        b"a/../../b": "out of the archive",
        b"sym": "symbolic link",
        b"hard": "hard link",
        b"dev": "device",
        b"pipe": "named pipe",
        b"n" * 200 + b"....jpg": "name of 5,004 bytes",
    }
    assert got.pop(b"good.jpg") is None
    assert got.keys() == words.keys()
    assert all(word in (got[name] or "") for name, word in words.items())


def test_large_and_sparse_members_are_passed_over(tmp_path: Path) -> None:
    size = MAX_MEMBER_BYTES + 1
    path = tmp_path / "large.tar"
    with open(path, "wb") as file:
        file.write(raw_header("large.jpg", size))
        file.seek(512 + -(-size // 512) * 512)
        file.write(tar_bytes([("after.jpg", b"x")]))
    with open_tar(str(path)) as stream:
        assert {m.name: bool(m.problem) for m in members(stream)} == {
            b"large.jpg": True,
            b"after.jpg": False,
        }
    header = tarfile.TarInfo("sparse.jpg")
    header.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    pax = tar_bytes([header], tarfile.PAX_FORMAT)
    assert "sparse" in (problems(pax)[b"sparse.jpg"] or "")
    gnu = raw_header("old.jpg", 0, tarfile.GNUTYPE_SPARSE) + END
    assert "sparse" in (problems(gnu)[b"old.jpg"] or "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut off"),
        (b"no tar at all" * 100, "not a tar"),
        (tar_bytes([("a", b"x")])[:1024], "no end marker"),
        (tar_bytes([("a", b"x")])[:1300], "no end marker"),
        (tar_bytes([("a", b"x")])[:1024] + b"garbage!" * 64 + END, "at byte 1,024"),
        (tar_bytes([("a", b"x")]) * 2, "after the end marker"),
        (raw_header("a", -1024) + END, "size of -1024"),
        (raw_header("a", 2**70) + END, "size of"),
        (raw_header("a", 2**31, tarfile.GNUTYPE_LONGNAME) + END, "header of 2,147,483,648 bytes"),
        (raw_header("a", 2**31, tarfile.XHDTYPE) + END, "header of 2,147,483,648 bytes"),
        (raw_header("a", 9, tarfile.XHDTYPE) + b"0 path=x\n".ljust(512, b"\0") + END, "PAX"),
        (raw_header("a", 12, tarfile.XHDTYPE) + b"12 size=-99\n".ljust(512, b"\0")
         + raw_header("a", 0) + END, "no valid size"),
    ],
)  # fmt: skip
def test_damage_ends_the_reading(data: bytes, reason: str) -> None:
    tracemalloc.start()
    with pytest.raises(ImageError, match=reason):
        list(members(io.BytesIO(data)))
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()


def test_long_chains_of_headers_need_no_stack() -> None:
    chain = (raw_header("a", 2, tarfile.GNUTYPE_LONGNAME) + b"b\0".ljust(512, b"\0")) * 5000
    assert problems(chain + raw_header("a", 0) + END) == {b"b": None}


def test_compression(tmp_path: Path) -> None:
    plain = tar_bytes([("a.jpg", b"x"), ("b.jpg", b"y" * 5000)])
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(plain))
    with open_tar(str(path)) as stream:
        assert [content(stream, m) for m in members(stream)] == [b"x", b"y" * 5000]
    path.write_bytes(gzip.compress(plain)[:-30])
    with pytest.raises(ImageError, match="cannot be read"), open_tar(str(path)) as stream:
        list(members(stream))
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(ImageError, match="Zstandard"), open_tar(str(path)):
        pass
    with pytest.raises(ImageError, match="No such file"), open_tar(str(tmp_path / "none.tar")):
        pass


def test_content_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", ("a.jpg", b"x" * 2000))
    path.write_bytes(path.read_bytes()[:1500])
    with open_tar(str(path)) as stream:
        member = next(members(stream))
        with pytest.raises(ImageError, match="cut off at byte 1,500, within a file"):
            content(stream, member)


def test_headers_alone_are_read_from_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = [0]

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            count = super().readinto(buffer) or 0
            read[0] += count
            return count

    monkeypatch.setattr(local_file, "FileIO", Counting)
    path = tmp_path / "a.tar"
    write_tar(path, *((f"{n}.jpg", bytes([n]) * 500_000) for n in range(20)))
    with open_tar(str(path)) as stream:
        assert [member.name for member in members(stream)] == [b"%d.jpg" % n for n in range(20)]
    assert 20 * 512 <= read[0] < path.stat().st_size / 20
