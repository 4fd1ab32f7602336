"""The report on D, against the parts read by pandas and counted by loops."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sample_data import save_images

from qscore_fast.cli import main
from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.discovery import discovery_report
from qscore_fast.scoring import ScoreRun, discover, score


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_images(tmp_path_factory.mktemp("discovery") / "images", 200)
    (folder / "bag" / "bad.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def run(images: Path, encoder: Encoder) -> ScoreRun:
    return score(images, encoder, images.parent / "run", unit_size=64, eps=3.0)


@pytest.fixture(scope="module")
def entries(run: ScoreRun) -> pd.DataFrame:
    """A row an active entry: row, feature, value, label, sample_id."""
    parts = pd.concat([pd.read_parquet(p) for p in sorted(run.path.glob("parts/*.parquet"))])
    rows = parts[parts["status"] == "ok"].reset_index(drop=True)
    rows["row"] = rows.index
    flat = rows.explode(["feature", "value"]).dropna(subset=["feature"])
    z = flat["value"].astype(float).abs() * flat["l2"] / flat["std"]
    return flat[z > 3.0].astype({"feature": int, "value": float})


def test_classes_and_purity_are_those_of_a_loop(run, entries):
    report = discovery_report(run)
    assert report.labels is not None
    for feature in range(run.features.num_features):
        fired = entries[entries["feature"] == feature]
        assert report.activity.counts[feature] == len(fired)
        if not len(fired):
            assert np.isnan(report.purity[feature]) and np.isnan(report.effective_classes[feature])
            continue
        shares = fired["label"].value_counts(normalize=True)
        assert report.purity[feature] == pytest.approx(shares.iloc[0])
        entropy = -(shares * np.log(shares)).sum()
        assert report.effective_classes[feature] == pytest.approx(np.exp(entropy))


def test_the_top_images_are_those_of_a_sort(run, entries, tmp_path):
    discovery_report(run, num_top=4).write(tmp_path)
    found = pd.read_parquet(tmp_path / "top_images.parquet")
    for feature, fired in entries.groupby("feature"):
        best = fired.assign(value=fired["value"].abs()).sort_values(
            ["value", "row"], ascending=[False, True]
        )
        own = found[found["feature"] == feature]
        assert own["sample_id"].tolist() == best["sample_id"].head(4).tolist()
        assert own["label"].tolist() == best["label"].head(4).tolist()
        np.testing.assert_allclose(own["value"], best["value"].head(4), rtol=1e-6)
    assert set(found["feature"]) == set(entries["feature"])


def test_halves_are_the_features_of_their_samples(run, entries):
    report = discovery_report(run, num_splits=3, seed=5)
    n, r = report.activity.num_samples, run.features.num_features
    active = np.zeros((n, r), bool)
    active[entries["row"], entries["feature"]] = True
    for split in range(3):
        half = np.random.default_rng([5, split]).random(n) < 0.5
        sets = []
        for number, chosen in enumerate((half, ~half)):
            counts = active[chosen].sum(0)
            low, high = np.percentile(counts, [50, 95])
            sets.append({j for j in range(r) if low <= counts[j] <= high and counts[j] > 0})
            assert set(np.flatnonzero(report.halves[split, number])) == sets[number]
        expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
        assert report.jaccard[split] == pytest.approx(expected)


def test_the_parts_do_not_matter(run, images, encoder):
    other = score(images, encoder, images.parent / "small", unit_size=7, batch_size=64, eps=3.0)
    first, second = discovery_report(run), discovery_report(other)
    np.testing.assert_array_equal(first.activity.half_sizes, second.activity.half_sizes)
    # Batches end with units: scores may differ in the last bits, and with them a count at the threshold.
    assert np.abs(first.activity.half_counts - second.activity.half_counts).max() <= 1
    assert np.abs(first.activity.by_class - second.activity.by_class).max() <= 1


def test_bands_part_the_live_features(run):
    report = discovery_report(run)
    bands = np.stack([*report.bands.values()])
    np.testing.assert_array_equal(bands.sum(0), (report.activity.counts > 0).astype(int))
    counts = report.activity.counts
    in_d = counts[report.bands["in_d"]]
    assert counts[report.bands["below"]].max(initial=0) < in_d.min()
    assert counts[report.bands["above"]].min() > in_d.max()


def test_the_command_writes_and_prints_the_report(run, tmp_path, capsys):
    out = tmp_path / "report"
    words = ["discover", str(run.path), "--eps", "3.2", "--out", str(tmp_path / "f.npz")]
    assert main([*words, "--report", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["report"]
    assert printed == json.loads((out / "discovery.json").read_text())
    assert printed["eps"] == 3.2 and printed["num_classes"] == 10
    table = pd.read_parquet(out / "features.parquet")
    assert table["in_d"].sum() == printed["num_discriminative"]
    live = table["count"] > 0
    assert table.loc[live, "top_class"].notna().all() and table.loc[~live, "purity"].isna().all()
    texts = [
        text.text
        for text in ET.parse(out / "activations.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "samples in which it fires (%)" in texts
    assert any("50th to 95th percentile" in (text or "") for text in texts)
    assert main([*words, "--labels", "x.csv"]) == 2
    assert "--report" in capsys.readouterr().err


def test_labels_of_a_file_or_none_at_all(run, tmp_path):
    table = run.scores().select(["sample_id", "label"]).to_pandas()
    table["label"] = np.where(table["label"] == "trouser", "yes", "no")
    table.to_csv(tmp_path / "labels.csv", index=False)
    report = discovery_report(run, labels=tmp_path / "labels.csv")
    assert (
        report.labels.classes == ("no", "yes")
        and report.purity[report.activity.counts > 0].min() >= 0.5
    )
    bare = discovery_report(run, labels=False)
    assert bare.purity is None and "purity" not in bare.to_json()
    bare.write(tmp_path / "bare")
    assert "label" not in pd.read_parquet(tmp_path / "bare" / "top_images.parquet").columns


def test_features_of_other_samples_or_encoders_are_refused(run, images, encoder):
    for split in ("a", "b"):
        save_images(images.parent / split, 40, start=300)
    other = score(images.parent / "a", encoder, images.parent / "a-run", features=run.features)
    with pytest.raises(SettingsError, match="other samples"):
        discovery_report(other)
    found = discover(other.path, eps=3.0, out=images.parent / "own.npz").features
    assert discovery_report(other, found).activity.num_samples == 40
    with pytest.raises(SettingsError, match="not those of the encoder"):
        discovery_report(run, replace(run.features, fingerprint="0" * 64))
    with pytest.raises(SettingsError, match="num_splits is 0: give 1 or more"):
        discovery_report(run, num_splits=0)
    with pytest.raises(SettingsError, match="num_top is -1: give 0 or more"):
        discovery_report(run, num_top=-1)


def test_an_empty_census_is_told_and_not_called_stable(run, tmp_path):
    silent = discover(run.path, eps=30, write=False).features
    report = discovery_report(run, silent)
    content = json.loads(report.write(tmp_path)[0].read_text(), parse_constant=pytest.fail)
    assert content["jaccard"] == content["jaccard_by_chance"] == [None] * 10
    assert set(content["purity"].values()) == {None}
    assert content["notes"] == [
        "the Jaccard of 10 of 10 splits is undefined: D of both halves is empty",
        "no feature has a purity: none is ever active",
    ]
    assert report.lines() == [f"note: {note}" for note in content["notes"]]
    assert "none is ever active" not in " ".join(discovery_report(run).notes)


def test_a_band_without_features_is_named(run, tmp_path):
    """From the lowest percentile to the highest D holds every live feature."""
    features = discover(run.path, lower=0, upper=100, write=False).features
    report = discovery_report(run, features)
    content = report.to_json()
    assert content["num_features"]["below"] == content["num_features"]["above"] == 0
    assert content["purity"]["below"] is content["purity"]["above"] is None
    assert content["purity"]["in_d"] > 0
    assert content["notes"] == [
        "no live feature is below D or above D: the purity there is undefined"
    ]
    assert report.lines()[-1] == f"note: {content['notes'][0]}"
    assert discovery_report(run, features, labels=False).notes == []
    table = run.scores().select(["sample_id"]).to_pandas().assign(label="all")
    table.to_csv(tmp_path / "one.csv", index=False)
    both = discovery_report(run, features, labels=tmp_path / "one.csv").notes
    assert both[0] == content["notes"][0] and "every purity is 1" in both[1]


def test_one_class_cannot_tell(run, tmp_path):
    table = run.scores().select(["sample_id"]).to_pandas().assign(label="all")
    table.to_csv(tmp_path / "one.csv", index=False)
    report = discovery_report(run, labels=tmp_path / "one.csv")
    note = report.to_json()["notes"][-1]
    assert note.startswith("all images are of class 'all': every purity is 1")
    assert report.lines()[-1] == f"note: {note}"


def test_one_image(images, encoder):
    save_images(images.parent / "single", 1, start=5)
    single = score(images.parent / "single", encoder, images.parent / "single-run", eps=3.0)
    report = discovery_report(single)
    assert report.activity.num_samples == 1
    # One half holds no image, so that its D is empty, and the other's as well unless the image fills it.
    assert np.isin(report.jaccard[~np.isnan(report.jaccard)], 0).all()
    assert all(value is None or value == 0 for value in report.to_json()["jaccard"])
    report.write(images.parent / "single-report")
