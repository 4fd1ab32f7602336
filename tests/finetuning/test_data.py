"""Batches of views: what they hold depends on the seed and their number alone."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tars import write_tar
from torch import Tensor

from qscore_fast.errors import ImageError, SettingsError, SourceError
from qscore_fast.finetuning.data import ShuffledImages, ShuffledShards, SingleImages, ViewLoader
from qscore_fast.finetuning.data.read_ahead import read_ahead
from qscore_fast.finetuning.view_recipes import views_of
from qscore_fast.finetuning.views import ViewTransform
from qscore_fast.images import FolderSource, Sample, Subset, Unit, open_source

TRANSFORM = ViewTransform(views_of("simsiam"), 16, (0.286,), (0.353,))


class Numbers:
    """Shards of numbered samples; every seventh is damaged."""

    kind: ClassVar[str] = "numbers"
    location, has_labels, num_samples, manifest_hash = "numbers", False, None, "n"
    notes: ClassVar[dict[str, int]] = {}

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths
        self.read_units: list[int] = []

    def units(self, size: int) -> Sequence[Unit]:
        return [Unit(index, str(index), None, index) for index in range(len(self.lengths))]

    def read(self, unit: Unit) -> Iterator[Sample]:
        self.read_units.append(unit.index)
        for number in range(self.lengths[unit.payload]):
            error = ImageError("damaged") if number % 7 == 6 else None
            content = None if error else b"x"
            yield Sample(f"{unit.payload}/{number}", content=content, error=error)


def ids(batches: Iterator, count: int) -> list[list[str]]:
    return [
        [item.sample.sample_id for item in batch.items]
        for batch in itertools.islice(batches, count)
    ]


def same(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> bool:
    pairs = zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def views(loader: ViewLoader) -> list[list[Tensor]]:
    return [batch.views for batch in loader]


def test_an_epoch_sees_every_image_once_and_the_next_in_another_order() -> None:
    order = ShuffledImages(50, 4, parts=3, seed=1)
    batches = [[i.index for i in b.items] for b in itertools.islice(order.batches(), 24)]
    assert order.steps_per_epoch == 4
    first, second = (list(itertools.chain(*batches[k : k + 12])) for k in (0, 12))
    assert len(set(first)) == len(first) == 48 and set(first) <= set(range(50))
    assert first != second and len(set(second)) == 48


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_batches_of_one(world: int) -> None:
    alone = ShuffledImages(100, 8, parts=2, seed=3)
    together = [ShuffledImages(100, 8 // world, 2, 3, rank, world) for rank in range(world)]
    assert all(one.steps_per_epoch == alone.steps_per_epoch for one in together)
    streams = [one.batches() for one in together]
    for batch in itertools.islice(alone.batches(), 20):
        parts = [item.index for stream in streams for item in next(stream).items]
        assert parts == [item.index for item in batch.items]


def test_shards_give_every_good_sample_once_an_epoch_and_name_the_bad() -> None:
    source = Numbers(23, 5, 40, 11, 2)
    order = ShuffledShards(source, 4, block=16, seed=2)
    good = sum(length - length // 7 for length in source.lengths)
    batches = list(itertools.islice(order.batches(), 2 * good // 4))
    seen = [item.sample.sample_id for batch in batches for item in batch.items]
    assert set(Counter(seen[:good]).values()) == {1}
    assert seen[:good] != seen[good : 2 * good]
    bad = {sample_id for batch in batches for sample_id, _ in batch.bad}
    assert bad == {f"{u}/{n}" for u, k in enumerate(source.lengths) for n in range(6, k, 7)}


def test_a_block_mixes_shards() -> None:
    first = next(ShuffledShards(Numbers(*[100] * 8), 64, block=64).batches())
    shards = Counter(item.sample.sample_id.split("/")[0] for item in first.items)
    assert len(shards) == 8


def test_shards_continue_at_any_batch_without_reading_what_was_done() -> None:
    def order(source: Numbers) -> ShuffledShards:
        return ShuffledShards(source, 3, block=10, seed=5)

    whole = order(Numbers(*[9] * 20)).batches()
    batches = list(itertools.islice(whole, 120))  # more than two epochs
    for stop in (1, 4, 30, 53, 60, 101):
        source = Numbers(*[9] * 20)
        resumed = order(source).batches(batches[stop - 1].position)
        assert ids(resumed, 8) == [
            [item.sample.sample_id for item in batch.items] for batch in batches[stop : stop + 8]
        ]
    late = Numbers(*[9] * 20)
    next(order(late).batches(batches[45].position))
    # Of 20 units those that were read to the end before the block began are not opened again.
    assert len(set(late.read_units)) < 12


def test_shards_are_shared_out() -> None:
    orders = [ShuffledShards(Numbers(*[6] * 7), 2, seed=1, rank=r, world=3) for r in range(3)]
    first = [order._lanes(0, None) for order in orders]
    units = [unit.index for lanes in first for lane in lanes for unit in lane._units]
    assert sorted(units) == list(range(7))
    with pytest.raises(SettingsError, match="2 shards for 3 processes"):
        ShuffledShards(Numbers(5, 5), 2, rank=0, world=3)


def test_an_epoch_without_a_good_sample_is_an_error() -> None:
    class Damaged(Numbers):
        def read(self, unit: Unit) -> Iterator[Sample]:
            yield Sample("a", error=ImageError("cut off"))

    with pytest.raises(SourceError, match="none of the samples of numbers can be read.*cut off"):
        next(ShuffledShards(Damaged(1), 2).batches())


def test_the_number_of_workers_and_stops_change_nothing(few_images: Path) -> None:
    def loader(workers: int) -> ViewLoader:
        return ViewLoader(FolderSource(few_images), TRANSFORM, "L", 8, seed=4, workers=workers)

    assert loader(0).order.steps_per_epoch == 12
    alone = list(loader(0).after(None, 6))
    state = torch.get_rng_state()
    assert same([b.views for b in alone], views(loader(2).after(None, 6)))
    assert same([b.views for b in alone[4:]], views(loader(2).after(alone[3].position, 2)))
    assert torch.equal(torch.get_rng_state(), state)
    other = ViewLoader(FolderSource(few_images), TRANSFORM, "L", 8, seed=5, workers=0)
    assert not same([alone[0].views], views(other.after(None, 1)))


def test_an_image_has_other_views_in_every_epoch(few_images: Path) -> None:
    source = Subset(FolderSource(few_images), limit=4)
    loader = ViewLoader(source, TRANSFORM, "L", 4, workers=0)
    first, second = (batch.views for batch in loader.after(None, 2))
    images = {
        bytes(view.numpy().tobytes()) for views in (first, second) for view in torch.cat(views)
    }
    assert len(images) == 16


@pytest.mark.parametrize("kind", ["tar", "parquet", "list"])
def test_other_sources_continue_too(few_images: Path, tmp_path: Path, kind: str) -> None:
    files = sorted(few_images.rglob("*.png"))[:60]
    if kind == "tar":
        for shard in range(3):
            chosen = files[shard::3]
            write_tar(
                tmp_path / f"{shard}.tar", *((f"{p.stem}.png", p.read_bytes()) for p in chosen)
            )
        source = open_source(tmp_path)
    elif kind == "parquet":
        table = pa.table({"image": pa.array([p.read_bytes() for p in files], pa.binary())})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
        source = open_source(tmp_path / "a.parquet")
    else:
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in files))
        source = open_source(tmp_path / "list.txt")
    assert (SingleImages.of(source) is not None) == (kind == "list")

    def loader() -> ViewLoader:
        return ViewLoader(source, TRANSFORM, "L", 6, workers=0, shuffle_images=16)

    whole = list(loader().after(None, 14))
    for stop in (1, 7, 11):
        resumed = views(loader().after(whole[stop - 1].position, 3))
        assert same(resumed, [batch.views for batch in whole[stop : stop + 3]])


@pytest.mark.parametrize("tars", [False, True])
def test_bad_images_are_replaced_and_named(few_images: Path, tmp_path: Path, tars: bool) -> None:
    files = sorted(few_images.rglob("*.png"))[:20]
    images = tmp_path / "images"
    images.mkdir()
    for number, path in enumerate(files):
        shutil.copy(path, images / f"{number:02d}.png")
    bad = {"03.png", "11.png", "12.png"}
    for name in bad:
        (images / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    source = FolderSource(images)
    if tars:
        content = ((path.name, path.read_bytes()) for path in sorted(images.iterdir()))
        source = open_source(write_tar(tmp_path / "a.tar", *content))
    for workers in (0, 1):
        loader = ViewLoader(source, TRANSFORM, "L", 10, workers=workers)
        batches = list(loader.after(None, 2))
        assert all(view.shape == (10, 1, 16, 16) for batch in batches for view in batch.views)
        found = {sample_id.rpartition("/")[2] for batch in batches for sample_id, _ in batch.bad}
        assert found == bad
        assert all("decode: " in reason for batch in batches for _, reason in batch.bad)


def test_a_source_of_bad_images_alone_ends(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    loader = ViewLoader(FolderSource(tmp_path), TRANSFORM, "L", 4, workers=0)
    with pytest.raises(
        SourceError, match="32 bad images and none in their place; the last: decode"
    ):
        next(iter(loader.after(None, 1)))


def test_crops_are_finished_elsewhere_as_they_are_in_a_worker(few_images: Path) -> None:
    def batch(cropped: bool):
        source = FolderSource(few_images)
        loader = ViewLoader(source, TRANSFORM, "L", 8, workers=0, cropped=cropped)
        return next(iter(loader.after(None, 1)))

    crops = batch(True)
    assert crops.views[0].dtype == torch.uint8
    for ours, theirs in zip(crops.finished(TRANSFORM).views, batch(False).views, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "size, parts, world, words",
    [(10, 1, 3, "do not divide"), (4, 2, 2, "2 images or more"), (97, 1, 1, "96 images, too few")],
)
def test_wrong_batches_are_refused(
    few_images: Path, size: int, parts: int, world: int, words: str
) -> None:
    with pytest.raises((SettingsError, SourceError), match=words):
        ViewLoader(FolderSource(few_images), TRANSFORM, "L", size, parts=parts, world=world)


def test_reading_ahead_passes_errors_on_and_ends_its_thread() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise KeyError("lost")

    found = read_ahead(items(), 1)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="lost"):
        next(found)
    endless = read_ahead(itertools.count(), 2)
    assert next(endless) == 0
    endless.close()
