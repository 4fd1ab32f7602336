"""Progress within units: each image is told of once, whatever its unit goes through."""

from __future__ import annotations

from qscore_fast.scoring.unit_reports import UnitReports
from qscore_fast.scoring.unit_rows import Failure


def failures(*names: str) -> list[Failure]:
    return [{"sample_id": name, "stage": "decode", "error": "cut short"} for name in names]


def test_a_unit_that_is_lost_and_begun_again_counts_once() -> None:
    heard: list[tuple[int, list[str]]] = []
    reports = UnitReports(lambda done, bad: heard.append((done, [f["sample_id"] for f in bad])))
    reports.begin(7)
    reports.add(7, 4, failures("a"))
    reports.begin(3)
    reports.add(7, 4, failures("b"))
    reports.add(3, 2, [])
    reports.begin(7)  # its actor died
    reports.add(7, 5, failures("a"))
    reports.add(7, 5, failures("b", "c"))
    reports.finish(3, 2, [])
    reports.finish(7, 12, failures("a", "b", "c", "d"))
    assert heard == [(4, ["a"]), (4, ["b"]), (2, []), (2, ["c"]), (2, ["d"])]
