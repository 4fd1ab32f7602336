"""``embeddings="parquet"``: the representations of ``npy``, with their names, read by other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from qscore_fast.errors import StoreError
from qscore_fast.scoring import ScoreRun, score

UNIT = 50


def run_with(embeddings: Any, images: Path, checkpoint: Path, out: Path, **more: Any) -> ScoreRun:
    settings = {"unit_size": UNIT, "batch_size": 25, "device": "cpu", **more}
    return score(images, checkpoint, out, embeddings=embeddings, **settings)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, images: Path, checkpoint: Path) -> ScoreRun:
    return run_with("npy", images, checkpoint, tmp_path_factory.mktemp("npy") / "run")


@pytest.fixture
def run(tmp_path: Path, images: Path, checkpoint: Path) -> ScoreRun:
    (images / "broken.png").write_bytes(b"no image")
    try:
        return run_with("parquet", images, checkpoint, tmp_path / "run")
    finally:
        (images / "broken.png").unlink()


def test_the_same_representations_as_npy(run: ScoreRun, mapped: ScoreRun) -> None:
    ids = run.scores()["sample_id"].to_pylist()
    assert ids == mapped.scores()["sample_id"].to_pylist()
    assert run.embeddings().dtype == np.float16
    # Batches end elsewhere behind the broken image, and float16 rounds.
    np.testing.assert_allclose(run.embeddings(), mapped.embeddings(), rtol=2e-3, atol=1e-4)


def test_another_tool_reads_them_as_one_table(run: ScoreRun) -> None:
    files = str(run.path / "embeddings" / "*.parquet")
    found = duckdb.execute(
        "select sample_id, embedding, l2 from read_parquet(?) e join read_parquet(?) s using (sample_id)",
        [files, str(run.path / "scores.parquet")],
    ).fetchall()
    assert {row[0] for row in found} == set(run.scores()["sample_id"].to_pylist())
    for _, vector, l2 in found:
        assert np.linalg.norm(np.array(vector, np.float64)) == pytest.approx(l2, rel=2e-3)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_damage_is_noticed(run: ScoreRun, images: Path, checkpoint: Path, damage: str) -> None:
    path = run.path / "embeddings" / "part-000001.parquet"
    whole = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 0xFF]) + whole[2001:])
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"part-000001\.parquet is missing or damaged"):
        run.embeddings()
    if damage == "flipped":
        return  # the footer is whole: see test_embeddings_damage
    (images / "broken.png").write_bytes(b"no image")
    try:
        again = run_with("parquet", images, checkpoint, run.path)
    finally:
        (images / "broken.png").unlink()
    assert again.session is not None and again.session.parts_done == 1
    assert path.read_bytes() == whole


def test_overwriting_leaves_none_behind(run: ScoreRun, images: Path, checkpoint: Path) -> None:
    run_with("none", images, checkpoint, run.path, overwrite=True)
    assert not (run.path / "embeddings").exists()
