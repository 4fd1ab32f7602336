"""Folders that Hugging Face's datasets saved, against the library itself."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from qscore_fast.errors import SourceError, UnavailableError
from qscore_fast.images import retries
from qscore_fast.images.sources.hf_dataset import HFDatasetSource
from qscore_fast.images.sources.source import Sample

IMAGES = [bytes([65 + n]) * (n + 1) for n in range(10)]


def read(source: Any, size: int = 1) -> list[Sample]:
    source = pickle.loads(pickle.dumps(source))
    samples = [s for unit in source.units(size) for s in source.read(unit)]
    assert len(samples) == source.num_samples
    return samples


def by_hand(folder: Path, names: list[str], rows: int = 3, state: bool = True) -> None:
    """Arrow streams of two batches each, as the library writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", pa.binary())])
    for name in names:
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
            for batch in range(2):
                images = [f"{name}{batch}{row}".encode() * 200 for row in range(rows)]
                out.write_batch(pa.record_batch({"image": images}, schema))
    if state:
        files = [{"filename": name} for name in names]
        (folder / "state.json").write_text(json.dumps({"_data_files": files}))
        (folder / "dataset_info.json").write_text("{}")


def test_what_the_library_saves(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    rows = {
        "image": [{"bytes": i, "path": None} for i in IMAGES],
        "label": [n % 2 for n in range(10)],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(str(tmp_path / "one"), num_shards=3)
    saved = datasets.load_from_disk(str(tmp_path / "one"))
    theirs = [
        row["image"]["bytes"] for row in saved.cast_column("image", datasets.Image(decode=False))
    ]
    source = HFDatasetSource(tmp_path / "one")
    samples = read(source)
    assert [s.content for s in samples] == theirs == IMAGES
    assert [s.label for s in samples] == ["cat", "dog"] * 5
    assert samples[0].sample_id == "data-00000-of-00003.arrow#0/0"
    assert HFDatasetSource(tmp_path / "one").manifest_hash == source.manifest_hash

    splits = datasets.DatasetDict(train=data.select(range(6)), test=data.select(range(6, 10)))
    splits.save_to_disk(str(tmp_path / "two"))
    samples = read(HFDatasetSource(tmp_path / "two"))
    assert [s.content for s in samples] == IMAGES
    assert [s.sample_id.split("/")[0] for s in samples] == ["train"] * 6 + ["test"] * 4
    assert [s.content for s in read(HFDatasetSource(tmp_path / "two/test"))] == IMAGES[6:]

    (tmp_path / "three/data").mkdir(parents=True)
    data.to_parquet(str(tmp_path / "three/data/train-00000-of-00001.parquet"))
    samples = read(HFDatasetSource(tmp_path / "three"))
    assert [(s.content, s.label) for s in samples] == [
        (image, ["cat", "dog"][n % 2]) for n, image in enumerate(IMAGES)
    ]
    assert samples[0].sample_id == "data/train-00000-of-00001.parquet#0/0"


def test_units_are_runs_of_batches(tmp_path: Path) -> None:
    by_hand(tmp_path, ["data-0.arrow", "data-1.arrow"])
    source = HFDatasetSource(tmp_path)
    assert [u.num_samples for u in source.units(3)] == [3] * 4
    assert [u.num_samples for u in source.units(100)] == [6, 6]
    assert [s.sample_id for s in read(source, 100)][5:7] == ["data-0.arrow#1/2", "data-1.arrow#0/0"]


def test_the_state_says_which_files_and_in_which_order(tmp_path: Path) -> None:
    by_hand(tmp_path, ["b.arrow", "a.arrow"], rows=1)
    (tmp_path / "cache-1234.arrow").write_bytes(b"")
    source = HFDatasetSource(tmp_path)
    assert [s.sample_id[0] for s in read(source)] == ["b", "b", "a", "a"]
    assert source.notes["files of other kinds ignored"] == 3
    (tmp_path / "state.json").unlink()
    assert [s.sample_id[0] for s in read(HFDatasetSource(tmp_path))] == ["a", "a", "b", "b"]


def test_the_file_format_is_read_too(tmp_path: Path) -> None:
    batch = pa.record_batch({"image": IMAGES})
    with pa.ipc.new_file(tmp_path / "a.arrow", batch.schema) as out:
        out.write_batch(batch)
    assert [s.content for s in read(HFDatasetSource(tmp_path))] == IMAGES


def test_a_file_that_breaks_off_ends_with_an_error(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a.arrow", "b.arrow"])
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[: int(len(whole) * 0.8)])
    source = HFDatasetSource(tmp_path)
    for size in (1, 100):
        samples = read(source, size)
        assert [s.error is None for s in samples] == [True] * 3 + [False] + [True] * 6
        assert samples[3].sample_id == "a.arrow" and "breaks off" in str(samples[3].error)
    assert source.notes["damaged files"] == 1


def test_offsets_that_lead_outside_are_errors(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a.arrow"])
    content = (tmp_path / "a.arrow").read_bytes()
    size = len(b"a.arrow00" * 200)
    offsets = b"".join((n * size).to_bytes(4, "little") for n in range(4))
    assert content.count(offsets) == 2
    bad = offsets[:8] + (2**31 - 1).to_bytes(4, "little") + offsets[12:]
    (tmp_path / "a.arrow").write_bytes(content.replace(offsets, bad, 1))
    samples = read(HFDatasetSource(tmp_path))
    assert [s.error is None for s in samples] == [False] * 3 + [True] * 3
    assert all("damaged" in str(s.error) for s in samples[:3])


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a.arrow", "b.arrow"])
    os.unlink(tmp_path / "a.arrow")
    samples = read(HFDatasetSource(tmp_path))
    assert [s.sample_id for s in samples if s.error] == ["a.arrow"]
    assert len(samples) == 7


def at_url(folder: Path) -> str:
    """The folder's files in a store of their own."""
    store = fsspec.filesystem("memory")
    if store.exists("/hf"):
        store.rm("/hf", recursive=True)
    for file in folder.rglob("*"):
        if file.is_file():
            store.pipe_file(f"/hf/{file.relative_to(folder)}", file.read_bytes())
    return "memory://hf"


FORMS = {
    "stream": {"legacy": False, "file": False},
    "legacy stream": {"legacy": True, "file": False},
    "file": {"legacy": False, "file": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_url_gives_what_the_disk_gives(tmp_path: Path, form: str) -> None:
    """Against pyarrow's own reader, with labels that are a dictionary and one that grows."""
    settings: Any = FORMS[form]
    options = pa.ipc.IpcWriteOptions(
        use_legacy_format=settings["legacy"], emit_dictionary_deltas=True
    )
    schema = pa.schema([("image", pa.binary()), ("label", pa.dictionary(pa.int32(), pa.string()))])
    new = pa.ipc.new_file if settings["file"] else pa.ipc.new_stream
    names = ["cat", "dog", "é", ""]
    with new(str(tmp_path / "a.arrow"), schema, options=options) as out:
        for batch in range(3):
            labels = pa.DictionaryArray.from_arrays(
                pa.array([0, batch, None], pa.int32()), pa.array(names[: batch + 2])
            )
            images = [IMAGES[batch] * 3, None, IMAGES[batch + 1]]
            out.write_batch(pa.record_batch([pa.array(images, pa.binary()), labels], schema))
    here, there = HFDatasetSource(tmp_path), HFDatasetSource(at_url(tmp_path))
    assert [u.num_samples for u in there.units(1)] == [3, 3, 3]

    def shown(samples: list[Sample]) -> list[tuple[Any, ...]]:
        return [(s.sample_id, s.label, s.content, str(s.error)) for s in samples]

    assert shown(read(there)) == shown(read(here))
    assert {s.label for s in read(there)} == {"cat", "dog", "é", None}
    assert there.known_classes() == here.known_classes()


def test_a_url_whose_file_breaks_off_or_is_damaged(tmp_path: Path) -> None:
    by_hand(tmp_path, ["a.arrow", "b.arrow"])
    whole = (tmp_path / "a.arrow").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "a.arrow").write_bytes(whole[:size])
        here, there = read(HFDatasetSource(tmp_path)), read(HFDatasetSource(at_url(tmp_path)))
        assert [(s.sample_id, s.content) for s in there] == [(s.sample_id, s.content) for s in here]
        assert [s.error is None for s in there] == [s.error is None for s in here]
    rng = np.random.default_rng(0)
    for _ in range(200):  # never an exception of another kind, nor a read without end
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
        (tmp_path / "a.arrow").write_bytes(content.tobytes())
        found = read(HFDatasetSource(at_url(tmp_path)))
        assert [s.content is not None for s in found][-6:] == [True] * 6


def test_a_store_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(tmp_path, ["a.arrow"])
    source = HFDatasetSource(at_url(tmp_path))
    monkeypatch.setattr(retries, "WAITS", (0.0,))

    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("SlowDown")

    monkeypatch.setattr(MemoryFileSystem, "_open", fails)
    with pytest.raises(UnavailableError, match="SlowDown"):
        read(source)


@pytest.mark.parametrize("name", ["../a.arrow", "/a.arrow", "", None, 7])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: Any) -> None:
    by_hand(tmp_path, ["a.arrow"])
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(SourceError, match="names no data files"):
        HFDatasetSource(tmp_path)


def test_splits_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": [".."]}')
    with pytest.raises(SourceError, match="names no splits"):
        HFDatasetSource(tmp_path)


def test_unusable_places_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        HFDatasetSource(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no data set"):
        HFDatasetSource(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(SourceError, match="cannot read"):
        HFDatasetSource(tmp_path)


def test_a_cut_parquet_file_beside_whole_ones(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": IMAGES}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    assert [s.error is None for s in read(HFDatasetSource(tmp_path))] == [True] * 10 + [False]
