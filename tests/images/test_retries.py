"""What fails is waited for once, wherever it is asked from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sample_data import PREPROCESS

from qscore_fast.errors import UnavailableError
from qscore_fast.images import Preprocess, Sample, open_source, retries
from qscore_fast.images.retries import tried_again
from qscore_fast.images.sources import file_systems
from qscore_fast.images.sources.file_systems import with_retries
from qscore_fast.scoring.image_loader import ImageLoader


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were made, none of which takes time."""
    made: list[float] = []
    monkeypatch.setattr(retries, "pause", made.append)
    return made


def failing(times: int, error: Callable[[], Exception], calls: list[int]) -> Callable[[], str]:
    def call() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error()
        return "there"

    return call


def test_what_passes_is_waited_for_and_what_does_not_is_not(waited: list[float]) -> None:
    calls: list[int] = []
    assert with_retries(failing(2, lambda: RuntimeError("slow down"), calls)) == "there"
    assert len(calls) == 3
    assert [0.7 <= w / wanted <= 1.3 for w, wanted in zip(waited, (0.2, 0.6), strict=True)] == [
        True, True
    ]  # fmt: skip
    calls.clear()
    with pytest.raises(PermissionError):
        with_retries(failing(1, lambda: PermissionError("closed"), calls))
    assert len(calls) == 1 and len(waited) == 2
    calls.clear()
    with pytest.raises(UnavailableError, match="failed 5 times: slow down"):
        with_retries(failing(99, lambda: RuntimeError("slow down"), calls))
    assert len(calls) == 5 and len(waited) == 2 + 4


def test_calls_within_calls_wait_once(waited: list[float]) -> None:
    calls: list[int] = []
    inner = failing(99, lambda: RuntimeError("slow down"), calls)

    def wrapped() -> str:
        try:
            return with_retries(lambda: with_retries(inner))
        except UnavailableError as error:
            raise UnavailableError(f"s3://bucket/1.png: {error.args[0]}") from error

    with pytest.raises(UnavailableError, match=r"1\.png: failed 5 times: slow down"):
        tried_again(wrapped, lambda error: isinstance(error, UnavailableError))
    assert len(calls) == 5 and len(waited) == 4


def test_an_image_whose_store_was_waited_for_is_not_waited_for_again(
    tmp_path: Any, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.png").write_bytes(b"x")
    calls: list[int] = []

    class FromStore:
        """A decoder that fetches by itself."""

        name, version = "from a store", "1"

        def decode(self, sample: Sample, mode: str) -> Any:
            return file_systems.with_retries(failing(99, lambda: RuntimeError("no"), calls))

    decoder: Any = FromStore()
    source = open_source(tmp_path)
    loader = ImageLoader(source, Preprocess.from_json(PREPROCESS), decoder)
    with pytest.raises(UnavailableError, match="failed 5 times"):
        loader.load(next(iter(source.read(source.units(1)[0]))))
    assert len(calls) == 5 and len(waited) == 4
