"""Files of correctness: what is read, how it is joined, what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure import Correctness

IDS = pa.array(["0001", "b", "c"])


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "sample_id,correct\nb,0\n0001,1\nc,1\n",
        "correct,sample_id\nfalse,b\ntrue,0001\nTrue,c\n",
        "sample_id,label,prediction\nb,3,4\n0001,3,3\nc,4,4.0\n",
        "sample_id,label,prediction\nb,cat,Cat\n0001,cat,cat\nc,dog,dog\n",
        "sample_id,label,prediction,correct\nb,x,x,0\n0001,x,y,1\nc,x,y,1\n",
    ],
)
def test_csv(tmp_path: Path, text: str) -> None:
    found = Correctness.read(write(tmp_path / "c.csv", text))
    assert found.sample_ids.to_pylist() == ["b", "0001", "c"]
    scored, rows = found.rows_of(IDS)
    assert found.correct[rows].tolist() == [True, False, True]
    assert scored.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([("00", "00"), ("01", "02"), ("09", "09")], [True, False, True]),
        ([("00", "0"), ("01", "2.0"), ("09", "9.0")], [True, False, True]),
        ([("3", "3.0"), ("3.50", "3.5"), ("-1", "1")], [True, True, False]),
        # Both are there: zeros in front are part of the names.
        ([("0", "00"), ("00", "00"), ("000", "0")], [False, True, False]),
        ([("n01", "n1"), ("1e3", "1000"), ("2.5.1", "2.5.10")], [False, False, False]),
    ],
)
def test_classes_are_text_and_numbers_by_their_value(
    tmp_path: Path, rows: list[tuple[str, str]], right: list[bool]
) -> None:
    text = "".join(f"{i},{label},{guess}\n" for i, (label, guess) in enumerate(rows))
    found = Correctness.read(write(tmp_path / "c.csv", "sample_id,label,prediction\n" + text))
    assert found.correct.tolist() == right
    assert found.labels is not None and found.labels.to_pylist() == [label for label, _ in rows]
    # The run's own labels, in the form of its folders, are the file's.
    known = pa.array([label for label, _ in rows])
    found.rows_of(found.sample_ids, known)
    frame = pd.DataFrame({"sample_id": ["a", "b"], "label": [3, 4], "prediction": [3.0, 3.0]})
    frame.to_parquet(tmp_path / "c.parquet")
    found = Correctness.read(tmp_path / "c.parquet")
    assert found.correct.tolist() == [True, False]
    found.rows_of(pa.array(["a", "b"]), pa.array(["03", "04"]))
    with pytest.raises(SettingsError, match="1 labels of .* are not the run's: 'b' is '4' there"):
        found.rows_of(pa.array(["a", "b"]), pa.array(["03", "05"]))


def test_parquet_of_pandas(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "sample_id": pd.Categorical(["c", "0001", "b"]), "correct": [True, True, False],
        "confidence": [0.5, 0.25, 1.0], "rank": [1, 2, 3],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "c.parquet")
    found = Correctness.read(tmp_path / "c.parquet", ["confidence", "rank"])
    _, rows = found.rows_of(IDS)
    assert found.correct[rows].tolist() == [True, False, True]
    assert found.columns["confidence"][rows].tolist() == [0.25, 1.0, 0.5]
    assert found.columns["rank"].dtype == float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample_id,correct\nb,2\n", "correct of 'b' in .* is 2: give"),
        ("sample_id,correct\nb,yes\n", "is 'yes'"),
        ("sample_id,correct\nb,\nc,1\n", "1 rows without correct, the first is 'b'"),
        ("sample_id,correct\nb,1\nb,1\nc,0\n", "1 ids more than once, such as 'b'"),
        ("sample_id,correct\n,1\nc,0\n", "1 rows without a sample_id"),
        ("sample_id,correct\n", "has no rows"),
        ("id,correct\nb,1\n", "has the columns id, correct: sample_id is missing"),
        ("sample_id,label\nb,1\n", "sample_id, label and prediction"),
        ("sample_id,label,prediction\nb,1,\nc,1,1\n", "without prediction, the first is 'b'"),
        ("sample_id,correct\nb,1,2\n", "cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Correctness.read(write(tmp_path / "c.csv", text))


def test_bad_paths_and_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", "sample_id,correct,word,gap\nb,1,x,\nc,0,y,1\n")
    for name, columns, message in (
        (tmp_path / "none.csv", (), "cannot be read"),
        (write(tmp_path / "bad.parquet", "x"), (), "cannot be read"),
        (tmp_path / "c.txt", (), "neither .parquet nor .csv"),
        (path, ("msp",), "msp is missing"),
        (path, ("word",), "word of .* is string"),
        (path, ("gap",), "1 rows without gap"),
    ):
        with pytest.raises(SettingsError, match=message):
            Correctness.read(name, columns)


def test_ids_that_do_not_match(tmp_path: Path) -> None:
    found = Correctness.read(write(tmp_path / "c.csv", "sample_id,correct\nb,1\n0001,0\nx,1\n"))
    with pytest.raises(
        SettingsError, match=r"1 of 3 scored samples are missing in .*, such as 'c'"
    ):
        found.rows_of(IDS)
    with pytest.raises(SettingsError, match=r"1 samples of .* are not in the run, such as 'x'"):
        found.rows_of(IDS[:2])
    scored, rows = found.rows_of(IDS[:2], failed={"x"})
    assert (scored.tolist(), rows.tolist()) == ([0, 1], [1, 0])
    scored, rows = found.rows_of(IDS, subset=True)
    assert (scored.tolist(), rows.tolist()) == ([0, 1], [1, 0])
    for subset in (True, False):
        with pytest.raises(SettingsError, match=r"no sample_id of .* is one of the run's"):
            found.rows_of(pa.array(["p", "q"]), subset=subset)


def test_labels_that_do_not_match(tmp_path: Path) -> None:
    text = "sample_id,label,prediction\n0001,cat,cat\nb,dog,cat\nc,owl,owl\n"
    found = Correctness.read(write(tmp_path / "c.csv", text))
    with pytest.raises(SettingsError, match=r"1 labels of .*: 'b' is 'dog' there and 'cat' in the"):
        found.rows_of(IDS, pa.array(["cat", "cat", None]))
    assert len(found.rows_of(IDS, pa.array(["cat", "dog", None]))[0]) == 3
    numbers = write(tmp_path / "n.csv", "sample_id,label,prediction\n0001,1,1\nb,2,1\nc,3,3\n")
    assert len(Correctness.read(numbers).rows_of(IDS, pa.array(["1", "2", "3"]))[0]) == 3
