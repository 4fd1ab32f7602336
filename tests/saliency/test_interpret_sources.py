"""The same images as folders, ImageNet's own tars, Parquet and WebDataset give the same measures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_patches import WNIDS, planted_encoder
from tars import tar_bytes, write_tar

from qscore_fast.images import FolderSource, PillowDecoder, Preprocess, Sample, Unit
from qscore_fast.images.sources.imagenet_tars import ImageNetTarsSource
from qscore_fast.images.sources.open import open_source
from qscore_fast.saliency import Interpretation, SalientImageNet, interpret
from qscore_fast.saliency.masked_images import MaskedSamples, Passed, masked_images

SEER = planted_encoder(red=180, blue=180, name="seer")


def measured(
    source: Any, tree: Any, out: Path, **settings: Any
) -> tuple[Interpretation, pd.DataFrame]:
    """The run, and what it says of each image, by its published name."""
    found = interpret(
        source, SEER.encoder, SalientImageNet(tree.salient), SEER.features, out,
        num_resamples=0, examples=0, **settings,
    )  # fmt: skip
    frame = pq.read_table(out / "interpretation.parquet").to_pandas()
    return found, frame.set_index("name").sort_index().drop(columns=["sample_id", "label"])


@pytest.fixture(scope="module")
def expected(planted: Any, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """From the unpacked folder."""
    return measured(planted.images, planted, tmp_path_factory.mktemp("folder"))[1]


def original_tar(tree: Any, path: Path) -> Path:
    """ILSVRC2012_img_train.tar: a tar of one tar a class, the images by their names alone."""
    inner = [
        (f"{wnid}.tar", tar_bytes([(p.name, p.read_bytes()) for p in sorted((tree.images / wnid).iterdir())]))
        for wnid in WNIDS
    ]  # fmt: skip
    return write_tar(path, *inner)


def test_the_original_tar_of_tars(planted: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    path = original_tar(planted, tmp_path / "ILSVRC2012_img_train.tar")
    source = open_source(path)
    assert isinstance(source, ImageNetTarsSource)
    found, frame = measured(source, planted, tmp_path / "out")
    pd.testing.assert_frame_equal(frame, expected)
    assert len(list((tmp_path / "out" / "parts").iterdir())) == len(WNIDS)  # a class each
    assert found.counts["images_measured"] == len(planted.planted) and found.counts["others"] == 1
    ids = pq.read_table(tmp_path / "out" / "interpretation.parquet")["sample_id"].to_pylist()
    assert sorted(ids) == sorted(f"{i.wnid}/{i.name}.JPEG" for i in planted.planted)


def test_a_tar_that_is_cut_off_is_measured_as_far_as_it_goes(
    planted: Any, expected: pd.DataFrame, tmp_path: Path
) -> None:
    path = original_tar(planted, tmp_path / "train.tar")
    content = path.read_bytes()
    path.write_bytes(
        content[: content.rindex(b"\x89PNG") + 20]
    )  # in the last image of the last class
    found, frame = measured(path, planted, tmp_path / "out")
    pd.testing.assert_frame_equal(frame, expected.loc[frame.index])
    assert found.counts["images_measured"] == 7 and found.counts["unreadable"] >= 1
    assert found.counts["images_missing"] + found.counts["images_failed"] == 1
    assert "unreadable without a name" in "\n".join(found.lines())


def test_parquet_as_on_the_hub(planted: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    content = [
        {
            "image": {"bytes": i.encoded(), "path": f"{i.name}_{i.wnid}.JPEG"},
            "label": WNIDS.index(i.wnid),
        }
        for i in planted.planted
    ]
    nameless = {"image": {"bytes": content[0]["image"]["bytes"], "path": None}, "label": 0}
    (tmp_path / "data").mkdir()
    for shard, rows in enumerate((content[:3], [*content[3:], nameless])):
        name = f"train-{shard:05d}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / name)
    found, frame = measured(tmp_path / "data", planted, tmp_path / "out")
    pd.testing.assert_frame_equal(frame, expected)
    assert found.counts["others"] == 1


def test_webdataset_shards_in_random_order(
    planted: Any, expected: pd.DataFrame, tmp_path: Path
) -> None:
    images = list(planted.planted)
    random.Random(0).shuffle(images)
    for shard in range(2):
        files = [
            file
            for i in images[shard::2]
            for file in (
                (f"{i.name}.jpg", i.encoded()),
                (f"{i.name}.cls", b"%d" % WNIDS.index(i.wnid)),
            )
        ]
        write_tar(tmp_path / "shards" / f"train-{shard:06d}.tar", *files)
    _, frame = measured(
        tmp_path / "shards" / "train-{000000..000001}.tar", planted, tmp_path / "out"
    )
    pd.testing.assert_frame_equal(frame, expected)


def test_only_so_many_images_are_held_as_was_said(planted: Any) -> None:
    read = 0

    class Watched:
        """100 copies of the folder, of which the first is taken, and empty units."""

        def read(self, unit: Unit) -> Iterator[Sample]:
            nonlocal read
            for sample in folder.read(folder.units(100)[0]) if unit.index % 2 else ():
                read += 1
                yield sample

    folder = FolderSource(planted.images)
    samples = MaskedSamples(SalientImageNet(planted.salient))
    units = [Unit(index, "", None) for index in range(20)]
    taken, ends = 0, []
    for item in masked_images(
        Watched(), units, samples, [Preprocess()], decoder=PillowDecoder(), workers=2, ahead=3  # type: ignore[arg-type]
    ):  # fmt: skip
        if isinstance(item, Passed):
            ends.append(item)
        else:
            taken += 1
            if taken < 8:
                assert read - 1 <= taken + 3  # the one without a mask is read, too
    assert taken == 8 and len(ends) == 20
    assert [end.repeated for end in ends] == [0, 0, *[0, 8] * 9]


def test_the_tree_of_kaggle(planted: Any, expected: pd.DataFrame, tmp_path: Path) -> None:
    tree = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    tree.mkdir(parents=True)
    (tree / "train").symlink_to(planted.images)
    _, frame = measured(open_source(tmp_path, split="train"), planted, tmp_path / "out")
    pd.testing.assert_frame_equal(frame, expected)
