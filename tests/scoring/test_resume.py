"""A run that is stopped, damaged or asked for again ends as one that was left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_tables import tables_of
from sample_data import save_checkpoint, save_images

from qscore_fast.encoders import Encoder, load_encoder
from qscore_fast.errors import QScoreError, StoreError
from qscore_fast.scoring import ScoreRun, discover, score
from qscore_fast.scoring.store import locked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 images and two that are bad."""
    folder = save_images(tmp_path_factory.mktemp("few"), 90)
    (folder / "bag" / "00000-bad.png").write_bytes(b"")
    (folder / "trouser" / "99999-bad.jpg").write_text("no image")
    return folder


def run_it(folder: Path, encoder: Encoder, out: Path, **settings: Any) -> ScoreRun:
    return score(
        folder, encoder, out,
        **{"unit_size": 20, "batch_size": 8, "embeddings": "npy", "workers": 2, **settings},
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, encoder: Encoder
) -> dict[str, Any]:
    """What a run holds that nothing happened to."""
    out = tmp_path_factory.mktemp("alone")
    run = run_it(folder, encoder, out)
    assert run.session is not None
    assert (run.session.parts_done, run.session.images_done) == (5, 92)
    return tables_of(out)


class Killed(BaseException):
    """Stands for the process ending here."""


def test_stopped_before_any_write_or_rename(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Five parts of three files, run.json, the listing, three results: 20 renames; stop at each in turn."""
    real, unlink = os.replace, Path.unlink
    for moment in range(1, 26):
        out = tmp_path / str(moment)
        renames = 0

        def stop(source: Any, target: Any, moment: int = moment) -> None:
            nonlocal renames
            renames += 1
            if renames == moment:
                raise Killed
            real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing
            try:
                run_it(folder, encoder, out)
                completed = True
            except Killed:
                completed = False
        assert Path.unlink is unlink
        run = run_it(folder, encoder, out)
        assert tables_of(out) == alone
        assert run.session is not None
        if completed:
            break
        assert run.session.parts_found + run.session.parts_done == 5
        assert run.session.parts_done < 5 or moment <= 5
    assert moment > 20


def test_a_complete_run_does_nothing(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any]
) -> None:
    run_it(folder, encoder, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    run = run_it(folder, encoder, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    assert run.session is not None
    assert (run.session.parts_found, run.session.parts_done) == (5, 0)
    assert tables_of(tmp_path) == alone


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF  # in the first data page
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("parts/part-000002.parquet", cut),
        ("parts/part-000002.parquet", Path.unlink),
        ("parts/part-000002.json", Path.unlink),
        ("parts/part-000002.json", lambda path: path.write_text("[")),
        ("parts/part-000002.npy", Path.unlink),
        ("parts/part-000002.npy", cut),
        ("features.npz", cut),
        ("scores.parquet", cut),
        ("scores.parquet", Path.unlink),
        ("errors.parquet", Path.unlink),
    ],
)
def test_what_is_damaged_is_done_again(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any],
    name: str, damage: Callable[[Path], object],
) -> None:  # fmt: skip
    run_it(folder, encoder, tmp_path)
    damage(tmp_path / name)
    run = run_it(folder, encoder, tmp_path)
    assert run.session is not None
    assert run.session.parts_done == name.startswith("parts/")
    assert tables_of(tmp_path) == alone


def test_damage_inside_a_part_is_noticed_and_named(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any]
) -> None:
    run_it(folder, encoder, tmp_path)
    part = tmp_path / "parts" / "part-000003.parquet"
    flip_a_byte(part)
    with pytest.raises(StoreError, match=r"part-000003.parquet is damaged .* delete it") as raised:
        discover(tmp_path, eps=3)
    assert "\n" not in str(raised.value)
    part.unlink()
    run_it(folder, encoder, tmp_path)
    assert tables_of(tmp_path) == alone


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"unit_size": 21}, "unit_size: 20 -> 21"),
        ({"activation_eps": 2.5}, "activation_eps: 2.0 -> 2.5"),
        ({"embeddings": "none"}, "embeddings: npy -> none"),
        ({"two_sided": True}, "two_sided: False -> True"),
        ({"max_pixels": 10**6}, "decoder.max_pixels: 178956970 -> 1000000"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any],
    settings: dict[str, Any], field: str,
) -> None:  # fmt: skip
    run_it(folder, encoder, tmp_path)
    with pytest.raises(StoreError) as raised:
        run_it(folder, encoder, tmp_path, **settings)
    assert f"other settings ({field})" in str(raised.value)
    assert "--overwrite" in str(raised.value)
    assert tables_of(tmp_path) == alone
    run = run_it(folder, encoder, tmp_path, **settings, overwrite=True)
    assert run.session is not None
    assert run.session.parts_done == 5


def test_a_record_from_before_two_sided_is_continued(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any]
) -> None:
    """It is a one-sided run, with the same key."""
    run_it(folder, encoder, tmp_path)
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["asked"].pop("two_sided") is False
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert ScoreRun(tmp_path).summary["two_sided"] is False
    discover(tmp_path)
    run = run_it(folder, encoder, tmp_path)
    assert run.session is not None
    assert run.session.parts_done == 0
    with pytest.raises(StoreError, match=r"two_sided: False -> True"):
        run_it(folder, encoder, tmp_path, two_sided=True)


def test_another_encoder_and_other_images_are_refused(
    tmp_path: Path, folder: Path, encoder: Encoder
) -> None:
    run_it(folder, encoder, tmp_path / "out")
    other = load_encoder(save_checkpoint(tmp_path / "e.pth", seed=1), device="cpu")
    with pytest.raises(StoreError, match=r"encoder.fingerprint: [0-9a-f]{12}\.\.\. -> "):
        run_it(folder, other, tmp_path / "out")
    with pytest.raises(StoreError, match=r"source.manifest_hash: .* source.num_images: 92 -> "):
        run_it(folder / "bag", encoder, tmp_path / "out")


def test_batch_size_and_workers_may_change(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    run = run_it(folder, encoder, tmp_path, batch_size=16, workers=1)
    assert run.session is not None
    assert run.session.parts_done == 0


def test_one_writer_at_a_time(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    with locked(tmp_path):
        with pytest.raises(StoreError, match="another qscore process"):
            run_it(folder, encoder, tmp_path)
        with pytest.raises(StoreError, match="another qscore process"):
            discover(tmp_path)
    run_it(folder, encoder, tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}'])
def test_a_damaged_record(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any], content: str
) -> None:
    run_it(folder, encoder, tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(StoreError, match="run.json .*--overwrite"):
        run_it(folder, encoder, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(StoreError, match="parts but no run.json"):
        run_it(folder, encoder, tmp_path)
    run_it(folder, encoder, tmp_path, overwrite=True)
    assert tables_of(tmp_path) == alone


def test_overwrite_leaves_other_files(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    run_it(folder, encoder, tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_incomplete_run_cannot_be_asked(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    (tmp_path / "parts" / "part-000001.parquet").unlink()
    with pytest.raises(StoreError, match=r"not complete \(4 of 5 parts\)"):
        discover(tmp_path)


def test_a_full_disk_is_one_clear_error(
    tmp_path: Path, folder: Path, encoder: Encoder, alone: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(QScoreError, match=r"cannot write .*listing.txt.zst: No space left"):
            run_it(folder, encoder, tmp_path)
    run_it(folder, encoder, tmp_path)
    assert tables_of(tmp_path) == alone


def test_timings_and_counts_of_a_part(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    run_it(folder, encoder, tmp_path)
    notes = json.loads((tmp_path / "parts" / "part-000001.json").read_text())
    assert (notes["unit"], notes["num_images"], notes["num_scored"]) == (1, 20, 20)
    assert set(notes["seconds"]) == {
        "wait_for_decoding", "decode", "transfer", "encode", "activations",
    }  # fmt: skip
    assert notes["bottleneck"] == min(
        notes["images_per_second"], key=lambda stage: notes["images_per_second"][stage]
    )
    first = json.loads((tmp_path / "parts" / "part-000000.json").read_text())
    errors = [e for i in range(5) for e in json.loads(
        (tmp_path / "parts" / f"part-{i:06d}.json").read_text())["errors"]]  # fmt: skip
    assert first["num_scored"] <= first["num_images"]
    assert [error["sample_id"] for error in errors] == [
        "bag/00000-bad.png", "trouser/99999-bad.jpg",
    ]  # fmt: skip
