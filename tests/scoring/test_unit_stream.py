"""Units of several callers through one lane: no gap between them, and everybody gets their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from sample_data import PREPROCESS, small_module

import qscore_fast as qf
from qscore_fast.errors import ImageError, UnavailableError
from qscore_fast.images import Preprocess
from qscore_fast.scoring import encode_unit
from qscore_fast.scoring.encode_unit import UnitEncoder
from qscore_fast.scoring.encoding_lane import PlainLane
from qscore_fast.scoring.prefetch import Decoded
from qscore_fast.scoring.unit_stream import Encoded, Images, UnitStream

BATCH = 4


class Late(PlainLane):
    """On the CPU, with the batches in flight that a GPU has; notes the unit of each."""

    staged = launched = 1
    seen: list[str]

    def launch(self, staged: Any) -> Any:
        unit = int(staged[0][1][0, 0, 0])
        self.seen.append(f"launch {unit}")
        return unit, super().launch(staged)

    def collect(self, launched: Any) -> Any:
        self.seen.append(f"collect {launched[0]}")
        return super().collect(launched[1])


@pytest.fixture
def encoder() -> UnitEncoder:
    encoder = qf.load_encoder(small_module(), preprocess=Preprocess.from_json(PREPROCESS))
    return UnitEncoder(None, encoder.to("cpu"), BATCH, 1.0, False, True)  # type: ignore[arg-type]


def unit(index: int, size: int = 2 * BATCH, bad: Sequence[int] = ()) -> list[Decoded | None]:
    """The images of a unit, each with the unit's index in its first pixel."""
    generator = torch.Generator().manual_seed(index)
    pixels = torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8, generator=generator)
    pixels[:, 0, 0, 0] = index
    images = [ImageError("cut short") if n in bad else pixels[n] for n in range(size)]
    return [*(Decoded(f"{index}/{n}", None, image, 0.0) for n, image in enumerate(images)), None]


def given(images: Sequence[Decoded | None], go: Event | None = None, first: int = 1) -> Images:
    """The images; those after the first ones only when it is time."""
    yield from images[:first]
    assert go is None or go.wait(60)
    yield from images[first:]


def all_at_once(stream: UnitStream, units: dict[int, Images]) -> list[Future[Encoded]]:
    """Callers in this order, each after the one before has its turn."""
    pool = ThreadPoolExecutor(len(units))
    calls = []
    for index, images in units.items():
        calls.append(pool.submit(stream.encode, index, images))
        while all(turn.index != index for turn in [*stream._begun.values(), *stream._waiting]):
            time.sleep(0.001)
    pool.shutdown(wait=False)
    return calls


def test_a_unit_that_waits_follows_without_a_gap(
    encoder: UnitEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Late.seen = []
    monkeypatch.setattr(encode_unit, "lane_of", lambda encoder, keep, _: Late(encoder, keep))
    stream, go = UnitStream(encoder), Event()
    calls = all_at_once(stream, {0: given(unit(0), go), 1: given(unit(1)), 2: given(unit(2))})
    go.set()
    for call in calls:
        call.result()
    # A batch of the next unit runs before the last results of the one before are waited for.
    assert Late.seen == [
        "launch 0",
        "launch 0", "collect 0",
        "launch 1", "collect 0",
        "launch 1", "collect 1",
        "launch 2", "collect 1",
        "launch 2", "collect 2", "collect 2",
    ]  # fmt: skip
    Late.seen = []
    # Nobody else is there: the last results do not wait for a next unit.
    stream.encode(3, given(unit(3)))
    assert Late.seen == ["launch 3", "launch 3", "collect 3", "collect 3"]


@pytest.mark.parametrize("lane", [PlainLane, Late])
def test_every_caller_gets_the_rows_of_their_unit(
    encoder: UnitEncoder, monkeypatch: pytest.MonkeyPatch, lane: type[PlainLane]
) -> None:
    units = {5: unit(5), 2: unit(2, bad=[1, 5]), 9: unit(9, bad=range(8)), 4: unit(4, size=0)}
    alone = {
        index: next(encoder.encode(iter(images), lambda *_: None))[0]
        for index, images in units.items()
    }
    Late.seen = []
    monkeypatch.setattr(encode_unit, "lane_of", lambda encoder, keep, _: lane(encoder, keep))
    stream, go = UnitStream(encoder), Event()
    calls = all_at_once(stream, {i: given(unit, go) for i, unit in units.items()})
    go.set()
    for index, call in zip(units, calls, strict=True):
        rows, expected = call.result()[0], alone[index]
        assert rows.sample_ids == [image.sample_id for image in units[index] if image]
        assert (rows.status, rows.errors) == (expected.status, expected.errors)
        for name in ("stats", "lengths", "feature", "value", "embeddings"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name), name)
    news = stream.news()
    assert {index: done for index, (done, _) in news.items()} == {5: 8, 2: 8, 9: 8}
    assert [failure["sample_id"] for failure in news[2][1]] == ["2/1", "2/5"]
    assert news[9][1] == alone[9].errors
    assert stream.news() == {}


def test_news_come_while_a_unit_is_on_its_way(encoder: UnitEncoder) -> None:
    stream, go = UnitStream(encoder), Event()
    images = unit(0, size=3 * BATCH, bad=[0])
    (call,) = all_at_once(stream, {0: given(images, go, first=BATCH + 1)})
    while not (news := stream.news()):
        time.sleep(0.001)
    done, failures = news[0]
    assert (done, [failure["sample_id"] for failure in failures]) == (BATCH + 1, ["0/0"])
    assert not call.done()
    go.set()
    call.result()
    assert stream.news() == {0: (2 * BATCH - 1, [])}


def test_an_error_reaches_all_who_wait_and_the_next_one_is_served(encoder: UnitEncoder) -> None:
    closed: list[bool] = []

    def broken() -> Images:
        yield from given(unit(0)[:6], go)
        raise UnavailableError("the disk is gone")

    def watched() -> Images:
        try:
            yield from unit(1)
        finally:
            closed.append(True)

    stream, go = UnitStream(encoder), Event()
    calls = all_at_once(stream, {0: broken(), 1: watched()})
    go.set()
    for call in calls:
        with pytest.raises(UnavailableError, match="the disk is gone"):
            call.result()
    assert closed == [True]
    assert stream.encode(2, given(unit(2)))[0].sample_ids == [f"2/{n}" for n in range(8)]
