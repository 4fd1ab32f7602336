"""``python -m benchmarks.store`` on a small store: what it builds is a run, and what it writes is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import store


def test_a_small_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rows", "3000", "--features", "256", "--unit-size", "512"]
    assert store.main([*arguments, "--folder", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").rglob("*.json")
    found = json.loads(file.read_text())
    assert found["rows"] == 3000
    assert found["entries"] > 0
    assert str(file) in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # the store itself is gone
