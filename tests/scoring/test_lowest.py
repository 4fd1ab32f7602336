"""``ScoreRun.lowest`` against a sort of the whole table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qscore_fast.errors import StoreError
from qscore_fast.scoring.scores_table import SCORES, lowest_scores


def scores_with(q: list[float]) -> pa.Table:
    numbers = {name: np.arange(len(q)) for name in SCORES.names if name not in ("q_score", "label")}
    numbers |= {"q_score": q, "sample_id": [f"s{row}" for row in range(len(q))]}
    columns = [pa.array(numbers.get(f.name, [None] * len(q))).cast(f.type) for f in SCORES]
    return pa.Table.from_arrays(columns, schema=SCORES)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40), st.integers(0, 45))
def test_lowest_is_the_head_of_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory, q: list[float], n: int
) -> None:
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    table = scores_with(q)
    pq.write_table(table, path, row_group_size=7)
    order = sorted(range(len(q)), key=lambda row: (q[row], row))[:n]
    assert lowest_scores(path, n).to_pylist() == table.take(pa.array(order, pa.int64())).to_pylist()


def test_lowest_of_a_damaged_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(StoreError, match="damaged"):
        lowest_scores(path, 3)
