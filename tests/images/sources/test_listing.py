"""A manifest that is kept tells what has changed, and hashes as it did before it was kept."""

from __future__ import annotations

import hashlib
import pickle

import pytest

from qscore_fast.images.sources import listing
from qscore_fast.images.sources.listing import ListedHash, describe_change, hash_of_listing
from qscore_fast.images.sources.source import manifest_hash

NAMES = [(f"{number:05d}.jpg", number % 7) for number in range(10_000)]


def kept(lines: list[tuple[str, int]]) -> ListedHash:
    found = manifest_hash(lines)
    assert isinstance(found, ListedHash)
    return found


def test_the_hash_is_that_of_the_lines() -> None:
    digest = hashlib.sha256(b"".join(b"%s\0%d\n" % (n.encode(), s) for n, s in NAMES))
    found = kept(NAMES)
    assert found == digest.hexdigest() == hash_of_listing(found.listing)
    assert type(pickle.loads(pickle.dumps(found))) is str
    assert len(found.listing) < 40_000


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (NAMES[1:], "1 gone; first gone: 00000.jpg"),
        ([("a\nb/ü.jpg", 1), *NAMES], r"1 new; first new: a\nb/ü.jpg"),
        (
            [*NAMES[:9_000], ("09000.jpg", 99), *NAMES[9_001:]],
            "1 changed; first changed: 09000.jpg",
        ),
        (
            [*NAMES[2:5_000], ("x.jpg", 1), ("y.jpg", 1), *NAMES[5_000:-1], (NAMES[-1][0], 99)],
            "2 new, 2 gone, 1 changed; first new: x.jpg; first gone: 00000.jpg; first changed: 09999.jpg",
        ),
        (NAMES[::-1], "the same entries in another order or number"),
        ([*NAMES, NAMES[0]], "the same entries in another order or number"),
        ([(f"{name}\0tag", size) for name, size in NAMES[:1]] + NAMES[1:], "1 changed; first"),
        ([], "10,000 gone; first gone: 00000.jpg"),
    ],
)
def test_what_has_changed(after: list[tuple[str, int]], expected: str) -> None:
    found = describe_change(kept(NAMES).listing, kept(after).listing)
    assert found.startswith(expected)
    assert "\n" not in found


def test_a_manifest_of_manifests() -> None:
    """As subsets and labelled folders make them: the images are told apart from the choice."""

    def chosen(lines: list[tuple[str, int]], limit: int) -> ListedHash:
        return kept([(manifest_hash(lines), 0), (f"a\0b\n{limit}", 0)])

    plain = [(str(kept(NAMES)), 0), ("a\0b\n5", 0)]
    before = chosen(NAMES, 5)
    assert before == kept(plain)
    assert describe_change(before.listing, chosen(NAMES, 6).listing) == (
        "1 changed; first changed: the choice of samples (--classes, --limit, --sample) or their labels"
    )
    assert describe_change(before.listing, chosen(NAMES[1:], 5).listing) == (
        "1 gone; first gone: 00000.jpg"
    )


def test_a_huge_one_is_kept_by_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [(f"{number:06d}.jpg", number) for number in range(200_000)]
    full = kept(lines)
    monkeypatch.setattr(listing, "MAX_BYTES", 1000)
    before = kept(lines)
    assert before == full
    assert len(before.listing) < 1000 < len(full.listing)
    after = kept([*lines[:70_000], ("x.jpg", 1), *lines[70_000:]])
    for one in (before, full):
        assert describe_change(one.listing, after.listing) == (
            "200,001 entries instead of 200,000; the first difference is at or after entry 65,537, where "
            "065536.jpg to 131071.jpg has become 065536.jpg to 131070.jpg"
        )
    longer = kept([*lines[: 2 * 65_536], ("y.jpg", 1)])
    shorter = kept(lines[: 2 * 65_536])
    assert describe_change(shorter.listing, longer.listing) == (
        "131,073 entries instead of 131,072; the same up to 131071.jpg"
    )


@pytest.mark.parametrize("content", [b"", b"no listing", b"\x28\xb5\x2f\xfd"])
def test_a_damaged_listing_is_none(content: bytes) -> None:
    assert hash_of_listing(content) is None


def test_a_listing_that_is_cut_off_is_none() -> None:
    whole = kept(NAMES).listing
    assert hash_of_listing(whole[: len(whole) // 2]) is None
    assert hash_of_listing(whole[:-3]) is None
