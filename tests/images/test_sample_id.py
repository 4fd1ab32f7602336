"""Sample ids are valid UTF-8 and lead back to the path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscore_fast.images import path_of_sample_id, sample_id_of_path


@pytest.mark.parametrize(
    ("path", "sample_id"),
    [
        (b"cat/1.jpg", "cat/1.jpg"),
        ("猫/é.png".encode(), "猫/é.png"),
        (b"caf\xe9.png", r"caf\xe9.png"),
        (rb"caf\xe9.png", r"caf\\xe9.png"),
        (b"a\nb.png", "a\nb.png"),
        (b"\xed\xa0\x80.png", r"\xed\xa0\x80.png"),
        (b"end\\", "end\\\\"),
    ],
)
def test_known_ids(path: bytes, sample_id: str) -> None:
    assert sample_id_of_path(path) == sample_id
    assert path_of_sample_id(sample_id) == path


@given(st.binary())
def test_every_path_comes_back(path: bytes) -> None:
    sample_id = sample_id_of_path(path)
    assert path_of_sample_id(sample_id.encode("utf-8").decode("utf-8")) == path
