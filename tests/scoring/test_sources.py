"""Equal images have equal scores wherever they come from, and runs over shards resume as others do."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qscore_fast.errors import StoreError
from qscore_fast.images import FolderSource, Source, Subset, open_source
from qscore_fast.scoring import ScoreRun, score
from qscore_fast.scoring.run_folder import LISTING


@pytest.fixture(scope="module")
def folder(images: Path) -> FolderSource:
    return FolderSource(images)


@pytest.fixture(scope="module")
def reference(
    folder: FolderSource, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> ScoreRun:
    return score(folder, checkpoint, tmp_path_factory.mktemp("reference"), eps=2.5, device="cpu")


def as_shards(folder: FolderSource, target: Path) -> str:
    """Three WebDataset shards of unequal length, images and classes in the folder's order."""
    ends = [0, 50, 51, len(folder)]
    for shard in range(3):
        with tarfile.open(target / f"s-{shard}.tar", "w") as archive:
            for index in range(ends[shard], ends[shard + 1]):
                archive.add(folder.file(index).decode(), f"{index:05d}.png")
                label = target / "label"
                label.write_text(folder.label(index) or "")
                archive.add(label, f"{index:05d}.cls")
    return f"{target}/s-{{0..2}}.tar"


def as_list(folder: FolderSource, target: Path) -> str:
    with (target / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filepath", "label"])
        writer.writerows([folder.file(i).decode(), folder.label(i)] for i in range(len(folder)))
    return str(target / "list.csv")


def as_parquet(folder: FolderSource, target: Path) -> str:
    content = [Path(folder.file(i).decode()).read_bytes() for i in range(len(folder))]
    labels = [folder.label(i) for i in range(len(folder))]
    table = pa.table({"image": pa.array(content, pa.binary()), "label": labels})
    pq.write_table(table, target / "images.parquet", row_group_size=70)
    return str(target / "images.parquet")


def columns(run: ScoreRun) -> dict[str, np.ndarray]:
    """The statistics and scores, in the order of the source."""
    names = ("q_score", "mean", "std", "l1", "l2")
    return {name: run.scores()[name].to_numpy() for name in names}


@pytest.mark.parametrize("make", [as_shards, as_list, as_parquet])
def test_scores_do_not_depend_on_the_kind_of_source(
    make: object, folder: FolderSource, reference: ScoreRun, checkpoint: Path, tmp_path: Path
) -> None:
    source = open_source(make(folder, tmp_path))  # type: ignore[operator]
    run = score(source, checkpoint, tmp_path / "run", eps=2.5, device="cpu", unit_size=100)
    # Batches end with units, and convolutions round differently in batches of different sizes.
    for name, expected in columns(reference).items():
        np.testing.assert_allclose(columns(run)[name], expected, rtol=1e-4)
    assert run.scores()["label"].to_pylist() == reference.scores()["label"].to_pylist()
    assert run.summary["num_images"] == len(folder)
    assert len(set(run.scores()["sample_id"].to_pylist())) == len(folder)


def test_a_run_over_shards_resumes_and_notices_a_change(
    folder: FolderSource, checkpoint: Path, tmp_path: Path
) -> None:
    pattern = as_shards(folder, tmp_path)
    first = score(pattern, checkpoint, tmp_path / "run", eps=2.5, device="cpu")
    scores = first.scores()
    for part in (0, 2):
        (tmp_path / "run" / "parts" / f"part-{part:06d}.parquet").unlink()
    again = score(pattern, checkpoint, tmp_path / "run", eps=2.5, device="cpu")
    assert again.session is not None
    assert (again.session.parts_found, again.session.parts_done) == (1, 2)
    assert again.session.images_done == len(folder) - 1
    assert again.scores() == scores

    with tarfile.open(tmp_path / "s-1.tar", "a") as archive:
        for index in range(60):  # a tar grows in blocks of 10 KiB
            archive.add(folder.file(index).decode(), f"extra-{index}.png")
    with pytest.raises(StoreError, match=r"source.manifest_hash"):
        score(pattern, checkpoint, tmp_path / "run", eps=2.5, device="cpu")


@pytest.mark.parametrize(("rows", "group", "unit_size"), [(20, 20, 8), (20, 8, 6), (20, 12, 12)])
def test_row_groups_that_are_larger_than_a_unit(
    folder: FolderSource, checkpoint: Path, tmp_path: Path, rows: int, group: int, unit_size: int
) -> None:
    """A group is never cut, so a unit may be larger than asked for, the only and the last one too."""
    content = [Path(folder.file(i).decode()).read_bytes() for i in range(rows)]
    table = pa.table({"image": pa.array(content, pa.binary())})
    pq.write_table(table, tmp_path / "images.parquet", row_group_size=group)
    for parts_found in (0, -(-rows // group)):
        run = score(
            str(tmp_path / "images.parquet"), checkpoint, tmp_path / "run",
            eps=2.5, device="cpu", unit_size=unit_size,
        )  # fmt: skip
        assert run.session is not None
        assert run.session.parts_found == parts_found
        assert (len(run.scores()), run.summary["num_images"]) == (rows, rows)
    l2 = {row["sample_id"]: row["l2"] for row in run.scores().to_pylist()}
    for number in (0, rows - 1):
        alone = pa.table({"image": pa.array([content[number]], pa.binary())})
        pq.write_table(alone, tmp_path / "one.parquet")
        one = score(str(tmp_path / "one.parquet"), checkpoint, tmp_path / f"{number}", eps=2.5)
        name = f"images.parquet#{number // group}/{number % group}"
        assert l2[name] == pytest.approx(one.scores()["l2"][0].as_py(), rel=1e-4)


def test_a_run_over_a_list_notices_other_files_and_goes_on_without_sizes(
    folder: FolderSource, checkpoint: Path, tmp_path: Path
) -> None:
    for index in range(40):
        (tmp_path / f"{index:02d}.png").write_bytes(Path(folder.file(index).decode()).read_bytes())
    (tmp_path / "l.txt").write_text("".join(f"{index:02d}.png\n" for index in range(40)))
    out = tmp_path / "run"

    def again(**settings: bool) -> ScoreRun:
        source = open_source(tmp_path / "l.txt", **settings)  # type: ignore[arg-type]
        return score(source, checkpoint, out, eps=2.5, device="cpu", unit_size=20)

    again()
    (out / "parts" / "part-000001.parquet").unlink()
    before = (tmp_path / "39.png").read_bytes()
    (tmp_path / "39.png").write_bytes(before + bytes(1))
    with pytest.raises(StoreError, match=r"1 changed; first changed: 39\.png"):
        again()
    (tmp_path / "39.png").write_bytes(before)
    assert len(again().scores()) == 40

    # As a run that began without sizes, and before listings were kept.
    score(open_source(tmp_path / "l.txt", sizes=False), checkpoint, out, eps=2.5, device="cpu",
          unit_size=20, overwrite=True)  # fmt: skip
    (out / "parts" / "part-000001.parquet").unlink()
    (out / LISTING).unlink()
    with pytest.raises(StoreError, match="goes on without them .--no-list-sizes"):
        again()
    session = again(sizes=False).session
    assert session is not None and session.images_done == 20


def test_a_shard_that_is_cut_off_costs_its_rest_alone(
    folder: FolderSource, reference: ScoreRun, checkpoint: Path, tmp_path: Path
) -> None:
    pattern = as_shards(folder, tmp_path)
    shard = tmp_path / "s-0.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    run = score(pattern, checkpoint, tmp_path / "run", eps=2.5, device="cpu")
    errors = run.errors().to_pylist()
    assert 0 < len(errors) <= 2
    assert all(error["sample_id"].startswith("s-0.tar") for error in errors)
    # 550 images of the other shards, and about half of the 50 in this one.
    assert len(folder) - 50 < len(run.scores()) < len(folder)
    number = {f"{index:05d}.png": index for index in range(len(folder))}
    at = [
        number[sample_id.rpartition("/")[2]] for sample_id in run.scores()["sample_id"].to_pylist()
    ]
    np.testing.assert_allclose(columns(run)["l1"], columns(reference)["l1"][at], rtol=1e-4)


def test_a_subset(
    folder: FolderSource, reference: ScoreRun, checkpoint: Path, tmp_path: Path
) -> None:
    label = folder.label(0)
    source: Source = Subset(folder, classes=[str(label)], limit=20)
    run = score(source, checkpoint, tmp_path / "run", eps=2.5, device="cpu", unit_size=64)
    expected = [row for row in reference.scores().to_pylist() if row["label"] == label][:20]
    rows = run.scores().to_pylist()
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in expected]
    assert [row["l2"] for row in rows] == pytest.approx([row["l2"] for row in expected], rel=1e-4)
    assert run.summary["num_images"] == 20
