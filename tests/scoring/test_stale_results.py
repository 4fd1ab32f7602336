"""Results are never older than the parts, and what is damaged is made again by the same command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_tables import tables_of
from sample_data import save_images

from qscore_fast.encoders import Encoder
from qscore_fast.errors import QScoreError, StoreError
from qscore_fast.scoring import ScoreRun, discover, finalise, part, rescore, run_scoring, score
from qscore_fast.scoring.store import Store

BAD = "bag/00000-bad.png"


@pytest.fixture(scope="module")
def images_24(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images; the first, in the order of the run, is a copy of another."""
    folder = save_images(tmp_path_factory.mktemp("few"), 23)
    (folder / BAD).write_bytes(next((folder / "bag").glob("*.png")).read_bytes())
    return folder


@pytest.fixture
def folder(tmp_path: Path, images_24: Path) -> Path:
    """The same with files of its own; three parts of eight."""
    for path in images_24.rglob("*.png"):
        copy = tmp_path / "images" / path.relative_to(images_24)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "images"


def run_it(folder: Path, encoder: Encoder, out: Path, **settings: Any) -> ScoreRun:
    return score(folder, encoder, out, **{"unit_size": 8, "workers": 1, "eps": 2.5, **settings})


@pytest.fixture
def alone(tmp_path: Path, images_24: Path, encoder: Encoder) -> Callable[..., dict[str, Any]]:
    """What a run holds that nothing happened to."""

    def tables(**settings: Any) -> dict[str, Any]:
        out = tmp_path / "alone"
        run_it(images_24, encoder, out, **settings)
        return tables_of(out)

    return tables


def spoil(path: Path) -> bytes:
    """Other content of the same size: the listing stays as it is. Returns what there was."""
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    return good


def flip_a_byte(path: Path, column: int = 0) -> None:
    """In the last page of a column of the first row group."""
    chunk = pq.read_metadata(path).row_group(0).column(column)
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content[start + chunk.total_compressed_size - 3] ^= 0xFF
    path.write_bytes(content)


def cut_the_first_part(out: Path) -> None:
    os.truncate(out / "parts" / "part-000000.parquet", 100)


@pytest.fixture
def mended(tmp_path: Path, folder: Path, encoder: Encoder) -> Path:
    """A finished run with a bad image, whose file is whole by now, and whose part is cut off."""
    good = spoil(folder / BAD)
    run = run_it(folder, encoder, tmp_path / "out")
    assert (len(run.scores()), len(run.errors())) == (23, 1)
    (folder / BAD).write_bytes(good)
    cut_the_first_part(tmp_path / "out")
    return tmp_path / "out"


def test_parts_that_are_done_again_are_in_the_results(
    mended: Path, folder: Path, encoder: Encoder, alone: Callable[..., dict[str, Any]]
) -> None:
    run = run_it(folder, encoder, mended)
    assert run.session is not None
    assert run.session.parts_done == 1
    assert (len(run.scores()), len(run.errors()), run.summary["num_scored"]) == (24, 0, 24)
    assert tables_of(mended) == alone()


def made_without_results(
    folder: Path, encoder: Encoder, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command, killed before it writes results."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_scoring, "finalise", killed)
        with pytest.raises(KeyboardInterrupt):
            run_it(folder, encoder, out)


def test_rescore_and_discover_notice_parts_that_are_newer(
    mended: Path, folder: Path, encoder: Encoder, alone: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made_without_results(folder, encoder, mended, monkeypatch)
    assert len(ScoreRun(mended).scores()) == 23
    run = rescore(mended, eps=2.5)
    assert (len(run.scores()), len(run.errors())) == (24, 0)
    assert tables_of(mended) == alone()

    good = spoil(folder / BAD)
    cut_the_first_part(mended)
    made_without_results(folder, encoder, mended, monkeypatch)
    discover(mended, eps=2.5)
    assert ScoreRun(mended).errors()["sample_id"].to_pylist() == [BAD]
    assert len(ScoreRun(mended).scores()) == 23
    (folder / BAD).write_bytes(good)


def test_scores_of_images_that_are_all_bad_by_now_do_not_stay(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    for path in folder.rglob("*.png"):
        spoil(path)
    for path in (out / "parts").glob("*.parquet"):
        path.unlink()
    with pytest.raises(QScoreError, match="none of the 24 images could be scored"):
        run_it(folder, encoder, out)
    with pytest.raises(StoreError, match="no readable scores.parquet"):
        ScoreRun(out)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("errors.parquet", lambda path: os.truncate(path, 10)),
        ("errors.parquet", flip_a_byte),
        ("scores.parquet", lambda path: flip_a_byte(path, 2)),
        ("scores.parquet", lambda path: flip_a_byte(path, 0)),
    ],
)
@pytest.mark.parametrize("command", ["score", "rescore"])
def test_damaged_results_are_written_again(
    tmp_path: Path, folder: Path, encoder: Encoder,
    name: str, damage: Callable[[Path], object], command: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    spoil(folder / BAD)
    run_it(folder, encoder, out)
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    damage(out / name)
    read = ScoreRun(out).errors if name == "errors.parquet" else ScoreRun(out).scores
    with pytest.raises(StoreError, match="run the same qscore score again"):
        read()
    if command == "score":
        run_it(folder, encoder, out)
    else:
        rescore(out, eps=2.5)
    assert {path: path.read_bytes() for path in out.glob("*.parquet")} == before
    assert ScoreRun(out).errors()["sample_id"].to_pylist() == [BAD]


@pytest.mark.parametrize("settings", [{}, {"shard_index": 0, "num_shards": 2}])
def test_parts_that_are_damaged_inside_are_done_again_by_the_same_command(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: Callable[..., dict[str, Any]],
    settings: dict[str, int],
) -> None:  # fmt: skip
    """They show when the results are made, also those of another shard."""
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    for index in (1, 2):
        flip_a_byte(out / "parts" / f"part-{index:06d}.parquet", 2)
    with pytest.raises(StoreError, match=r"part-00000[12].parquet is damaged .* delete it"):
        rescore(out, eps=3.0)
    with pytest.warns(RuntimeWarning, match=r"part-000001 and 1 more turned out damaged"):
        run = run_it(folder, encoder, out, eps=3.0, **settings)
    assert run.session is not None
    assert (run.session.parts_done, run.session.images_done) == (2, 16)
    assert run.session.parts_found == (0 if settings else 1)
    assert run.complete
    assert tables_of(out) == alone(eps=3.0)


def test_a_part_that_is_damaged_each_time_ends_the_run(
    tmp_path: Path, folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    real = Store.write_part

    def write_part(store: Store, index: int, *content: Any) -> None:
        real(store, index, *content)
        written.append(index)
        if index == 1:
            flip_a_byte(store.part_path(index), 2)

    monkeypatch.setattr(Store, "write_part", write_part)
    with (
        pytest.warns(RuntimeWarning, match="turned out damaged"),
        pytest.raises(StoreError, match=r"part-000001.parquet is damaged"),
    ):
        run_it(folder, encoder, tmp_path / "out")
    assert sorted(written) == [0, 1, 1, 2]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), pa.ArrowMemoryError("full")])
def test_a_part_that_cannot_be_read_for_now_stays(
    tmp_path: Path, folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    run_it(folder, encoder, out)

    def fail(*_: object, **__: object) -> None:
        raise error

    record = Store(out).record
    before = {path: path.read_bytes() for path in (out / "parts").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(part.pq, "ParquetFile", fail)
        with (
            pytest.raises(StoreError, match=r"cannot read .*part-000000.parquet"),
            Store.writing(out, record) as store,
        ):
            store.remove_damaged()
    assert {path: path.read_bytes() for path in (out / "parts").iterdir()} == before


def without_digests(path: Path) -> None:
    """As it was written before parts and results told what they are made of."""
    table = pq.read_table(path)
    new = (b"qscore_fast.parts", b"qscore_fast.content")
    kept = {k: v for k, v in (table.schema.metadata or {}).items() if k not in new}
    pq.write_table(table.replace_schema_metadata(kept), path, write_page_checksum=True)


def test_a_store_of_before_is_read_and_finalised_once(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    rows = run_it(folder, encoder, out).scores()
    (out / "listing.txt.zst").unlink()
    for path in out.rglob("*.parquet"):
        without_digests(path)
    for path in (out / "parts").glob("*.json"):
        notes = json.loads(path.read_text())
        assert notes.pop("content") and notes.pop("made_with")
        path.write_text(json.dumps(notes))
    assert ScoreRun(out).scores().equals(rows)
    run = run_it(folder, encoder, out)
    assert run.session is not None
    assert run.session.parts_done == 0
    assert run.scores().equals(rows)
    assert b"qscore_fast.parts" in pq.read_metadata(out / "scores.parquet").metadata
    written = (out / "scores.parquet").stat().st_mtime_ns
    run_it(folder, encoder, out)
    assert (out / "scores.parquet").stat().st_mtime_ns == written

    # Such parts are told apart by what their footers say.
    good = spoil(folder / BAD)
    cut_the_first_part(out)
    assert len(run_it(folder, encoder, out).errors()) == 1
    (folder / BAD).write_bytes(good)


def test_files_of_two_processes_are_no_part(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    """Without locks two may do a unit at once; where they saw different things, it is done again."""
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    good = (out / "parts" / "part-000000.json").read_bytes()
    image = spoil(folder / BAD)
    (out / "parts" / "part-000000.parquet").unlink()
    assert len(run_it(folder, encoder, out).errors()) == 1
    (folder / BAD).write_bytes(image)
    (out / "parts" / "part-000000.json").write_bytes(good)
    run = run_it(folder, encoder, out)
    assert run.session is not None
    assert run.session.parts_done == 1
    assert len(run.errors()) == 0


def test_results_that_do_not_belong_together_are_noticed(
    tmp_path: Path, folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    before = tables_of(out)
    with monkeypatch.context() as patch:  # killed between features.npz and scores.parquet
        patch.setattr(finalise, "write_scores", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rescore(out, eps=3.0)
    with pytest.raises(StoreError, match="holds other features than scores.parquet was made with"):
        _ = ScoreRun(out).features
    run_it(folder, encoder, out)
    assert tables_of(out) == before

    run_it(folder, encoder, tmp_path / "other", activation_eps=2.25)
    (out / "scores.parquet").write_bytes((tmp_path / "other" / "scores.parquet").read_bytes())
    with pytest.raises(StoreError, match=r"of a run with other settings than run.json says"):
        ScoreRun(out)
    run_it(folder, encoder, out)
    assert tables_of(out) == before


def test_results_of_another_version_are_written_again(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    before = (out / "scores.parquet").read_bytes()
    table = pq.read_table(out / "scores.parquet")
    header = {**table.schema.metadata, b"qscore_fast.version": b'"0.0.1"'}
    pq.write_table(table.replace_schema_metadata(header), out / "scores.parquet")
    assert ScoreRun(out).scores().num_rows == 24
    run_it(folder, encoder, out)
    assert (out / "scores.parquet").read_bytes() == before


def test_a_part_that_another_process_makes_is_not_removed(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    flip_a_byte(out / "parts" / "part-000000.parquet", 2)
    flip_a_byte(out / "parts" / "part-000001.parquet", 2)
    record = Store(out).record
    with Store.writing(out, record) as store, Store.writing(out, record) as other:
        assert other._locks is not None
        assert other._locks.acquire(1)
        assert store.remove_damaged() == [0]
    assert (out / "parts" / "part-000001.parquet").exists()
