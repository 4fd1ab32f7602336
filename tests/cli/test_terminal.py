"""Lines for a log, a bar for a terminal, and text that cannot do harm there."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from qscore_fast.cli import terminal
from qscore_fast.cli.terminal import ProgressPrinter, escaped, summary_lines
from qscore_fast.scoring import Progress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 猫", "plain ünï 猫"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[2J", r"\x1b[2J"),
        ("caf\udce9", r"caf\udce9"),
        ("\u202ereversed", r"\u202ereversed"),
    ],
)
def test_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown
    escaped(text).encode("utf-8")


def test_lines_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    printer = ProgressPrinter()
    for second, done in enumerate((200, 250, 300, 400, 500, 600, 700, 1000)):
        now[0] = 100.0 + second
        printer(Progress(done=done, total=1000, found=200, failed=second))
    printer.close()
    assert capsys.readouterr().err.splitlines() == [
        "qscore: 200 of 1,000 images are in finished parts: going on",
        "qscore: 800 images to do",
        "qscore: 600 of 1,000 images, 5 bad, 80 images/s, 5 s left",
    ]


def test_a_second_run_begins_anew_and_a_complete_one_is_silent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = ProgressPrinter()
    for done in (0, 10):
        printer(Progress(done=done, total=10, found=0, failed=0))
    for done in (0, 20):
        printer(Progress(done=done, total=20, found=0, failed=0))
    printer(Progress(done=30, total=30, found=30, failed=0))
    assert capsys.readouterr().err.splitlines() == [
        "qscore: 10 images to do",
        "qscore: 20 images to do",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    printer = ProgressPrinter()
    for done in (0, 400, 1000):
        printer(Progress(done=done, total=1000, found=0, failed=done // 400))
    printer.close()
    last = screen.getvalue().strip().split("\r")[-1]
    assert "1000/1000" in last
    assert "2 bad" in last


def test_a_log_without_a_known_total(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("qscore_fast.cli.terminal.time.monotonic", lambda: float(next(now)))
    printer = ProgressPrinter()
    for done in (100, 400, 1000):
        printer(Progress(done=done, total=None, found=100, failed=done // 400))
    printer.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "qscore: 100 images are in finished parts: going on"
    assert lines[1] == "qscore: scoring what the source holds"
    assert all("images/s" in line and " of " not in line for line in lines[2:])
    assert lines[-1].startswith("qscore: 1,000 images, 2 bad, ")


def summary(**changes: Any) -> dict[str, Any]:
    return {
        "complete": True,
        "num_images": 3000,
        "num_scored": 2999,
        "num_failed": 1,
        "source_notes": {"files of other kinds ignored": 4, "folders could not be read": 2},
        "encoder": "demo",
        "system": None,
        "num_features": 512,
        "num_discriminative": 200,
        "eps": 3.5,
        "lower": 50.0,
        "upper": 95.0,
        "two_sided": False,
        "empty_fraction": 0.0125,
        "q_score": dict.fromkeys(("min", "q05", "median", "q95", "max"), 0.25),
        "notes": ["mind the gap"],
        "files": {"scores.parquet": "out/scores.parquet", "errors.parquet": "out/errors.parquet"},
        "session": {
            "device": "cpu",
            "backend": "native (avx2)",
            "parts_found": 3,
            "images_per_second": 1500.0,
            "seconds": 7500.0,
            "workers": 2,
            "encoders": 1,
            "nodes": 1,
            "parts_left": 0,
            "images_done": 3000,
            "images_by_others": 0,
            "images_per_second_by_stage": {"decode": 96.2, "encode": 410.0, "write": 90000.0},
            "bottleneck": "decode",
        },
        **changes,
    }


def test_summary_lines() -> None:
    text = "\n".join(summary_lines(summary()))
    for words in (
        "3,000, 2,999 scored, 1 bad image left out, with the reasons in out/errors.parquet",
        "; 4 files of other kinds ignored; 2 folders could not be read",
        "200 of 512 are discriminative at eps = 3.5 (percentiles 50 to 95)",
        "1.25 % of the images have no active",
        "1,500 images/s, 2 h 5 min",
        "decode-bound: 2 workers give 96 images/s, the encoder could take 410",
        "native (avx2) on cpu",
        "note        mind the gap",
    ):
        assert words in text
    assert "two-sided" not in text
    assert "(percentiles 50 to 95, two-sided)" in "\n".join(summary_lines(summary(two_sided=True)))
    idle = {**summary()["session"], "images_per_second": None}
    assert "all 3 parts were there: nothing to do" in "\n".join(
        summary_lines(summary(session=idle))
    )


def test_durations() -> None:
    shown = [terminal._duration(s) for s in (0.4, 59, 61, 3500, 3600, 90000, float("inf"))]
    assert shown == ["0 s", "59 s", "1 min", "58 min", "1 h 0 min", "25 h 0 min", "unknown time"]


def test_each_stage_can_be_the_bottleneck() -> None:
    rates = {"decode": 300.0, "encode": 40.0, "write": 500.0}
    session = {
        **summary()["session"], "workers": 1, "images_per_second_by_stage": rates, "bottleneck": "encode",
    }  # fmt: skip
    text = "\n".join(summary_lines(summary(session=session)))
    assert "encode-bound: the encoder takes 40 images/s, 1 worker could give 300" in text
    rates["write"], session["bottleneck"] = 7.0, "write"
    text = "\n".join(summary_lines(summary(session=session)))
    assert (
        "write-bound: the disk takes 7 images/s, 1 worker could give 300, the encoder could take 40"
        in text
    )


def test_a_shard_that_ends_before_others() -> None:
    session = {**summary()["session"], "parts_left": 12}
    text = "\n".join(summary_lines({"out": "out", "complete": False, "session": session}))
    assert "1,500 images/s" in text
    assert "12 parts of other shards are missing" in text
