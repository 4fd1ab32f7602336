"""What stored entries come to, natively and in NumPy, against loops over Python's numbers; and parts whose
entries cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qscore_fast as qf
from qscore_fast.scoring.part import (
    NON_FINITE,
    OK,
    DamagedPartError,
    Part,
    PartRows,
    part_schema,
)
from qscore_fast.scoring.stored_entries import counts_above, filled_levels, mask_words, row_scores

BACKENDS = ("native", "reference")
KEPT = 2.0


def part_of(rows: list[list[tuple[int, float]] | None], std: float, num_features: int) -> Part:
    """A part whose rows have these entries, ||h|| = 3 and this sigma; None is an image without a score."""
    filled = [entries or [] for entries in rows]
    flat = [entry for entries in filled for entry in entries]
    content = PartRows(
        sample_ids=[str(i) for i in range(len(rows))],
        labels=[None] * len(rows),
        status=[NON_FINITE if entries is None else OK for entries in rows],
        stats=np.tile(np.array([0.1, std, 2.0, 3.0], np.float32), (len(rows), 1)),
        lengths=np.array([len(entries) for entries in filled], np.int32),
        feature=np.array([f for f, _ in flat], np.uint16 if num_features <= 2**16 else np.uint32),
        value=np.array([v for _, v in flat], np.float32),
    )
    return Part(content.table(part_schema(num_features)), KEPT)


def z_of(part: Part, value: float, std: float) -> float:
    """In float64, and above ``KEPT``, as the set that was stored says."""
    scale = 3.0 / float(np.float32(std))
    return max(scale * abs(float(np.float32(value))), math.nextafter(KEPT, math.inf))


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[list[tuple[int, float]] | None], float, int]:
    num_features = draw(st.sampled_from([1, 7, 2048, 70_000]))
    std = draw(st.sampled_from([0.03, 0.5]))
    # Distances of z = 2, 2.5, 3 and 4 among them, where strictly above is decided.
    edge = [z * std / 3 for z in (2.0, 2.5, 3.0, 4.0)]
    value = st.one_of(st.sampled_from(edge), st.floats(2**-10, 1, width=32))
    signed = st.builds(lambda v, sign: v * sign, value, st.sampled_from([1, -1]))
    features = st.lists(
        st.one_of(st.integers(0, num_features - 1), st.just(num_features - 1)),
        max_size=9,
        unique=True,
    ).map(sorted)
    entries = features.flatmap(
        lambda f: st.lists(signed, min_size=len(f), max_size=len(f)).map(
            lambda v: list(zip(f, v, strict=True))
        )
    )
    rows = draw(st.lists(st.one_of(entries, entries, st.none()), max_size=8))
    return rows, std, num_features


@settings(deadline=None)
@given(parts(), st.sampled_from([KEPT, 2.5, 3.0, 4.0]), st.integers(0, 2**31))
def test_scores(
    made: tuple[list[list[tuple[int, float]] | None], float, int], eps: float, seed: int
) -> None:
    rows, std, num_features = made
    part = part_of(rows, std, num_features)
    mask = np.random.default_rng(seed).random(num_features) < 0.6
    scored = [entries for entries in rows if entries is not None]
    own = [z_of(part, v, std) for entries in scored for _, v in entries]
    if own and seed % 2:
        eps = own[seed % len(own)]  # an entry's z itself, which is not above it
    highly = [[(f, v) for f, v in entries if z_of(part, v, std) > eps] for entries in scored]
    active = [[abs(float(np.float32(v))) for f, v in entries if mask[f]] for entries in highly]
    results = []
    for backend in BACKENDS:
        with qf.use_backend(backend):
            q, num_active, num_highly_active = row_scores(part, mask, eps)
        assert num_active.tolist() == [len(distances) for distances in active]
        assert num_highly_active.tolist() == [len(entries) for entries in highly]
        expected = [math.fsum(d) / len(d) if d else 0.0 for d in active]
        np.testing.assert_allclose(q, expected, rtol=1e-7)
        results.append(q.tobytes())
    assert results[0] == results[1]


@settings(deadline=None)
@given(parts(), st.lists(st.floats(KEPT, 9), max_size=32), st.integers(0, 2**31))
def test_counts_and_filled_levels(
    made: tuple[list[list[tuple[int, float]] | None], float, int], more: list[float], seed: int
) -> None:
    rows, std, num_features = made
    part = part_of(rows, std, num_features)
    # Some of the entries' own z, and their neighbours on both sides, among them.
    own = [z_of(part, v, std) for entries in rows for _, v in entries or []][:10]
    edges = [e for z in own for e in (z, np.nextafter(z, 99), max(KEPT, np.nextafter(z, 0)))]
    thresholds = np.unique(np.array([KEPT, 3.0, *more, *edges]))
    masks = np.random.default_rng(seed).random((len(thresholds), num_features)) < 0.4
    counts = np.zeros((len(thresholds), num_features), np.int64)
    filled = np.zeros(len(thresholds), np.int64)
    for entries in rows:
        for level, threshold in enumerate(thresholds):
            above = [f for f, v in entries or [] if z_of(part, v, std) > threshold]
            counts[level, above] += 1
            filled[level] += any(masks[level, f] for f in above)
    for backend in BACKENDS:
        with qf.use_backend(backend):
            assert np.array_equal(counts_above(part, thresholds, num_features), counts)
            assert np.array_equal(filled_levels(part, thresholds, mask_words(masks)), filled)


def test_sixty_four_thresholds() -> None:
    thresholds = np.linspace(2.0, 8.3, 64)
    part = part_of([[(0, 0.99)], [(1, 0.5)], []], 0.3, 2)  # z = 9.9, above all of them, and 5
    masks = np.ones((64, 2), dtype=bool)
    for backend in BACKENDS:
        with qf.use_backend(backend):
            filled = filled_levels(part, thresholds, mask_words(masks))
        assert filled.tolist() == [1 + (t < 5.0 - 1e-6) for t in thresholds]


def lists_with(
    table: pa.Table, name: str, change: Callable[[list], object], kind: pa.DataType
) -> pa.Table:
    lists = table[name].to_pylist()
    change(lists)
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(lists, kind))


INDICES, VALUES = (part_schema(7).field(name).type for name in ("feature", "value"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: lists_with(t, "feature", lambda f: f[1].__setitem__(-1, 7), INDICES),
            "names feature 7 of 7",
        ),
        (lambda t: lists_with(t, "value", lambda v: v[1].pop(), VALUES), "do not fit together"),
        (
            lambda t: lists_with(t, "value", lambda v: v.__setitem__(0, None), VALUES),
            "do not fit together",
        ),
        (lambda t: t.drop_columns(["status"]), "has no column status"),
        (lambda t: t.drop_columns(["value"]), "has no column value"),
        (
            # As many lists as scored images, but not theirs.
            lambda t: t.set_column(
                t.schema.get_field_index("status"), "status", pa.array([NON_FINITE, OK, OK])
            ),
            "do not fit together",
        ),
        (
            lambda t: lists_with(t, "value", lambda v: None, pa.list_(pa.float16())),
            "column value is list<element: halffloat>",
        ),
        (
            lambda t: lists_with(t, "feature", lambda f: None, pa.list_(pa.uint64())),
            "column feature is list<element: uint64>",
        ),
    ],
)
def test_entries_that_cannot_be_are_a_damaged_part(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], reason: str
) -> None:
    """Whatever the checksums of its pages say: the kernels trust what is read."""
    table = part_of([[(0, 0.5)], [(1, 0.5), (6, 0.4)], None], 0.1, 7).table
    path = tmp_path / "part-000000.parquet"
    pq.write_table(table, path)
    assert Part.read(path, KEPT, 7).num_ok == 2
    pq.write_table(change(table), path)
    with pytest.raises(DamagedPartError, match=reason) as caught:
        Part.read(path, KEPT, 7)
    assert str(path) in str(caught.value)
