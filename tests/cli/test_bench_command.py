"""``qscore bench``: a quick run on small matrices, and what one can get wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from qscore_fast.benchmarks import plans, suite, sweeps

from qscore_fast.cli import main


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plans, "QUICK", (700, 64))
    monkeypatch.setattr(plans, "EVERYTHING", ("eager", "numpy"))
    monkeypatch.setattr(sweeps, "CPU_BYTES", 1 << 20)
    features = suite.make_features
    monkeypatch.setattr(suite, "make_features", lambda n, *rest: features(min(n, 700), *rest))
    monkeypatch.chdir(tmp_path)


def test_table_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["bench", "--device", "cpu", "--quick", "--dtypes", "float32", "--threads", "1"]) == 0
    )
    out, err = capsys.readouterr()
    (path,) = (tmp_path / "qscore-bench").glob("*/kernels-*.json")
    run = json.loads(path.read_text())
    assert run["environment"]["threads"] == 1
    assert run["environment"]["torch"] == torch.__version__
    assert run["quick"]
    assert {row["dtype"] for row in run["results"]} == {"float32"}
    assert ", 1 thread," in out
    for row in run["results"]:
        line = rf"{re.escape(row['operation'])} +{row['rows']} x {row['features']} +float32"
        assert re.search(line, out)
    assert str(path.relative_to(tmp_path)) in out
    assert "q_score forward" in err
    assert "float64" not in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--device", "cpu", "--quick", "--dtypes", "bfloat16", "--json"]) == 0
    out: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert out == json.loads(Path(out.pop("file")).read_text())
    assert list(out["sweeps"]) == ["bfloat16"]


def test_a_wrong_result_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {"operation": "q_score forward", "rows": 1, "features": 1, "dtype": "float32"}
    row = {**wrong, "keep_freed": False, "error": "the result differs"}
    monkeypatch.setattr(suite, "measure", lambda *_, **__: row)
    assert main(["bench", "--device", "cpu", "--quick", "--dtypes", "float32"]) == 2
    out, err = capsys.readouterr()
    assert "wrong" in out
    assert "the result differs" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--device", "tpu9"), "device is 'tpu9'"),
        (("--device", "meta"), "device is 'meta'; only cpu and cuda"),
        (("--device", "cuda:99"), "device is 'cuda:99' but torch sees"),
        (("--threads", "0"), "threads is 0"),
        (("--dtypes", "int8"), "--dtypes.*int8"),
    ],
)
def test_errors(
    arguments: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--quick", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(reason, err)
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["bench", "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    for word in ("--quick", "--threads", "bfloat16", "kernels-DATE.json"):
        assert word in text
