"""Runs that lack something: a sensible report, or one clear error."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from full_report import FullReport
from sample_data import save_images
from tars import write_tar

from qscore_fast.cli import main
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import ImageError, QScoreError, SettingsError, StoreError
from qscore_fast.report import ReportSettings, write_report
from qscore_fast.report.source_images import SourceImages
from qscore_fast.scoring import ScoreRun, score
from qscore_fast.scoring.store import Store

WITHOUT = ReportSettings(skip=("features", "measures"))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images without classes."""
    folder = tmp_path_factory.mktemp("flat")
    for path in save_images(folder / "classes", 40).rglob("*.png"):
        shutil.copy(path, folder / path.name)
    shutil.rmtree(folder / "classes")
    return folder


@pytest.fixture(scope="module")
def plain(flat: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreRun:
    """A run without labels and embeddings."""
    return score(flat, checkpoint, tmp_path_factory.mktemp("plain") / "run", eps=3, device="cpu")


def headings(page: Path) -> list[str]:
    return re.findall(r'<h2 id="(\w+)-title">', page.read_text())


def test_without_labels_by_the_command(plain: ScoreRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(plain.path)]) == 0
    said = capsys.readouterr().out
    page = plain.path / "report.html"
    assert f"report      {page}" in said
    assert "40 images" in said
    assert (plain.path / "report.json").is_file()
    assert headings(page) == ["overview", "scores", "galleries", "features", "browse"]
    assert 'name="label"' not in page.read_text()


def test_one_image(flat: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(next(flat.glob("*.png")), tmp_path / "one" / "a.png")
    run = score(
        tmp_path / "one", checkpoint, tmp_path / "run", eps=3, device="cpu", embeddings="npy"
    )
    found = write_report(run, tmp_path / "a.html").content
    assert found["galleries"]["lowest"] == found["galleries"]["highest"] == [0]
    assert found["distribution"]["quantiles"]["0"] == found["distribution"]["quantiles"]["1"]


def test_no_feature_is_active(flat: Path, checkpoint: Path, tmp_path: Path) -> None:
    run = score(flat, checkpoint, tmp_path / "run", eps=15, device="cpu")
    assert len(run.features) == 0
    written = write_report(run, tmp_path / "a.html")
    assert written.content["distribution"]["num_zero"] == 40
    assert written.content["features"]["top"] == []
    assert "no active feature" in written.html.read_text()


def test_no_image_could_be_scored(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    with pytest.raises(QScoreError, match="none of the 1 images"):
        score(tmp_path / "bad", checkpoint, tmp_path / "run", eps=3, device="cpu")
    with pytest.raises(StoreError, match="scores.parquet"):
        write_report(tmp_path / "run", tmp_path / "a.html")


def test_images_that_are_gone_and_found_again(
    flat: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(flat, tmp_path / "images")
    run = score(images, checkpoint, tmp_path / "run", eps=3, device="cpu")
    moved = images.rename(tmp_path / "moved")
    gone = write_report(run, tmp_path / "a.html", WITHOUT)
    assert gone.content["pictures"] == {
        "shown": 0, "missing": 40, "reasons": {"cannot be opened: No such file or directory": 40},
        "heat_maps": 0,
    }  # fmt: skip
    assert "40 pictures are missing" in "\n".join(gone.lines())
    assert "--images" in gone.html.read_text()
    command = ["report", str(run.path), "--images", str(moved), "--skip", "features", "--json"]
    assert main(command) == 0
    assert '"shown": 40' in capsys.readouterr().out


def test_numbers_alone(plain: ScoreRun, tmp_path: Path) -> None:
    written = write_report(plain, tmp_path / "a.html", ReportSettings(thumbnails=0))
    assert headings(written.html) == ["overview", "scores", "features"]
    assert written.content["images"] == []


def test_labels_from_a_file(plain: ScoreRun, tmp_path: Path) -> None:
    ids = plain.scores()["sample_id"].to_pylist()
    labels = ["<b>even</b>" if i % 2 == 0 else "odd" for i in range(len(ids))]
    pa.csv.write_csv(pa.table({"sample_id": ids, "label": labels}), tmp_path / "labels.csv")
    written = write_report(
        plain, tmp_path / "a.html", ReportSettings(labels=tmp_path / "labels.csv")
    )
    assert sorted(item["label"] for item in written.content["classes"]) == ["<b>even</b>", "odd"]
    assert "<b>even" not in written.html.read_text()
    assert "classes" in headings(written.html)


def test_what_is_wrong_is_said(
    plain: ScoreRun, full: FullReport, flat: Path, tmp_path: Path
) -> None:
    page = tmp_path / "a.html"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"probe": tmp_path}, "neither failure.json"),
        ({"probe": full.probe}, "no sample_id of"),
        ({"compression": tmp_path}, "qscore compress"),
        ({"compare": full.run.path}, "share no image"),
        ({"compare": tmp_path}, "no run of qscore"),
        ({"labels": tmp_path / "none.csv"}, "none.csv"),
    ]
    for settings, words in wrong:
        with pytest.raises(QScoreError, match=words):
            write_report(plain, page, ReportSettings(**settings))
    with pytest.raises(SettingsError, match="end .* in .html"):
        write_report(plain, tmp_path / "a.pdf")
    with pytest.raises(SettingsError, match="thumbnails"):
        ReportSettings(thumbnails=-1)
    with pytest.raises(SettingsError, match="the encoder of the run"):
        write_report(plain, page, encoder=load_encoder("demo", device="cpu"))
    with pytest.raises(StoreError, match="no run of qscore"):
        write_report(flat, page)
    assert not page.exists()


def test_the_same_run_gives_the_same_page(plain: ScoreRun, tmp_path: Path) -> None:
    first, second = (write_report(plain, tmp_path / f"{name}.html") for name in "ab")
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.json.read_bytes() == second.json.read_bytes()


def as_list(images: list[Path], folder: Path) -> Path:
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in images))
    return folder / "list.txt"


def as_tar(images: list[Path], folder: Path) -> Path:
    return write_tar(folder / "shard.tar", *((p.name, p.read_bytes()) for p in images))


def as_parquet(images: list[Path], folder: Path) -> Path:
    content = [{"bytes": path.read_bytes(), "path": path.name} for path in images]
    pq.write_table(pa.table({"image": content}), folder / "images.parquet", row_group_size=7)
    return folder / "images.parquet"


@pytest.mark.parametrize("packed", [as_list, as_tar, as_parquet])
def test_pictures_come_from_the_run_s_own_source(
    packed: Any, flat: Path, checkpoint: Path, tmp_path: Path
) -> None:
    images = sorted(flat.glob("*.png"))
    source = packed(images, tmp_path)
    run = score(str(source), checkpoint, tmp_path / "run", eps=3, device="cpu", unit_size=16)
    found = write_report(run, tmp_path / "a.html", WITHOUT).content
    assert found["pictures"]["shown"] == 40
    source.unlink()
    found = write_report(run, tmp_path / "a.html", WITHOUT).content
    assert found["pictures"]["missing"] == 40
    (reason,) = found["pictures"]["reasons"]
    assert "source cannot be opened" in reason


@pytest.mark.parametrize(
    "name", ["../outside.png", "a/../../outside.png", "/etc/hostname", "a\\x00.png", "..\\x2foutside.png"]
)  # fmt: skip
def test_an_id_that_is_no_path_below_the_source(name: str, plain: ScoreRun, flat: Path) -> None:
    shutil.copy(next(flat.glob("*.png")), flat.parent / "outside.png")
    for follow_links in (True, False):
        images = SourceImages(Store(plain.path), follow_links=follow_links)
        ((_, found),) = images.read({0: name})
        assert isinstance(found, ImageError)
        assert "no path below the source" in str(found)


def test_links_within_and_out_of_the_source(plain: ScoreRun, flat: Path, tmp_path: Path) -> None:
    one = next(flat.glob("*.png"))
    shutil.copy(one, tmp_path / "outside.png")
    (tmp_path / "images").mkdir()
    shutil.copy(one, tmp_path / "images" / "real.png")
    (tmp_path / "images" / "inside.png").symlink_to("real.png")
    (tmp_path / "images" / "out.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "images" / "folder").symlink_to(tmp_path)
    store, root = Store(plain.path), str(tmp_path / "images")
    names = ("inside.png", "out.png", "folder/outside.png")
    for follow_links, opened in ((True, (True, True, True)), (False, (True, False, False))):
        images = SourceImages(store, root, follow_links=follow_links)
        for name, expected in zip(names, opened, strict=True):
            ((_, found),) = images.read({0: name})
            assert isinstance(found, ImageError) != expected, (name, follow_links)
