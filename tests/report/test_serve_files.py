"""What the server keeps: its index, made again when it must be, and the latest pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from full_report import FullReport

import qscore_fast as qf
from qscore_fast.errors import ImageError, StoreError
from qscore_fast.report.serve.picture_cache import PictureCache
from qscore_fast.report.serve.score_index import Query, ScoreIndex
from qscore_fast.report.source_images import SourceImages
from qscore_fast.scoring.store import Store


def names(scores: Path, query: Query | None = None) -> list[str]:
    index = ScoreIndex(scores)
    try:
        return [image["sample_id"] for image in index.page(query or Query(), 0, 1000)]
    finally:
        index.close()


def test_the_index_follows_the_scores(full: FullReport, tmp_path: Path) -> None:
    run = shutil.copytree(full.run.path, tmp_path / "run", ignore=shutil.ignore_patterns(".serve*"))
    scores, file = run / "scores.parquet", run / ".serve-index.duckdb"
    first = names(scores)
    assert sorted(first) == sorted(full.run.scores()["sample_id"].to_pylist())
    made = file.stat().st_mtime_ns
    assert names(scores) == first
    assert file.stat().st_mtime_ns == made

    other = qf.rescore(run, eps=2.5).scores()
    expected = sorted(range(len(other)), key=lambda row: (other["q_score"][row].as_py(), row))
    assert names(scores) == [other["sample_id"][row].as_py() for row in expected]
    file.write_bytes(b"no database")
    assert len(names(scores)) == len(first)
    assert not list(run.glob(".tmp-*"))
    with pytest.raises(StoreError, match=r"scores\.parquet"):
        ScoreIndex(tmp_path / "scores.parquet")


def test_a_filter_is_looked_through_in_windows(
    full: FullReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qscore_fast.report.serve import score_index

    scores = full.run.path / "scores.parquet"
    query = Query(sort="norm", least=0.18, most=0.24)
    whole = names(scores, query)
    monkeypatch.setattr(score_index, "SMALLEST_WINDOW", 3)
    monkeypatch.setattr(score_index, "LARGEST_WINDOW", 16)
    monkeypatch.setattr(score_index, "MOST_MATCHES", 5)
    assert names(scores, query) == whole
    index = ScoreIndex(scores)
    for descending in (False, True):
        expected = whole[::-1] if descending else whole
        other = Query(sort="norm", descending=descending, least=0.18, most=0.24)
        for offset in range(0, len(whole) + 2, 7):
            page = [image["sample_id"] for image in index.page(other, offset, 11)]
            assert page == expected[offset : offset + 11]
    frequent = Query(sort="name", descending=True, search="png")  # more than are kept
    found = [image["sample_id"] for image in index.page(frequent, 0, 1000)]
    assert found == sorted(found, key=str.encode, reverse=True)
    assert len(found) == index.count(frequent) == index.num_rows
    index.close()


def test_pictures_are_kept_up_to_a_limit(full: FullReport) -> None:
    ids = full.run.scores()["sample_id"].to_pylist()
    images = SourceImages(Store(full.run.path))
    large = PictureCache(images)
    sizes = [len(large.picture(row, ids[row])) for row in range(30)]
    assert large.size == sum(sizes)
    assert large.picture(3, ids[3]) is large.picture(3, ids[3])
    small = PictureCache(images, limit=3 * max(sizes))
    for row in range(30):
        assert small.picture(row, ids[row]) == large.picture(row, ids[row])
        assert small.size <= 3 * max(sizes)
    with pytest.raises(ImageError, match="cannot be opened"):
        large.picture(40, "no such file.png")
