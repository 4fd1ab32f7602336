"""A source that has changed since its run began is refused, with what has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_data import save_images

from qscore_fast.encoders import Encoder
from qscore_fast.errors import StoreError
from qscore_fast.images import Subset, open_source
from qscore_fast.scoring import score

LISTING = "listing.txt.zst"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_images(tmp_path / "images", 12)


def run_it(source: Any, encoder: Encoder, out: Path, **settings: Any) -> None:
    score(source, encoder, out, eps=2.5, workers=1, **settings)


def refusal(source: Any, encoder: Encoder, out: Path) -> str:
    with pytest.raises(StoreError, match=r"other settings \(source.manifest_hash: ") as raised:
        run_it(source, encoder, out)
    return str(raised.value)


def test_a_folder(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    first, second, *_ = sorted(folder.rglob("*.png"))
    first.rename(first.with_name("zz-renamed.png"))
    second.write_bytes(second.read_bytes() + b"more")
    for number in range(2):
        shutil.copy(second, folder / f"a{number}.png")
    names = {path: str(path.relative_to(folder)) for path in (first, second)}
    renamed = str(first.with_name("zz-renamed.png").relative_to(folder))
    assert (
        f"; in the source 3 new, 1 gone, 1 changed; first new: {min('a0.png', renamed)}; "
        f"first gone: {names[first]}; first changed: {names[second]}: give another folder"
    ) in refusal(folder, encoder, out)
    shutil.rmtree(folder)
    run_it(save_images(folder, 12), encoder, out)


def test_a_list_a_table_and_a_subset(tmp_path: Path, folder: Path, encoder: Encoder) -> None:
    paths = sorted(map(str, folder.rglob("*.png")))
    (tmp_path / "list.txt").write_text("\n".join(paths[:5]))
    run_it(tmp_path / "list.txt", encoder, tmp_path / "1")
    (tmp_path / "list.txt").write_text("\n".join(paths[1:4]))
    gone = os.path.relpath(paths[0], tmp_path)
    assert f"2 gone; first gone: {gone}: give" in refusal(
        tmp_path / "list.txt", encoder, tmp_path / "1"
    )

    content = [Path(path).read_bytes() for path in paths]
    pq.write_table(pa.table({"image": content[:5]}), tmp_path / "t.parquet")
    run_it(tmp_path / "t.parquet", encoder, tmp_path / "2")
    pq.write_table(pa.table({"image": content[:6]}), tmp_path / "t.parquet")
    assert "1 changed; first changed: t.parquet: give" in refusal(
        tmp_path / "t.parquet", encoder, tmp_path / "2"
    )

    source = open_source(folder)
    run_it(Subset(source, limit=5), encoder, tmp_path / "3")
    assert (
        "first changed: the choice of samples (--classes, --limit, --sample) or their labels"
        in refusal(Subset(source, limit=6), encoder, tmp_path / "3")
    )


@pytest.mark.parametrize("damage", ["missing", "cut off", "of another run"])
def test_without_its_listing_a_run_goes_on_and_a_change_shows_as_hashes(
    tmp_path: Path, folder: Path, encoder: Encoder, damage: str
) -> None:
    out = tmp_path / "out"
    run_it(folder, encoder, out)
    if damage == "missing":
        (out / LISTING).unlink()
    elif damage == "cut off":
        os.truncate(out / LISTING, 50)
    else:
        run_it(save_images(tmp_path / "others", 3), encoder, tmp_path / "others-out")
        shutil.copy(tmp_path / "others-out" / LISTING, out / LISTING)
    run_it(folder, encoder, out)
    next(folder.rglob("*.png")).unlink()
    message = refusal(folder, encoder, out)
    assert "source.num_images: 12 -> 11): give another folder" in message
    assert "in the source" not in message


def test_a_start_that_was_killed_leaves_nothing_in_the_way(
    tmp_path: Path, folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing is there before run.json, and is of the run that run.json is of."""
    out = tmp_path / "out"
    real = os.replace

    def killed_at_the_record(source: Any, target: Any) -> None:
        if Path(target).name == "run.json":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            run_it(folder, encoder, out)
    assert (out / LISTING).exists()
    assert not (out / "run.json").exists()
    gone = sorted(folder.rglob("*.png"))[0]
    content = gone.read_bytes()
    gone.unlink()
    run_it(folder, encoder, out)
    gone.write_bytes(content)
    name = gone.relative_to(folder)
    assert f"in the source 1 new; first new: {name}: give" in refusal(folder, encoder, out)
    run_it(folder, encoder, out, overwrite=True)
    gone.unlink()
    assert f"in the source 1 gone; first gone: {name}: give" in refusal(folder, encoder, out)
