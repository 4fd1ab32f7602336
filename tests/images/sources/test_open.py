"""What a path or URL is read as."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from typing import get_args

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from object_store import object_store
from PIL import Image

from qscore_fast.cli.parser import build_parser
from qscore_fast.cli.source_options import SourceKind as OptionKind
from qscore_fast.cli.source_options import source_from
from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.images import Source, open_source
from qscore_fast.images.sources.shard_list import list_shards
from qscore_fast.images.sources.source_kind import SourceKind
from tests.support.tars import tar_bytes


def png(shade: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 4), shade).save(content, "png")
    return content.getvalue()


def tar(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(png())
            archive.addfile(member, io.BytesIO(png()))
    return path


def images(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())
    return folder


def ids(source: Source) -> list[str]:
    return [s.sample_id for unit in source.units(100) for s in source.read(unit)]


def test_a_folder_of_several_kinds_of_images_is_refused(tmp_path: Path) -> None:
    """Whichever were read, the others would go unnoticed."""
    images(tmp_path / "a", "x/1.png", "y/2.png")
    assert open_source(tmp_path / "a").kind == "folder"
    tar(tmp_path / "a" / "s-0.tar", "k.png")
    with pytest.raises(
        SourceError, match=r"a/x/1\.png and .*a/s-0\.tar: .*kind folder or webdataset"
    ):
        open_source(tmp_path / "a")
    assert ids(open_source(tmp_path / "a", kind="folder")) == ["x/1.png", "y/2.png"]
    assert open_source(tmp_path / "a", kind="folder").notes["of them .tar"] == 1
    shards = open_source(tmp_path / "a", kind="webdataset")
    assert ids(shards) == ["s-0.tar/k.png"]
    assert shards.notes["files of other kinds ignored"] == 2

    images(tmp_path / "b", "assets/logo.png", "data/README.md")
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "b" / "data" / "train.parquet")
    with pytest.raises(SourceError, match=r"logo\.png and .*train\.parquet: .* folder or parquet"):
        open_source(tmp_path / "b")
    tar(tmp_path / "c" / "s.tar", "k.png")
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "c" / "p.parquet")
    with pytest.raises(SourceError, match="webdataset or parquet"):
        open_source(tmp_path / "c")


def test_a_table_without_images_decides_nothing(tmp_path: Path) -> None:
    images(tmp_path / "a", "x/1.png", "2.png")
    pq.write_table(
        pa.table({"file_name": ["2.png"], "n": [1]}), tmp_path / "a" / "metadata.parquet"
    )
    (tmp_path / "a" / "broken.parquet").write_bytes(b"PAR1")
    assert ids(open_source(tmp_path / "a")) == ["2.png", "x/1.png"]
    tar(tmp_path / "b" / "s.tar", "k.png")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "b" / "index.parquet")
    assert ids(open_source(tmp_path / "b")) == ["s.tar/k.png"]
    (tmp_path / "b" / "s.tar").unlink()
    with pytest.raises(SourceError, match="no column with the bytes of images"):
        open_source(tmp_path / "b")


def test_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    images(tmp_path, "x/1.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert ids(open_source(tmp_path)) == ["x/1.png"]
    tar(tmp_path / "s.tar", "k.png")
    with pytest.raises(SourceError, match=r"x/1\.png and .*s\.tar"):
        open_source(tmp_path)


def test_names_that_have_braces_themselves(tmp_path: Path) -> None:
    (tmp_path / "{1}").mkdir()
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "{1}" / "{a,b}.parquet")
    for name in ("{1}/{a,b}.parquet", "{1}/*.parquet", "{1}"):
        assert ids(open_source(tmp_path / name)) == ["{a,b}.parquet#0/0"]


def test_a_folder_of_original_tars_is_refused(tmp_path: Path) -> None:
    """The train tar's members are tars, which a WebDataset's reader takes for images without an image."""
    for name in ("train", "val"):
        tar(tmp_path / f"ILSVRC2012_img_{name}.tar", "ILSVRC2012_val_00000001.JPEG")
    for place in (tmp_path, everywhere(tmp_path, "memory")):
        with pytest.raises(
            SourceError, match=r"give the tar itself \(.*ILSVRC2012_img_train\.tar\)"
        ):
            open_source(place)
    assert len(open_source(tmp_path, kind="webdataset").units(100)) == 2


def test_kinds_that_are_said(tmp_path: Path) -> None:
    images(tmp_path, "1.png")
    assert get_args(SourceKind) == get_args(OptionKind)
    for kind, reason in (
        ("remote", "is no URL"),
        ("imagenet-val", "needs ground_truth"),
        ("zip", "kind must be one of folder, list"),
    ):
        with pytest.raises(SettingsError, match=reason):
            open_source(tmp_path, kind=kind)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="no shard in"):
        open_source(tmp_path, kind="webdataset")
    with pytest.raises(SourceError, match="there is no folder memory://x"):
        open_source("memory://x", kind="hf_dataset")
    options = build_parser().parse_args(
        ["score", str(tmp_path), "--encoder", "e", "--out", "o", "--source-kind", "webdataset"]
    )
    with pytest.raises(SourceError, match="no shard in"):
        source_from(options.score)


def test_the_command_line_names_classes_without_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path, "i/cat/1.png", "i/dog/2.png")
    (tmp_path / "z.txt").write_text("cat\nzebra\n")
    words = [
        "score",
        f"{tmp_path}/i",
        "--encoder",
        "e",
        "--out",
        "o",
        "--classes",
        f"{tmp_path}/z.txt",
    ]
    assert ids(source_from(build_parser().parse_args(words).score)) == ["cat/1.png"]
    assert "no image has the class zebra" in capsys.readouterr().err


def test_lists(tmp_path: Path) -> None:
    images(tmp_path, "a.png", "b.png")
    (tmp_path / "list.txt").write_text("b.png\na.png\n")
    assert ids(open_source(tmp_path / "list.txt")) == ["b.png", "a.png"]
    (tmp_path / "list.csv").write_text("name,where\nx,a.png\n")
    assert ids(open_source(tmp_path / "list.csv", column="where")) == ["a.png"]
    pq.write_table(pa.table({"path": ["a.png", "b.png"]}), tmp_path / "list.parquet")
    assert ids(open_source(tmp_path / "list.parquet")) == ["a.png", "b.png"]


def test_tars(tmp_path: Path) -> None:
    tar(tmp_path / "shards" / "s-0.tar", "k1.png", "k2.png")
    tar(tmp_path / "shards" / "s-1.tar", "k1.png")
    expected = ["s-0.tar/k1.png", "s-0.tar/k2.png", "s-1.tar/k1.png"]
    assert ids(open_source(tmp_path / "shards")) == expected
    assert ids(open_source(f"{tmp_path}/shards/s-{{0..1}}.tar")) == expected

    val = tar(tmp_path / "val.tar", "ILSVRC2012_val_00000001.JPEG")
    assert open_source(val).kind == "imagenet-tars"
    outer = tmp_path / "train.tar"
    with tarfile.open(outer, "w") as archive:
        archive.add(tar(tmp_path / "n01440764.tar", "n01440764_1.JPEG"), "n01440764.tar")
    assert ids(open_source(outer)) == ["n01440764/n01440764_1.JPEG"]


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    rows = [{"bytes": png(shade), "path": None} for shade in (1, 2)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind)})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    assert len(ids(open_source(tmp_path / "hub"))) == 2

    saved = tmp_path / "saved"
    saved.mkdir()
    with pa.ipc.new_stream(str(saved / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "train"}
    (saved / "state.json").write_text(json.dumps(state))
    (saved / "dataset_info.json").write_text("{}")
    assert len(ids(open_source(saved))) == 2


def test_options_of_another_kind_of_source_are_refused(tmp_path: Path) -> None:
    images(tmp_path, "a.png")
    with pytest.raises(SettingsError, match="a folder of images, which has no column"):
        open_source(tmp_path, column="path")
    with pytest.raises(SettingsError, match="which has no split"):
        open_source(tmp_path, split="val")


@pytest.mark.parametrize("name", ["nowhere", "nowhere.tar", "nowhere.csv", "nowhere.parquet"])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        open_source(tmp_path / name)


def everywhere(folder: Path, place: str) -> str:
    """The folder's files at a URL of their own, or where they are."""
    if place == "disk":
        return str(folder)
    store = fsspec.filesystem(place)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            store.pipe_file(f"/{folder.name}/{file.relative_to(folder)}", file.read_bytes())
    return f"{place}://{folder.name}"


@pytest.mark.parametrize("place", ["disk", "memory", "s3"])
def test_every_kind_from_every_place(
    tmp_path: Path, place: str, request: pytest.FixtureRequest
) -> None:
    if place == "s3":
        request.getfixturevalue("bucket")
    top = tmp_path / "kinds"
    tar(top / "tars" / "a-0.tar", "1.png", "2.png")
    tar(top / "tars" / "deep" / "a-1.tar", "1.png")
    tar(top / "tars" / "README.tar.txt")
    for number in range(2):
        (top / "tables" / "data").mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": [png(number)], "label": [number]})
        pq.write_table(table, top / "tables" / "data" / f"t-{number}.parquet")
    images(top / "folder", "cat/1.png", "dog/2.png")
    pq.write_table(pa.table({"path": ["cat/1.png"]}), top / "folder" / "list.parquet")
    (top / "folder" / "list.csv").write_text("path,label\ndog/2.png,dog\n")
    (top / "train.tar").write_bytes(
        tar_bytes([("n01440764.tar", tar_bytes([("n01440764_1.JPEG", png())]))])
    )
    tar(top / "val.tar", "ILSVRC2012_val_00000001.JPEG")
    kaggle = top / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    images(kaggle / "val", "ILSVRC2012_val_00000001.JPEG")
    images(kaggle / "train" / "n01440764", "n01440764_1.JPEG")
    (top / "kaggle" / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 3 4\n"
    )
    splits = {"train": 3, "test": 2}
    data = datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict({"image": [png(n) for n in range(rows)]})
            for split, rows in splits.items()
        }
    )
    data.save_to_disk(str(top / "saved"))
    url = everywhere(top, place)
    both = ["a-0.tar/1.png", "a-0.tar/2.png", "deep/a-1.tar/1.png"]
    rows = ["t-0.parquet#0/0", "t-1.parquet#0/0"]
    expected = {
        "tars": both,
        "tars/*.tar": both[:2],
        "tars/**/*.tar": both,
        "tars/a-0.tar": both[:2],
        "tars/{a-0,deep/a-1}.tar": both,
        "tables": [f"data/{row}" for row in rows],
        "tables/data/t-*.parquet": rows,
        "tables/data/t-{0,1}.parquet": rows,
        "tables/data/t-{1..0}.parquet": rows[::-1],
        "{tables,tars}/data/*.parquet": None,
        "tables/{data,data}/*.parquet": rows,
        "folder": ["cat/1.png", "dog/2.png"],
        "folder/list.parquet": ["cat/1.png"],
        "folder/list.csv": ["dog/2.png"],
        "train.tar": ["n01440764/n01440764_1.JPEG"],
        "val.tar": ["ILSVRC2012_val_00000001.JPEG"],
        "kaggle": ["ILSVRC2012_val_00000001.JPEG"],
        "kaggle/ILSVRC": ["ILSVRC2012_val_00000001.JPEG"],
        "saved": [
            *(f"train/data-00000-of-00001.arrow#0/{row}" for row in range(3)),
            *(f"test/data-00000-of-00001.arrow#0/{row}" for row in range(2)),
        ],
        "saved/test": [f"data-00000-of-00001.arrow#0/{row}" for row in range(2)],
    }
    for name, found in expected.items():
        if found is None:
            with pytest.raises(SourceError, match="there is no file or folder .*tars/data"):
                open_source(f"{url}/{name}")
            continue
        source = pickle.loads(pickle.dumps(open_source(f"{url}/{name}")))
        samples = [s for unit in source.units(100) for s in source.read(unit)]
        assert [s.sample_id for s in samples] == found, name
        assert not any(s.error for s in samples), name
        assert open_source(f"{url}/{name}").manifest_hash == source.manifest_hash
    assert open_source(f"{url}/train.tar").kind == "imagenet-tars"
    assert open_source(f"{url}/saved").kind == "hf_dataset"
    assert open_source(f"{url}/kaggle").kind == "imagenet-kaggle"
    assert ids(open_source(f"{url}/kaggle", split="train")) == ["n01440764/n01440764_1.JPEG"]
    with pytest.raises(SourceError, match=r"t-7\.parquet"):
        open_source(f"{url}/tables/data/t-{{0,7}}.parquet")


@pytest.fixture
def bucket() -> Iterator[None]:
    with object_store("kinds"):
        yield


def test_the_top_of_a_url_is_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat folder of ten million objects takes minutes to list."""
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/flat/{n}.png": b"x" for n in range(3)})
    listed: list[str] = []
    ls = MemoryFileSystem.ls

    def noting(self: MemoryFileSystem, path: str, detail: bool = True, **more: object) -> object:
        listed.append(path)
        return ls(self, path, detail, **more)

    monkeypatch.setattr(MemoryFileSystem, "ls", noting)
    assert open_source("memory://flat").num_samples == 3
    assert listed == ["/flat"]


def test_sizes_of_shards_are_looked_up_some_at_a_time() -> None:
    """Each look waits until others are on their way."""
    barrier = Barrier(8, timeout=20)
    content = tar_bytes([("k.png", png())])

    def open_together(name: str) -> io.BytesIO:
        barrier.wait()
        return io.BytesIO(content)

    sizes = list_shards("s3://b/{00..15}.tar", open_together).sizes
    assert set(sizes.values()) == {len(content)} and len(sizes) == 16
