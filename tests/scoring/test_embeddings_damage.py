"""A flipped byte in the embeddings of a part is noticed where other damage of the part is."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import bytes_of

import qscore_fast as qf
from qscore_fast.errors import StoreError
from qscore_fast.scoring import ScoreRun, score
from qscore_fast.scoring.part import DamagedPartError

UNIT = 50


def run_with(kind: Any, images: Path, checkpoint: Path, out: Path, **more: Any) -> ScoreRun:
    settings = {"unit_size": UNIT, "batch_size": 25, "device": "cpu", "embeddings": kind, **more}
    return score(images, checkpoint, out, **settings)


def embeddings_file(out: Path, kind: str) -> Path:
    return out / ("embeddings" if kind == "parquet" else "parts") / f"part-000001.{kind}"


def flip(path: Path, place: int) -> bytes:
    whole = path.read_bytes()
    place %= len(whole)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    return whole


def test_the_file_is_numpys_own_and_its_checksum_that_of_the_bytes(
    tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    run = run_with("npy", images, checkpoint, tmp_path / "run")
    path = embeddings_file(run.path, "npy")
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    assert rows.dtype == np.float16 and isinstance(rows, np.memmap)
    np.testing.assert_array_equal(rows, run.embeddings()[UNIT : 2 * UNIT])
    np.save(tmp_path / "again.npy", rows)
    assert path.read_bytes() == (tmp_path / "again.npy").read_bytes()
    notes = path.with_suffix(".json").read_text()
    assert f'"embeddings_crc32": {zlib.crc32(path.read_bytes())},' in notes


@pytest.mark.parametrize("place", [-1, 5000, 60])
def test_a_flipped_byte_is_an_error_that_names_the_file(
    tmp_path: Path, images: Path, checkpoint: Path, place: int
) -> None:
    """In the rows, and in the header, where 'descr' or the shape could be another."""
    run = run_with("npy", images, checkpoint, tmp_path / "run")
    before = run.embeddings()
    whole = flip(embeddings_file(run.path, "npy"), place)
    with pytest.raises(StoreError, match=r"part-000001\.npy is missing or damaged .* delete it"):
        ScoreRun(run.path).embeddings()
    embeddings_file(run.path, "npy").write_bytes(whole)
    np.testing.assert_array_equal(ScoreRun(run.path).embeddings(), before)


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_scoring_makes_the_part_again_before_it_writes_results(
    tmp_path: Path, images: Path, checkpoint: Path, kind: str
) -> None:
    run = run_with(kind, images, checkpoint, tmp_path / "run")
    before = bytes_of(run.path)
    whole = flip(embeddings_file(run.path, kind), 5000)
    # The same results are there already, so that no part is read.
    assert run_with(kind, images, checkpoint, run.path).session.parts_done == 0
    (run.path / "scores.parquet").unlink()
    with pytest.warns(RuntimeWarning, match=r"part-000001 turned out damaged"):
        again = run_with(kind, images, checkpoint, run.path)
    assert again.session.parts_done == 1
    assert embeddings_file(run.path, kind).read_bytes() == whole
    assert bytes_of(run.path) == before


def test_what_has_no_images_says_so_or_does_not_ask(
    tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    run = run_with("npy", images, checkpoint, tmp_path / "run")
    flip(embeddings_file(run.path, "npy"), 5000)
    qf.rescore(run.path, eps=3.0)  # needs none
    with pytest.raises(DamagedPartError, match=r"part-000001\.npy"):
        list(ScoreRun(run.path).iter_embeddings())


def test_parts_of_before_have_no_checksum_and_are_read(
    tmp_path: Path, images: Path, checkpoint: Path
) -> None:
    run = run_with("npy", images, checkpoint, tmp_path / "run")
    before = run.embeddings()
    notes = embeddings_file(run.path, "npy").with_suffix(".json")
    lines = [line for line in notes.read_text().splitlines() if "crc32" not in line]
    notes.write_text("\n".join(lines))
    assert run_with("npy", images, checkpoint, run.path).session.parts_done == 0
    np.testing.assert_array_equal(ScoreRun(run.path).embeddings(), before)
