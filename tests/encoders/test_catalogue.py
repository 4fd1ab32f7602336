"""The catalogue, the documents and the tests name the same kinds of files."""

from __future__ import annotations

from pathlib import Path

from published import ROWS as WRITTEN

from qscore_fast.encoders import catalogue
from qscore_fast.encoders.inspection import inspect_checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "encoders.md"


def test_every_kind_is_written_by_the_test_and_the_other_way_round() -> None:
    tested = [test for row in catalogue.ROWS for test in row.test]
    assert len(tested) == len(set(tested))
    assert set(tested) == {row.id for row in WRITTEN}
    assert all(row.test for row in catalogue.ROWS)


def test_a_file_is_recognised_as_what_the_catalogue_says(tmp_path: Path) -> None:
    layouts = {test: row.layout for row in catalogue.ROWS for test in row.test}
    systems = {test: row.system for row in catalogue.ROWS for test in row.test}
    sample = [row for row in WRITTEN if row.encoder][::5]
    for row in sample:
        said = inspect_checkpoint(row.write(tmp_path / row.id).path)
        assert said.layout == layouts[row.id]
        assert said.system is None or said.system in systems[row.id]


def test_the_document_has_the_catalogue() -> None:
    text = DOCUMENT.read_text()
    _, _, rest = text.partition(catalogue.BEGIN)
    table, _, _ = rest.partition(catalogue.END)
    assert table.strip() == catalogue.catalogue_markdown(), (
        "python -m qscore_fast.encoders.catalogue prints the table of docs/encoders.md"
    )


def test_the_list_names_every_source_and_system() -> None:
    text = "\n".join(catalogue.catalogue_lines())
    for row in catalogue.ROWS:
        assert row.source in text
        assert row.titles in text
        assert row.recognised is None or row.recognised.refuse or row.layout in text
