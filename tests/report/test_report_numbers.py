"""The numbers of a report against other libraries and the equations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from full_report import FullReport
from PIL import Image
from scipy import stats
from sklearn import metrics

from qscore_fast import reference
from qscore_fast.encoders import load_encoder
from qscore_fast.images import path_of_sample_id


@pytest.fixture(scope="module")
def content(full: FullReport) -> dict[str, Any]:
    """The JSON file."""
    return json.loads(full.written.json.read_text())


@pytest.fixture(scope="module")
def table(full: FullReport) -> pd.DataFrame:
    """The scores, in the order of the file."""
    return pq.read_table(full.run.path / "scores.parquet").to_pandas()


def test_distribution(content: dict[str, Any], table: pd.DataFrame) -> None:
    found, q = content["distribution"], table["q_score"].to_numpy(np.float64)
    assert found["num_scored"] == len(q)
    assert found["mean"] == pytest.approx(q.mean(), rel=1e-9)
    for share, value in found["quantiles"].items():
        assert value == pytest.approx(np.quantile(q, float(share)), rel=1e-6, abs=1e-9)
    assert found["num_zero"] == (table["num_active"] == 0).sum()
    edges = found["histogram"]["edges"]
    assert found["histogram"]["counts"] == np.histogram(q, edges)[0].tolist()
    assert sum(found["histogram"]["counts"]) == len(q)


def test_classes(content: dict[str, Any], table: pd.DataFrame) -> None:
    groups = table.groupby("label")["q_score"]
    found = {item["label"]: item for item in content["classes"]}
    assert set(found) == set(groups.groups)
    for label, own in groups:
        assert found[label]["num_scored"] == len(own)
        for name, share in (("min", 0), ("q05", 0.05), ("median", 0.5), ("q95", 0.95), ("max", 1)):
            expected = own.astype(float).quantile(share)
            assert found[label][name] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    medians = [item["median"] for item in content["classes"]]
    assert medians == sorted(medians)


def test_galleries(content: dict[str, Any], table: pd.DataFrame) -> None:
    images, galleries = content["images"], content["galleries"]

    def ids(places: list[int]) -> list[str]:
        return [images[place]["sample_id"] for place in places]

    ascending = table.sort_values("q_score", kind="stable")["sample_id"].tolist()
    lowest, highest, typical = (ids(galleries[n]) for n in ("lowest", "highest", "typical"))
    assert lowest == ascending[: len(lowest)]
    assert highest == ascending[::-1][: len(highest)]
    middle = (len(ascending) - len(typical)) // 2
    assert typical == ascending[middle : middle + len(typical)]
    for item in galleries["per_class"]:
        own = table[table["label"] == item["label"]].sort_values("q_score", kind="stable")
        assert ids(item["images"]) == own["sample_id"].tolist()[: len(item["images"])]
    assert len({image["row"] for image in images}) == len(images)


def test_active_features_are_those_of_the_equations(
    content: dict[str, Any], full: FullReport
) -> None:
    encoder = load_encoder(full.checkpoint, device="cpu")
    features = full.run.features
    entries = content["images"][::7]
    pixels = []
    for entry in entries:
        with Image.open(full.images / path_of_sample_id(entry["sample_id"]).decode()) as image:
            pixels.append(encoder.preprocess(image))
    h = encoder(torch.stack(pixels)).double()
    active = reference.highly_active(h, features.eps) & features.mask
    height = (h - h.mean(1, keepdim=True)) / h.norm(dim=1, keepdim=True)
    for entry, mask, own in zip(entries, active, height, strict=True):
        expected = sorted(mask.nonzero().flatten().tolist(), key=lambda j: -float(own[j]))
        assert [item["feature"] for item in entry["features"]] == expected[:8]
        for item in entry["features"]:
            assert item["value"] == pytest.approx(float(own[item["feature"]]), rel=1e-4)


def test_top_features_show_the_images_in_which_they_are_highest(
    content: dict[str, Any], full: FullReport
) -> None:
    embeddings = full.run.embeddings().astype(np.float64)
    ids = full.run.scores()["sample_id"].to_pylist()
    centred = embeddings - embeddings.mean(1, keepdims=True)
    height = centred / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for item in content["features"]["top"]:
        assert full.run.features.mask[item["feature"]]
        column = height[:, item["feature"]]
        shown = [ids.index(content["images"][place]["sample_id"]) for place in item["images"]]
        assert column[shown[0]] == pytest.approx(column.max(), rel=2e-3)  # of float16
        assert item["values"] == pytest.approx(column[shown].tolist(), rel=2e-3)
    assert content["features"]["num_discriminative"] == int(full.run.features.mask.sum())


def test_failure_curves(content: dict[str, Any], full: FullReport, table: pd.DataFrame) -> None:
    correct = pq.read_table(full.probe / "probe.parquet")["correct"].to_numpy()
    q = table["q_score"].to_numpy()
    (curve,) = [c for c in content["failure"]["curves"] if c["name"] == "q_score"]
    assert content["failure"]["accuracy"] == pytest.approx(correct.mean())
    area = np.trapezoid([0, *curve["true_positive_rate"]], [0, *curve["false_positive_rate"]])
    assert area == pytest.approx(metrics.roc_auc_score(correct, q), abs=1e-9)
    precision, recall, _ = metrics.precision_recall_curve(correct, q)
    expected = dict(zip(recall.tolist(), precision.tolist(), strict=True))
    points = list(zip(curve["true_positive_rate"], curve["precision"], strict=True))
    assert sum(r in expected and expected[r] == pytest.approx(p) for r, p in points) > 50
    assert curve["risk"][-1] == pytest.approx(1 - correct.mean())
    assert curve["coverage"][-1] == 1


def test_comparison(content: dict[str, Any], full: FullReport, table: pd.DataFrame) -> None:
    other = pq.read_table(full.other.path / "scores.parquet").to_pandas()
    both = table.merge(other, on="sample_id", suffixes=("", "_other"))
    found = content["comparison"]
    assert found["same_source"]
    assert found["num_common"] == len(both)
    change = both["q_score"].astype(float) - both["q_score_other"].astype(float)
    assert found["mean_change"] == pytest.approx(change.mean(), abs=1e-9)
    assert found["share_up"] == pytest.approx((change > 0).mean())
    expected = stats.spearmanr(both["q_score"], both["q_score_other"]).statistic
    assert found["rank_correlation"] == pytest.approx(expected, abs=1e-9)
    largest = both.loc[change.idxmax(), "sample_id"]
    assert content["images"][found["up"][0]["image"]]["sample_id"] == largest
