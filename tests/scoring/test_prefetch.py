"""Images that wait for the encoder: how many, and how many bytes of them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hostile_images import jpeg_bytes, photo
from PIL import Image

from qscore_fast.errors import ImageError
from qscore_fast.images import Preprocess, Sample, Unit, choose_decoder
from qscore_fast.scoring import prefetch
from qscore_fast.scoring.prefetch import decoded_ahead

PREPROCESS = Preprocess(mode="RGB", resize=8, crop=8)


class Samples:
    """A source that counts the bytes that it has given out."""

    location, kind, has_labels, num_samples, notes = "samples", "test", False, None, {}

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.read_bytes = 0
        self.read_samples = 0

    def read(self, unit: Unit) -> Iterator[Sample]:
        for number, content in enumerate(self.contents):
            self.read_samples += 1
            self.read_bytes += len(content)
            yield Sample(str(number), content=content)


def ahead(source: Any, count: int, **settings: Any) -> Any:
    units = [Unit(0, "all")]
    given = {"decoder": choose_decoder("pillow"), "workers": 2, "ahead": count, **settings}
    return decoded_ahead(source, units, PREPROCESS, **given)


def padded(size: int) -> bytes:
    """A small picture in a large file."""
    content = jpeg_bytes(photo(20, 10))
    return content + bytes(size - len(content))


@pytest.mark.parametrize("large", [False, True])
def test_encoded_images_that_wait_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Also those that are above the bound by themselves: then one at a time."""
    gate = threading.Event()
    size = 300_000 if large else 30_000
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 200_000)
    real = prefetch.ImageLoader.load
    monkeypatch.setattr(
        prefetch.ImageLoader, "load", lambda self, sample: (gate.wait(), real(self, sample))[1]
    )
    source = Samples([padded(size)] * 40)
    taken: list[Any] = []
    reader = threading.Thread(target=lambda: taken.extend(ahead(source, 1000)))
    reader.start()
    # It reads until it has to wait for the first image, which is held back.
    expected = 1 if large else 200_000 // size + 1
    while source.read_samples < expected:
        gate.wait(0.001)
    gate.wait(0.2)
    assert source.read_samples == expected
    gate.set()
    reader.join()
    assert [decoded and decoded.sample_id for decoded in taken] == [*map(str, range(40)), None]


def test_decoded_images_that_wait_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = 3 * 8 * 8
    monkeypatch.setattr(prefetch, "AHEAD_BYTES", 10 * pixels)
    content = jpeg_bytes(photo(20, 10))
    held = prefetch._Bytes()
    monkeypatch.setattr(prefetch, "_Bytes", lambda: held)
    source = Samples([content] * 100)
    images = ahead(source, 1000)
    most = 0
    for _ in range(100):
        assert next(images).image.nbytes == pixels
        most = max(most, held.total)
    assert next(images) is None and next(images, "end") == "end"
    assert held.total == 0
    # One file may come on top, and two are being decoded.
    assert 0 < most <= 10 * pixels + 3 * len(content)


def test_an_image_that_failed_keeps_nothing_of_its_file() -> None:
    source = Samples([padded(50_000)[:200]] * 3)
    for decoded in ahead(source, 10):
        if decoded is not None:
            assert isinstance(decoded.image, ImageError)
            assert decoded.image.__traceback__ is None
            assert decoded.image.__cause__ is None and decoded.image.__context__ is None


def test_the_number_of_images_is_bounded_as_well() -> None:
    source = Samples([jpeg_bytes(photo(20, 10, seed=n)) for n in range(50)])
    images = ahead(source, 7)
    for number in range(50):
        decoded = next(images)
        assert source.read_samples <= number + 7
        with Image.open(io.BytesIO(source.contents[number])) as image:
            expected = PREPROCESS.pixels(image.convert("RGB"))
        np.testing.assert_array_equal(decoded.image, expected)
    assert next(images) is None


def test_a_reader_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    images = ahead(Samples([jpeg_bytes(photo(20, 10))] * 50), 5, workers=4)
    next(images)
    images.close()
    assert threading.active_count() == before
