"""Too many bad images stop a run while a unit runs, and the user sees which ones and why."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sample_data import save_images
from small_run import parts_of

from qscore_fast.errors import ErrorRateError
from qscore_fast.images import FolderSource
from qscore_fast.scoring import Progress, score
from qscore_fast.scoring.error_rate import MOST_REASONS, ErrorTally


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """40 images that are good, then 1,000 that are not."""
    folder = save_images(tmp_path / "source", 40)
    (folder / "zebra").mkdir()
    for number in range(1000):
        (folder / "zebra" / f"{number:04d}.png").write_bytes(b"junk" if number % 2 else b"")
    return folder


@pytest.mark.parametrize("unit_size", [20, 3000])
def test_it_is_judged_while_a_unit_runs(
    tmp_path: Path, source: Path, checkpoint: Path, unit_size: int
) -> None:
    out = tmp_path / "out"
    states: list[Progress] = []

    def run(limit: float | None) -> object:
        return score(
            FolderSource(source), checkpoint, out, unit_size=unit_size, batch_size=16, workers=1,
            device="cpu", max_error_rate=limit, progress=states.append,
        )  # fmt: skip

    with pytest.raises(ErrorRateError) as raised:
        run(0.1)
    assert 100 <= states[-1].done <= 100 + 16
    text = str(raised.value)
    assert f"{states[-1].failed} of {states[-1].done} images are bad" in text
    assert "times: the file is empty, as in zebra/0000.png" in text
    assert "as in zebra/0001.png" in text and "errors.parquet lists" in text
    assert len(parts_of(out)) == (0 if unit_size == 3000 else (states[-1].done - 1) // 20)
    known = pq.read_table(out / "errors.parquet").to_pylist()
    assert [row["sample_id"] for row in known] == [
        f"zebra/{number:04d}.png" for number in range(states[-1].failed)
    ]
    assert {row["stage"] for row in known} == {"decode"}
    # What was known is no result: the run goes on, and ends with all of them.
    run(None)
    assert pq.read_metadata(out / "errors.parquet").num_rows == 1000
    assert pq.read_metadata(out / "scores.parquet").num_rows == 40


def test_a_run_within_the_limit_ends_well(tmp_path: Path, source: Path, checkpoint: Path) -> None:
    run = score(
        source, checkpoint, tmp_path / "out", batch_size=16, device="cpu", max_error_rate=0.97
    )
    assert run.summary["num_failed"] == 1000


def test_reasons_that_are_all_different_do_not_fill_the_memory(tmp_path: Path) -> None:
    tally = ErrorTally()
    for number in range(5000):
        error = f"reason {number}" if number % 5 else "the usual one"
        tally.add([{"sample_id": f"{number}.png", "stage": "decode", "error": error}])
    assert tally.failed == 5000
    assert len(tally._reasons) == MOST_REASONS
    with pytest.raises(ErrorRateError, match=r"5,000 of 6,000 images are bad, 83\.3 %") as raised:
        tally.check(6000, 0.5, tmp_path / "errors.parquet")
    assert "(1,000 times: the usual one, as in 0.png; 1 times: reason 1, as in 1.png" in str(
        raised.value
    )
    tally.check(6000, 0.9, tmp_path / "errors.parquet")
    tally.check(6000, None, tmp_path / "errors.parquet")
