"""Every block of docs/joining.md, run on a real run and compared with pyarrow and NumPy alone."""

from __future__ import annotations

import gzip
import os
import re
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sample_data import save_images
from tars import tar_bytes, write_tar

import qscore_fast as qf
from qscore_fast.cli.parser import build_parser

DOCUMENT = (Path(__file__).parents[1] / "docs" / "joining.md").read_text()
BLOCKS = {
    title: re.findall(r"```python\n(.*?)```", text, re.S)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.S | re.M)
}
CAMERAS = ("north", "south", "west")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """images, runs/a and metadata.csv, as the document has them.

    The run has several parts and an error; the metadata are in another order, lack every fifth image
    and know one that was not scored.
    """
    folder = tmp_path_factory.mktemp("joining")
    save_images(folder / "images", 150)
    (folder / "images" / "bag" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run = qf.score(
        folder / "images", checkpoint, folder / "runs/a", embeddings="npy", unit_size=40, workers=1
    )
    known = [i for n, i in enumerate(run.scores()["sample_id"].to_pylist()) if n % 5]
    lines = [f"{i},{CAMERAS[n % 3]}" for n, i in enumerate([*known, "bag/bad.png"])]
    (folder / "metadata.csv").write_text("\n".join(["sample_id,camera", *reversed(lines)]) + "\n")
    return folder


@pytest.fixture
def rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The scores in their order, each with its camera (None: not in the metadata)."""
    monkeypatch.chdir(folder)
    lines = (folder / "metadata.csv").read_text().splitlines()[1:]
    camera_of = dict(line.split(",") for line in lines)
    found = pq.read_table(folder / "runs/a/scores.parquet").to_pylist()
    return [row | {"camera": camera_of.get(row["sample_id"])} for row in found]


def scope_after(*titles: str, **scope: Any) -> dict[str, Any]:
    """The names after the first block of each section."""
    for title in titles:
        exec(BLOCKS[title][0], scope)
    return scope


def test_every_block_has_its_test() -> None:
    assert {title: len(blocks) for title, blocks in BLOCKS.items()} == {
        "pandas": 1, "DuckDB": 1, "Polars": 1, "Embeddings": 1, "cleanlab": 1, "FiftyOne": 1,
        "Hugging Face datasets": 1, "From a sample id to the image": 3,
    }  # fmt: skip


def test_the_command_and_the_columns(folder: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.S)
    build_parser().parse_args(shlex.split(block)[1:])
    for name in ("scores", "errors"):
        (line,) = re.findall(rf"^\| `runs/a/{name}\.parquet` \|.*\| (.*) \|$", DOCUMENT, re.M)
        columns = pq.read_schema(folder / f"runs/a/{name}.parquet").names
        assert re.findall("`(.*?)`", line) == columns


def test_pandas(rows: list[dict[str, Any]]) -> None:
    scope = scope_after("pandas")
    known = [row for row in rows if row["camera"]]
    expected = sorted(known, key=lambda row: row["q_score"])[:20]
    assert expected[-1]["q_score"] < max(row["q_score"] for row in known)
    assert scope["worst"]["q_score"].tolist() == [row["q_score"] for row in expected]
    by_id = {row["sample_id"]: row for row in rows}
    for row in scope["worst"].to_dict("records"):
        path = Path(row.pop("path"))
        assert path.is_file()
        assert row == by_id[path.relative_to("images").as_posix()]
    assert len(set(scope["worst"]["sample_id"])) == 20


def test_duckdb(rows: list[dict[str, Any]], folder: Path) -> None:
    scope = scope_after("DuckDB")
    groups = defaultdict(list)
    for row in rows:
        if row["camera"]:
            groups[row["camera"]].append(row["q_score"])
    expected = sorted((np.mean(q), len(q), camera) for camera, q in groups.items())
    found = scope["by_camera"].fetchall()
    assert [(camera, count) for camera, count, _ in found] == [(c, n) for _, n, c in expected]
    assert [q for *_, q in found] == pytest.approx([q for q, *_ in expected], rel=1e-5)

    errors = pq.read_table(folder / "runs/a/errors.parquet").to_pylist()
    assert len(errors) == 1
    assert set(scope["everything"].fetchall()) == {
        *((row["sample_id"], row["q_score"], None, None) for row in rows),
        *((row["sample_id"], None, row["stage"], row["error"]) for row in errors),
    }


def test_polars(rows: list[dict[str, Any]]) -> None:
    expected = [row for row in rows if row["num_active"] == 0 and row["camera"]]
    assert 0 < len(expected) < len(rows)
    found = scope_after("Polars")["silent"].to_dicts()
    assert sorted(found, key=lambda row: row["sample_id"].encode()) == expected


def test_embeddings(rows: list[dict[str, Any]]) -> None:
    embedding_of = scope_after("Embeddings")["embedding_of"]
    assert len(embedding_of) == len(rows)
    assert len({row["l2"] for row in rows}) > len(rows) / 2
    for row in rows:
        h = embedding_of[row["sample_id"]].astype(np.float64)
        assert h.shape == (256,)
        statistics = [h.mean(), h.std(ddof=1), np.abs(h).sum(), np.linalg.norm(h)]
        expected = [row[name] for name in ("mean", "std", "l1", "l2")]
        assert statistics == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_cleanlab(rows: list[dict[str, Any]]) -> None:
    scope = scope_after("pandas", "cleanlab")
    classes = sorted({row["label"] for row in rows})
    own = [classes.index(row["label"]) for row in rows]
    # cleanlab's default is self-confidence: the probability of the label that was given.
    expected = scope["probabilities"][np.arange(len(rows)), own]
    quality = dict(zip(scope["scores"]["sample_id"], scope["scores"]["label_quality"], strict=True))
    found = [quality[row["sample_id"]] for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert scope["labels"].tolist() == own
    lengths = np.linalg.norm(scope["embeddings"], axis=1)
    np.testing.assert_allclose(lengths, [row["l2"] for row in rows], rtol=2e-3)


class FiftyOneDataset:
    """What the block needs of FiftyOne's Dataset, by the signature and the rules of its 1.22.1."""

    def __init__(self, paths: list[str]) -> None:
        self.samples: list[dict[str, Any]] = [{"filepath": path} for path in paths]

    def set_values(self, field_name: str, values: dict[str, float], key_field: str) -> None:
        of_key = {sample[key_field]: sample for sample in self.samples}
        unknown = values.keys() - of_key.keys()
        if unknown:
            raise ValueError(f"{len(unknown)} keys match the {key_field} of no sample")
        for key, value in values.items():
            of_key[key][field_name] = value


def test_fiftyone(rows: list[dict[str, Any]], folder: Path) -> None:
    dataset = FiftyOneDataset([str(path) for path in (folder / "images").glob("*/*.png")])
    scope_after("pandas", "FiftyOne", dataset=dataset)
    expected = {str(folder / "images" / row["sample_id"]): row["q_score"] for row in rows}
    scored = {s["filepath"]: s["q_score"] for s in dataset.samples if "q_score" in s}
    assert scored == expected
    assert {type(value) for value in scored.values()} == {float}
    unscored = [s["filepath"] for s in dataset.samples if "q_score" not in s]
    assert unscored == [str(folder / "images/bag/bad.png")]


def test_hugging_face_datasets(rows: list[dict[str, Any]]) -> None:
    dataset = scope_after("pandas", "Hugging Face datasets")["dataset"]
    assert len(dataset) == len(rows)
    for found, row in zip(dataset, rows, strict=True):
        assert found["q_score"] == row["q_score"]
        with Image.open(Path("images") / row["sample_id"]) as image:
            assert np.array_equal(np.asarray(found["image"]), np.asarray(image))


IDS_TO_PATHS, IDS_TO_MEMBERS, IDS_TO_ROWS = BLOCKS["From a sample id to the image"]


def contents(source: str | Path, block: str, name: str) -> dict[bytes, bytes | None]:
    """What the source reads, by what the block finds for the same sample id."""
    opened = qf.images.open_source(source)
    pairs: dict[bytes, bytes | None] = {}
    for unit in opened.units(2):
        for sample in opened.read(unit):
            assert sample.error is None
            read = Path(os.fsdecode(sample.path)).read_bytes() if sample.path else sample.content
            scope: dict[str, Any] = {"sample_id": sample.sample_id}
            exec(block, scope)
            found = scope[name]
            pairs[Path(found).read_bytes() if name == "path" else found] = read
    return pairs


NAMES = (b"a/1.png", b"a/2 3.png", b"back\\slash.png", b"caf\xe9.png", "ä/ü.png".encode())


def test_paths_of_folders_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path = tmp_path / "images" / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
    expected = {name: name for name in NAMES}
    assert contents("images", IDS_TO_PATHS, "path") == expected

    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"elsewhere")
    below = tmp_path / "images/list.txt"
    below.write_bytes(b"\n".join([*NAMES, os.fsencode(elsewhere)]))
    assert contents(below, IDS_TO_PATHS, "path") == expected | {b"elsewhere": b"elsewhere"}


def test_members_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [(f"{shard}/{key}.jpg", f"{shard}{key}".encode()) for shard in "ab" for key in "xyz"]
    write_tar(tmp_path / "shards/000.tar", *files[:3])
    (tmp_path / "shards/more").mkdir()
    (tmp_path / "shards/more/000.tgz").write_bytes(gzip.compress(tar_bytes(files[3:])))
    write_tar(tmp_path / "shards/001.tar", ("back\\slash.jpg", b"back"), ("caf\udce9.jpg", b"caf"))
    (tmp_path / "shards/002.tar.gz").write_bytes(gzip.compress(tar_bytes([("in.tar/k.jpg", b"k")])))
    expected = {content: content for _, content in files} | {
        content: content for content in (b"back", b"caf", b"k")
    }
    assert contents("shards", IDS_TO_MEMBERS, "image") == expected


def test_rows_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    expected: dict[bytes, bytes] = {}
    for file, count in (("tables/a.parquet", 5), ("tables/deep/b#1.parquet", 4)):
        images = [f"{file} {number}".encode() for number in range(count)]
        expected |= {image: image for image in images}
        column = pa.array([{"bytes": image, "path": None} for image in images], kind)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": column}), file, row_group_size=2)
    assert contents("tables", IDS_TO_ROWS, "image") == expected


def test_rows_of_arrow_streams(tmp_path: Path) -> None:
    import datasets

    images = [f"picture {number}".encode() for number in range(5)]
    table = {"image": [{"bytes": image, "path": None} for image in images]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(table, features).save_to_disk(tmp_path / "saved")
    source = qf.images.open_source(tmp_path / "saved")
    found = []
    for sample in (sample for unit in source.units(2) for sample in source.read(unit)):
        file, group, row = re.split("[#/]", sample.sample_id)
        with pa.OSFile(str(tmp_path / "saved" / file)) as stream:
            batch = list(pa.ipc.open_stream(stream))[int(group)]
        assert batch["image"][int(row)].as_py()["bytes"] == sample.content
        found.append(sample.content)
    assert found == images
