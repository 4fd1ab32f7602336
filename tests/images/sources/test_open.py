"""What a path or URL is read as."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from qscore_fast.errors import SettingsError, SourceError
from qscore_fast.images import Source, open_source


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


def test_a_folder_of_images_stays_one_whatever_lies_beside_them(tmp_path: Path) -> None:
    images(tmp_path, "a/1.png", "2.png")
    tar(tmp_path / "more.tar", "x.png")
    assert open_source(tmp_path).kind == "folder"
    assert ids(open_source(tmp_path)) == ["2.png", "a/1.png"]


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


def test_a_list_at_a_url_is_refused() -> None:
    with pytest.raises(SourceError, match="download it"):
        open_source("s3://bucket/list.csv")
