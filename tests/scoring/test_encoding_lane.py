"""Batches on their way: in which order the steps come, that nothing of a result depends on it, and streams
where there is a GPU.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_images import jpeg_bytes, photo
from run_tables import tables_of
from sample_data import PREPROCESS, save_images, small_module
from small_run import bytes_of

from qscore_fast import reference
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import EncoderError
from qscore_fast.images import Preprocess
from qscore_fast.scoring import encode_unit, encoding_lane, score
from qscore_fast.scoring.encoding_lane import EncodedBatch, InOrder, PlainLane, WhatToKeep

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Steps:
    """A lane that only notes what is asked of it."""

    def __init__(self, staged: int, launched: int) -> None:
        self.staged, self.launched = staged, launched
        self.seen: list[str] = []

    def decode(self, batch: Any) -> Any:
        raise AssertionError

    def stage(self, batch: Any) -> Any:
        self.seen.append(f"stage {batch}")
        return batch

    def launch(self, staged: Any) -> Any:
        self.seen.append(f"launch {staged}")
        return staged

    def collect(self, launched: Any) -> Any:
        self.seen.append(f"collect {launched}")
        return launched


def test_without_streams_one_batch_is_done_before_the_next_begins() -> None:
    lane = Steps(0, 0)
    batches = InOrder(lane)
    for number in range(2):
        assert list(batches.push(number)) == [number]  # type: ignore[arg-type]
    assert list(batches.finish()) == []
    assert lane.seen == [f"{step} {n}" for n in range(2) for step in ("stage", "launch", "collect")]


def test_with_streams_results_are_fetched_when_the_next_batch_runs_and_its_next_is_staged() -> None:
    lane = Steps(1, 1)
    batches = InOrder(lane)
    given = [list(batches.push(number)) for number in range(4)]  # type: ignore[arg-type]
    assert given == [[], [], [0], [1]]
    assert list(batches.finish()) == [2, 3]
    assert lane.seen == [
        "stage 0",
        "stage 1", "launch 0",
        "stage 2", "launch 1", "collect 0",
        "stage 3", "launch 2", "collect 1",
        "launch 3", "collect 2", "collect 3",
    ]  # fmt: skip


class Late(PlainLane):
    """On the CPU, with the batches in flight that a GPU has."""

    staged = launched = 1


@pytest.mark.parametrize("unit_size", [1, 9, 64])
def test_results_do_not_depend_on_what_is_in_flight(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, unit_size: int
) -> None:
    """Bad images in most units, units of bad images alone, batches that end with their unit."""
    source = save_images(tmp_path / "source", 60)
    for number, path in enumerate(sorted(source.rglob("*.png"))):
        if number % 4 == 1 or 20 <= number < 30:
            path.write_bytes(b"broken")

    def run(out: Path) -> list[tuple[int, int]]:
        states: list[tuple[int, int]] = []
        score(
            source, checkpoint, out, unit_size=unit_size, batch_size=4, workers=1, device="cpu",
            embeddings="npy", progress=lambda state: states.append((state.done, state.failed)),
        )  # fmt: skip
        return states

    plain = run(tmp_path / "plain")
    monkeypatch.setattr(encode_unit, "lane_of", lambda encoder, keep, _: Late(encoder, keep))
    late = run(tmp_path / "late")
    assert bytes_of(tmp_path / "late") == bytes_of(tmp_path / "plain")
    assert plain[-1] == late[-1] == (60, 22)
    assert late == sorted(late)


def test_running_out_of_memory_names_the_remedy(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(encoding_lane, "sparse_activations", none_left)
    with pytest.raises(EncoderError, match="16 images a batch on cpu: take a smaller batch_size"):
        score(images / "bag", checkpoint, tmp_path / "out", batch_size=16, device="cpu")


def test_jpegs_that_fill_the_memory_are_decoded_before_their_batch_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(12):
        content = jpeg_bytes(photo(60, 40, "L", seed=number))
        path = tmp_path / "images" / f"{number:02d}.jpg"
        path.write_bytes(content if number != 5 else content[: len(content) // 2])
    monkeypatch.setattr("qscore_fast.scoring.run_scoring.check_decoder", lambda *_: None)
    encoder = load_encoder(small_module(), preprocess=Preprocess.from_json(PREPROCESS))
    calls: list[int] = []
    real = encoding_lane.decode_jpegs

    def counted(jpegs: Any, *more: Any) -> Any:
        calls.append(len(jpegs))
        return real(jpegs, *more)

    monkeypatch.setattr(encoding_lane, "decode_jpegs", counted)
    for out, limit in (("whole", 2**28), ("early", len(content) * 3)):
        calls.clear()
        monkeypatch.setattr(encode_unit, "JPEG_BYTES", limit)
        score(tmp_path / "images", encoder, tmp_path / out, batch_size=12, decoder="nvjpeg", eps=2)
        assert sum(calls) == 12
        assert max(calls) == (12 if out == "whole" else 4)
    assert tables_of(tmp_path / "early") == tables_of(tmp_path / "whole")


def batches_of(count: int, size: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shape = (count, size, 1, 28, 28)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return [[(row, pixels[n, row]) for row in range(size)] for n in range(count)]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_a_lane_gives_the_entries_of_the_representations(device: str) -> None:
    encoder = load_encoder(small_module(), preprocess=Preprocess.from_json(PREPROCESS))
    encoder = encoder.to(device)
    batches = batches_of(7, 5)
    with ExitStack() as stack:
        keep = WhatToKeep(2.0, False, True)
        lane = InOrder(encode_unit.lane_of(encoder, keep, stack))
        found: list[EncodedBatch] = [r for batch in batches for r in lane.push(batch)]
        found += lane.finish()
    assert len(found) == 7
    for batch, result in zip(batches, found, strict=True):
        pixels = torch.stack([image for _, image in batch]).to(device)
        h = encoder(encoder.preprocess.normalise(pixels)).cpu()
        assert result.rows == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(result.embeddings, h.to(torch.float16).numpy())
        expected = reference.sparse_activations(h.double(), 2.0)
        assert result.lengths.tolist() == expected.offsets.diff().tolist()
        assert result.feature.tolist() == expected.feature.tolist()
        np.testing.assert_allclose(result.value, expected.value.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            result.stats, torch.stack([*reference.row_stats(h.double())], 1).numpy(), rtol=1e-4
        )
        stages = {"transfer", "encode", "activations"} | ({"pin"} if device == "cuda" else set())
        assert result.seconds.keys() == stages
        assert all(taken >= 0 for taken in result.seconds.values())


@ON_GPU
def test_the_next_batch_is_launched_before_results_are_waited_for() -> None:
    """While the encoder is held back, launching returns, and the batch before is collected."""
    encoder = load_encoder(small_module(), preprocess=Preprocess.from_json(PREPROCESS)).to("cuda")
    first, second = batches_of(2, 5)
    with ExitStack() as stack:
        lane = encode_unit.lane_of(encoder, WhatToKeep(2.0, False, False), stack)
        lane.collect(lane.launch(lane.stage(first)))  # what is compiled is compiled
        before = lane.launch(lane.stage(first))
        before.events[3].synchronize()
        torch.cuda._sleep(2_000_000_000)
        after = lane.launch(lane.stage(second))
        result = lane.collect(before)
        assert not after.events[3].query()  # the encoder has not begun with it
        assert len(result.rows) == 5
        assert len(lane.collect(after).rows) == 5
