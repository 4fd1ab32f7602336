"""``python -m benchmarks.pipeline`` on a few images, a small network: what it compares is the same work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.pipeline import __main__ as command
from benchmarks.pipeline import plain_script, rivals, stages


def small_network() -> nn.Module:
    """Takes the ResNet-50's place: 64 sparse features."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 64, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers).eval()


def test_a_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(function: Callable[..., Any], *arguments: Any, **_: Any) -> dict[str, Any]:
        return {"result": function(*arguments), "peak_bytes": 1}

    for module in (command, rivals, stages):
        monkeypatch.setattr(module, "measured", here)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # this process goes on
    monkeypatch.setattr(plain_script, "resnet50", small_network)
    monkeypatch.setattr(rivals, "timm_loop", lambda *_: 1.0)
    monkeypatch.setattr(rivals, "default_workers", lambda: 0)  # of the data loaders of others
    monkeypatch.setattr("qscore_fast.scoring.run_scoring.default_workers", lambda: 2)
    script = tmp_path / "inference.py"
    script.write_text("import sys; assert '--data-dir' in sys.argv; print(sys.argv)")
    arguments = ["--images", "12", "--rounds", "1", "--memory-images", "3"]
    arguments += ["--timm-script", str(script)]
    assert command.main([*arguments, "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.rglob("pipeline-*.json")
    found = json.loads(file.read_text())
    assert len(found["stages"]) == 6
    for row in found["stages"].values():
        slower = min(row["decode_only"], row["encode_only"])
        assert row["of_the_slower_stage"] == pytest.approx(row["pipeline"] / slower)
        assert 0 < row["write_share"] < 1
    # The plain script's scores, from its own loader, module and formula.
    assert found["rivals"]["largest_difference"] <= 1e-4
    assert set(found["rivals"]["times_as_fast"]) == {*rivals.RIVALS, rivals.TIMM_SCRIPT}
    assert str(file) in capsys.readouterr().out


def test_scores_that_differ_are_no_comparison() -> None:
    with pytest.raises(RuntimeError, match=r"the scores differ by 0.1, more than 0.0001"):
        rivals.check(0.1)
    with pytest.raises(RuntimeError):
        rivals.check(float("nan"))
