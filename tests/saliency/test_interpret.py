"""The whole measurement on planted images: what was planted is what is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from planted_patches import CELL, PATCH, PlantedImage, planted_encoder
from salient_tree import write_listing
from torch.nn import functional as F

from qscore_fast.errors import QScoreError, SettingsError, SourceError, StoreError
from qscore_fast.images import Preprocess
from qscore_fast.saliency.interpret import Compared, interpret
from qscore_fast.saliency.interpretation import Interpretation
from qscore_fast.saliency.overlap import OverlapSettings
from qscore_fast.saliency.salient_imagenet import SalientImageNet

BASE = planted_encoder(red=180, blue=180, name="base")
TUNED = planted_encoder(red=60, blue=300, name="tuned")


def outcomes(tree, path: Path, names: bool = False) -> Path:  # type: ignore[no-untyped-def]
    """What a probe got right; with the ids of another copy of ImageNet, if ``names``."""
    ids = [f"{i.name}_{i.wnid}.JPEG" if names else f"{i.wnid}/{i.name}.JPEG" for i in tree.planted]
    pd.DataFrame({"sample_id": ids, "correct": [i.is_correct for i in tree.planted]}).to_csv(
        path, index=False
    )
    return path


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory: pytest.TempPathFactory) -> Interpretation:  # type: ignore[no-untyped-def]
    """Base against tuned, correct against misclassified."""
    folder = tmp_path_factory.mktemp("found")
    return interpret(
        planted.images, BASE.encoder, SalientImageNet(planted.salient), BASE.features, folder / "out",
        compared=Compared(TUNED.encoder, TUNED.features),
        correct=outcomes(planted, folder / "probe.csv"), batch_size=3, num_resamples=500, examples=0,
    )  # fmt: skip


def expected_overlap(image: PlantedImage, sees_core: bool) -> dict[str, float]:
    """Of the patch that is seen with its own mask: its cells are 1, blurred by the way to 224 pixels."""
    cells = np.zeros((28, 28))
    left, top = (side // CELL for side in (image.core if sees_core else image.spurious))
    cells[top : top + PATCH // CELL, left : left + PATCH // CELL] = 1
    line = (np.arange(224) + 0.5) / CELL - 0.5  # bilinear, edges aligned
    low = np.clip(np.floor(line).astype(int), 0, 27)
    high = np.clip(low + 1, 0, 27)
    share = np.clip(line, 0, 27) - low
    weights = np.zeros((224, 28))
    np.add.at(weights, (np.arange(224), low), 1 - share)
    np.add.at(weights, (np.arange(224), high), share)
    heat = weights @ cells @ weights.T
    mask = image.mask(sees_core) / 255
    hot = heat > 0.5 * heat.max()
    return {
        "heat_iou": (heat * hot * mask).sum() / heat[hot | (mask > 0)].sum(),
        "energy": (heat * mask).sum() / heat.sum(),
    }


def test_core_and_spurious_separate_as_planted(found: Interpretation, planted) -> None:  # type: ignore[no-untyped-def]
    frame = pq.read_table(found.path / "interpretation.parquet").to_pandas().set_index("name")
    assert sorted(frame.index) == sorted(i.name for i in planted.planted)
    for image in planted.planted:
        row = frame.loc[image.name]
        # The base sees what is bright: the object where it is right, the other thing where it is wrong.
        on, off = ("core", "spurious") if image.is_correct else ("spurious", "core")
        expected = expected_overlap(image, sees_core=image.is_correct)
        for measure, value in expected.items():
            assert row[f"{on}_{measure}"] == pytest.approx(value, rel=0.02), (image.name, measure)
            assert row[f"{on}_{measure}"] > 0.85 and row[f"{off}_{measure}"] < 0.02
        assert (row[f"{on}_pointing"], row[f"{off}_pointing"]) == (1, 0)
        assert row[f"{on}_auroc"] > 0.999 and row[f"{off}_auroc"] < 0.5
        assert row["correct"] == row["compare_correct"] == image.is_correct
        # The tuned one sees the object alone, bright or dull.
        assert row["compare_core_heat_iou"] > 0.85 and row["compare_spurious_heat_iou"] < 0.02
        assert row["num_features"] == row["compare_num_features"] == 1
        h = torch.zeros(1, 64)
        h[0, 3] = 1
        assert row["q_score"] == pytest.approx(1 - 1 / 64, rel=1e-5)
        assert pd.isna(row["core_undefined"]) and pd.isna(row["compare_spurious_undefined"])


def test_the_means_are_pandas_means_of_the_rows_and_lie_in_their_intervals(
    found: Interpretation,
) -> None:
    frame = pq.read_table(found.path / "interpretation.parquet").to_pandas()
    content = json.loads((found.path / "interpretation.json").read_text())
    assert content["encoders"] == ["base", "tuned"]
    prefix = {"base": "", "tuned": "compare_"}
    select = {"all": slice(None), "correct": frame["correct"], "misclassified": ~frame["correct"]}
    assert len(content["means"]) == 2 * 3 * 2 * 5
    for entry in content["means"]:
        column = f"{prefix[entry['encoder']]}{entry['mask']}_{entry['measure']}"
        values = frame.loc[select[entry["images"]], column].astype(float)
        assert entry["mean"] == pytest.approx(values.mean()) and entry["n"] == len(values)
        assert entry["interval"]["low"] <= entry["mean"] + 1e-12
        assert entry["mean"] <= entry["interval"]["high"] + 1e-12
    for entry in content["differences"]["compared less base"]:
        column = f"{entry['mask']}_{entry['measure']}"
        values = frame[f"compare_{column}"] - frame[column]
        assert entry["mean"] == pytest.approx(values.mean())
    by_class = content["classes"]
    assert set(by_class) == set(frame["wnid"]) and by_class["n01440764"]["num_images"] == 4
    for wnid, inner in by_class.items():
        own = frame[frame["wnid"] == wnid]
        for entry in inner["means"]:
            column = f"{prefix[entry['encoder']]}{entry['mask']}_{entry['measure']}"
            assert entry["mean"] == pytest.approx(own[column].mean())


def test_figure_6_says_what_was_planted(found: Interpretation) -> None:
    means = found.summary.means
    core = {
        (e, g): means[e, g, "core", "heat_iou"].mean for e in (0, 1) for g in found.summary.groups
    }
    assert core[0, "correct"] > 0.85 and core[0, "misclassified"] < 0.02
    assert core[1, "correct"] > 0.85 and core[1, "misclassified"] > 0.85
    gain = found.summary.differences["compared less base"][1, "all", "core", "heat_iou"]
    assert gain.mean is not None and gain.mean > 0.4 and gain.interval is not None
    assert 0 < gain.interval.low < gain.mean < gain.interval.high
    gap = found.summary.differences["correct less misclassified"][0, "all", "core", "heat_iou"]
    assert gap.mean == pytest.approx(core[0, "correct"] - core[0, "misclassified"])
    assert gap.interval is not None and gap.interval.low > 0.8
    tree = ElementTree.parse(found.path / "interpretation.svg")
    words = [text for node in tree.iter() if (text := (node.text or "").strip())]
    for word in ("core features", "spurious features", "correct", "misclassified", "base", "tuned"):
        assert word in words, word
    assert f"{core[0, 'correct']:.3f}" in words and words.count("n = 4") == 8


def test_the_tables_for_people(found: Interpretation) -> None:
    text = "\n".join(found.lines())
    assert "8 of 8 with masks measured" in text and "1 others in the source" in text
    cells = [[cell.strip() for cell in line.split("|")[1:6]] for line in text.splitlines()]
    mean = found.summary.means[0, "misclassified", "spurious", "heat_iou"].mean
    row = next(c for c in cells if c[:4] == ["base", "misclassified", "spurious", "4"])
    assert row[4].startswith(f"{mean:.4f} [")
    assert text in (found.path / "interpretation.md").read_text()
    assert "n01530575" in (found.path / "interpretation.md").read_text()


def measure(tree, out: Path, **settings):  # type: ignore[no-untyped-def]
    return interpret(
        tree.images, BASE.encoder, SalientImageNet(tree.salient), BASE.features, out,
        **{"num_resamples": 0, "examples": 0, **settings},
    )  # fmt: skip


def rows(folder: Path) -> pd.DataFrame:
    return pq.read_table(folder / "interpretation.parquet").to_pandas()


def test_a_run_that_was_cut_off_goes_on_and_gives_the_same(planted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    whole = measure(planted, tmp_path / "whole", unit_size=3)

    class Cut(Exception):
        pass

    def stop(state) -> None:  # type: ignore[no-untyped-def]
        if state.done == 5:
            raise Cut

    with pytest.raises(Cut):
        measure(planted, tmp_path / "cut", unit_size=3, progress=stop)
    done = sorted((tmp_path / "cut" / "parts").iterdir())
    assert 0 < len(done) < 3 and not (tmp_path / "cut" / "interpretation.json").exists()
    before = [path.stat().st_mtime_ns for path in done]
    states = []
    measure(planted, tmp_path / "cut", unit_size=3, progress=states.append)
    assert states[0].found == states[0].done > 0 and states[-1].done == 8
    assert [path.stat().st_mtime_ns for path in done] == before
    for name in ("interpretation.parquet", "interpretation.json", "interpretation.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (whole.path / name).read_bytes(), name
    # All there: no image is opened again; outcomes and resamples may change.
    again = measure(
        planted._replace(images=planted.images), tmp_path / "cut", unit_size=3, num_resamples=50,
        correct=outcomes(planted, tmp_path / "probe.csv", names=True),
        progress=lambda state: pytest.fail("an image was measured again"),
    )  # fmt: skip
    assert again.summary.means[0, "correct", "core", "energy"].n == 4
    pd.testing.assert_frame_equal(
        rows(again.path).drop(columns="correct"), rows(whole.path).drop(columns="correct")
    )


def test_another_question_is_not_answered_from_these_parts(planted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    measure(planted, tmp_path)
    with pytest.raises(StoreError, match=r"combine: sum -> max.*--overwrite"):
        measure(planted, tmp_path, combine="max")
    with pytest.raises(StoreError, match=r"measures\.heat_threshold: 0\.5 -> 0\.0"):
        measure(planted, tmp_path, settings=OverlapSettings(0.0))
    (tmp_path / "mine.txt").write_text("mine")
    found = measure(planted, tmp_path, settings=OverlapSettings(0.0), overwrite=True)
    frame = rows(found.path)
    np.testing.assert_array_equal(frame["core_heat_iou"], frame["core_energy"])
    assert (tmp_path / "mine.txt").exists()
    other = tmp_path / "run"
    (other).mkdir()
    (other / "run.json").write_text("{}")
    with pytest.raises(StoreError, match="something else"):
        measure(planted, other)


def test_bad_images_and_masks_are_recorded_and_left_out(planted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "copy"
    shutil.copytree(planted.images.parent, root)
    tree = planted._replace(images=root / "train", salient=root / planted.salient.name)
    first, second, third, fourth = (i.name for i in planted.planted[:4])
    folder, masks = root / "train" / "n01440764", tree.salient / "n01440764"
    (folder / f"{first}.JPEG").unlink()
    (folder / f"{second}.JPEG").write_bytes(b"\xff\xd8 no more")
    (masks / "feature_59" / f"{third}.JPEG").unlink()
    (root / "train" / "copies").mkdir()
    shutil.copy(folder / f"{fourth}.JPEG", root / "train" / "copies")
    # The last image of the other class has a spurious mask alone.
    last = planted.planted[7].name
    names = [i.name for i in planted.planted[4:]]
    write_listing(tree.salient / "n01530575", {59: names[:-1], 60: names})
    found = measure(tree, tmp_path / "out")
    assert found.counts == {
        "images_listed": 8, "images_measured": 5, "images_missing": 1, "images_failed": 2,
        "others": 1, "repeated": 1, "unreadable": 0,
    }  # fmt: skip
    errors = pq.read_table(tmp_path / "out" / "errors.parquet").to_pandas().set_index("name")
    assert errors.loc[second, "stage"] == "decode" and errors.loc[third, "stage"] == "mask"
    assert f"feature_59/{third}.JPEG" in errors.loc[third, "error"]
    row = rows(found.path).set_index("name").loc[last]
    assert row["core_undefined"] == "no mask" and np.isnan(row["core_energy"])
    assert pd.isna(row["spurious_undefined"]) and row["spurious_energy"] > 0.85
    text = "\n".join(found.lines())
    assert "1 are not in the source" in text and "2 are bad" in text and "core: 1 no mask" in text


def test_an_image_without_a_discriminative_feature_has_no_measure_and_says_so(
    planted, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    blind = planted_encoder(red=180, blue=300, name="blind")
    found = interpret(
        planted.images, blind.encoder, SalientImageNet(planted.salient), blind.features, tmp_path,
        num_resamples=200, examples=0,
    )  # fmt: skip
    frame = rows(tmp_path).set_index("name")
    for image in planted.planted:
        row = frame.loc[image.name]
        assert (row["core_undefined"] == "no heat") == (not image.is_correct)
        assert np.isnan(row["core_heat_iou"]) == (not image.is_correct)
        assert (
            row["num_features"] == int(image.is_correct)
            and (row["q_score"] > 0) == image.is_correct
        )
    assert found.summary.means[0, "all", "core", "heat_iou"].n == 4
    assert "blind, core: 4 no heat" in "\n".join(found.lines())


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(resize=224, crop=224, mean=(0.0,) * 3, std=(1.0,) * 3),
        Preprocess(resize=(112, 112), crop=None, mean=(0.0,) * 3, std=(1.0,) * 3),
        Preprocess(
            resize=(224, 224), crop=None, mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=0.875
        ),
    ],
    ids=["whole image", "half size", "crop first"],
)
def test_another_crop_than_that_of_the_masks_is_brought_to_their_frame(
    preprocess: Preprocess, planted, tmp_path: Path  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    other = planted_encoder(red=180, blue=180, name="other", preprocess=preprocess)
    interpret(
        planted.images, other.encoder, SalientImageNet(planted.salient), other.features, tmp_path,
        num_resamples=0, examples=0,
    )  # fmt: skip
    frame = rows(tmp_path).set_index("name")
    for image in planted.planted:
        on, off = ("core", "spurious") if image.is_correct else ("spurious", "core")
        assert frame.loc[image.name, f"{on}_energy"] > 0.75, image.name
        assert frame.loc[image.name, f"{off}_energy"] < 0.02
        assert frame.loc[image.name, f"{on}_auroc"] > 0.95


def test_the_frame_of_the_same_crop_is_interpolate_itself() -> None:
    from qscore_fast.saliency.mask_frame import in_mask_frame

    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0))
    heat, seen = in_mask_frame(maps, Preprocess(), [(500, 375), (256, 256), (333, 500)])
    assert seen.all()
    expected = F.interpolate(maps[:, None], (224, 224), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(heat, expected, rtol=0, atol=1e-5)
    # A tighter crop does not see the rim of the masks: 16 of 224 pixels on each side.
    _, seen = in_mask_frame(maps[:1], Preprocess(crop=192), [(500, 375)])
    assert seen[0, 16:208, 16:208].all() and seen.sum() == 192**2


def test_compat_makes_the_masks_larger_than_their_patches(planted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = interpret(
        planted.images, BASE.encoder, SalientImageNet(planted.salient, compat=True), BASE.features,
        tmp_path, num_resamples=0, examples=0,
    )  # fmt: skip
    plain = measure(planted, tmp_path / "plain")
    key = (0, "all", "core", "soft_iou")
    zoomed, right = found.summary.means[key].mean, plain.summary.means[key].mean
    assert zoomed is not None and right is not None and zoomed < 0.9 * right
    assert "8/7" in "\n".join(found.lines())


def test_what_cannot_be_answered_is_said_before_the_work(planted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stranger = tmp_path / "val"
    stranger.mkdir()
    shutil.copy(next(planted.images.glob("*/*.JPEG")), stranger / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(SourceError, match=r"no image of .* such as n01440764_100\.JPEG"):
        measure(planted._replace(images=stranger), tmp_path / "out")
    measure(planted, tmp_path / "out")  # the folder is free for the right images
    for wrong in (
        {"combine": "median"}, {"batch_size": 0}, {"workers": 0}, {"num_resamples": -1}, {"seed": -1},
        {"level": 1.0}, {"examples": 101}, {"unit_size": True},
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            measure(planted, tmp_path / "no", **wrong)
    with pytest.raises(SettingsError, match="another encoder"):
        interpret(
            planted.images,
            BASE.encoder,
            SalientImageNet(planted.salient),
            TUNED.features,
            tmp_path / "no",
        )
    (tmp_path / "probe.csv").write_text("sample_id,correct\nx,1\n")
    with pytest.raises(
        SettingsError, match=r"no sample_id of .*probe\.csv is one of the interpreted"
    ):
        measure(planted, tmp_path / "joined", correct=tmp_path / "probe.csv")
    (tmp_path / "twice.csv").write_text(
        "sample_id,correct\na/n01440764_100.JPEG,1\nb/n01440764_100.JPEG,0\n"
    )
    with pytest.raises(SettingsError, match="n01440764_100 as both right and wrong"):
        measure(planted, tmp_path / "joined", correct=tmp_path / "twice.csv")
    part = next((tmp_path / "joined" / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(QScoreError, match="delete it, and the same command makes it again"):
        measure(planted, tmp_path / "joined")
