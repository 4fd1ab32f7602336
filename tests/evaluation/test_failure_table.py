"""evaluate: what is in the table, what it says of undefined values, and its three forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation import failure as fp


@pytest.fixture(scope="module")
def data() -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(5)
    correct = generator.random(400) < 0.8
    good = correct + generator.normal(size=400)
    return {"q_score": good, "l2_norm": generator.normal(size=400), "mine": -good}, correct


@pytest.fixture(scope="module")
def table(data: tuple[dict[str, np.ndarray], np.ndarray]) -> fp.FailureTable:
    return fp.evaluate(*data, num_resamples=400, notes=["a note"])


def test_values(data: tuple[dict[str, np.ndarray], np.ndarray], table: fp.FailureTable) -> None:
    scores, correct = data
    assert [row.rival.name for row in table.rows] == [*scores, "constant", "shuffled"]
    assert table.accuracy == pytest.approx(correct.mean())
    for name, score in scores.items():
        assert table.value(name, "auroc").value == pytest.approx(roc_auc_score(correct, score))
        expected = average_precision_score(correct, score)
        assert table.value(name, "auprc_success").value == pytest.approx(expected)
    constant = {c.name: table.value("constant", c.name).value for c in table.columns}
    assert constant["auroc"] == 0.5
    assert constant["auprc_success"] == pytest.approx(table.accuracy)
    assert constant["auprc_error"] == pytest.approx(1 - table.accuracy)
    shuffled = table.value("shuffled", "auroc")
    assert shuffled.interval is not None
    assert shuffled.interval.low < 0.5 < shuffled.interval.high


def test_intervals_and_differences(
    data: tuple[dict[str, np.ndarray], np.ndarray], table: fp.FailureTable
) -> None:
    values = fp.bootstrap(data[0], data[1], [fp.auroc()], 400)
    own = table.value("mine", "auroc")
    assert own.interval == fp.percentile_interval(values["mine"][:, 0])
    assert own.difference == pytest.approx(2 * table.value("q_score", "auroc").value - 1)
    paired = values["q_score"][:, 0] - values["mine"][:, 0]
    assert own.difference_interval == fp.percentile_interval(paired)
    assert table.value("q_score", "auroc").difference_interval is None


def test_seed_decides(data: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    tables = [fp.evaluate(*data, num_resamples=50, seed=seed) for seed in (1, 1, 2)]
    assert tables[0] == tables[1] != tables[2]
    a, b = (t.value("shuffled", "auroc").value for t in tables[1:])
    assert a != b


def test_json(table: fp.FailureTable) -> None:
    content = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert content["accuracy"] == table.accuracy
    assert content["notes"] == ["a note"]
    first = content["scores"][0]
    assert (first["name"], first["direction"], first["uses_labels"]) == ("q_score", "+", False)
    assert set(first["estimates"]) == {m["name"] for m in content["metrics"]}
    assert all(m["convention"] for m in content["metrics"])
    given = content["scores"][2]
    assert given["source"] == "given"
    assert given["uses_labels"] is None  # nobody knows
    assert "| mine (given) " in table.to_markdown()


def test_markdown(table: fp.FailureTable) -> None:
    lines = table.to_markdown().splitlines()
    assert lines[0].startswith(f"400 samples, {table.num_wrong} wrong: accuracy")
    rows = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + 5 + 2 + 4
    assert f"{table.value('q_score', 'auroc').value:.4f} [" in rows[2]
    assert "* AURC: mean over k" in table.to_markdown()
    assert lines[-1] == "* Note: a note"
    assert "Q-Score less the other" not in table.to_markdown(differences=False)


@pytest.mark.parametrize(("correct", "what"), [([1, 1, 1], "wrong"), ([0, 0, 0], "correct")])
def test_one_class(correct: list[int], what: str) -> None:
    table = fp.evaluate({"q_score": [1, 2, 3]}, correct, num_resamples=20)
    estimate = table.value("q_score", "auroc")
    assert (estimate.value, estimate.interval) == (None, None)
    assert estimate.undefined == (
        "auroc is undefined: it needs correct and wrong samples, and all 3 samples are "
        + ("correct" if correct[0] else "wrong")
    )
    assert f"no sample is {what}" in table.notes[0]
    assert "NaN" not in json.dumps(table.to_json())
    text = table.to_markdown()
    assert "nan" not in text.lower()
    assert "undefined (1)" in text
    assert f"(1) {estimate.undefined}" in text
    paper = fp.paper_table({"SimCLR": table})
    assert paper.splitlines()[2].split("|")[2].strip() == "undefined"


def test_few_wrong_and_undefined_resamples_are_said() -> None:
    table = fp.evaluate({"q_score": range(8)}, [0, *[1] * 7], num_resamples=200)
    assert "only 1 of 8 samples are wrong" in table.notes[0]
    interval = table.value("q_score", "auroc").interval
    assert interval is not None
    assert 0 < interval.num_undefined < 200
    # The resamples without the wrong one are the same for every score and metric: one note says so.
    lines = table.to_markdown().splitlines()
    assert [line for line in lines if "undefined in" in line] == [
        f"(1) undefined in {interval.num_undefined} of 200 resamples, which the interval leaves out"
    ]


def test_no_resamples(data: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    table = fp.evaluate(*data, num_resamples=0)
    assert table.value("mine", "auroc").interval is None
    assert table.value("mine", "auroc").difference is not None
    assert "resamples" not in table.to_markdown().splitlines()[0]


def test_paper_table(table: fp.FailureTable) -> None:
    lines = fp.paper_table({"SimCLR": table, "a|b": table}).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:5]] == [
        "model", "AUROC", "AUPRC", "base accuracy",
    ]  # fmt: skip
    cells = [cell.strip() for cell in lines[2].split("|")[1:]]
    auroc, auprc = (table.value("q_score", m).value for m in ("auroc", "auprc_success"))
    assert auroc is not None
    assert auprc is not None
    assert cells[:5] == [
        "SimCLR", f"{100 * auroc:.2f}", f"{100 * auprc:.2f}", f"{100 * table.accuracy:.2f}",
        f"{100 * (auprc - table.accuracy):+.2f}",
    ]  # fmt: skip
    assert lines[3].startswith("| a\\|b ")
    with pytest.raises(SettingsError, match="the table of x lacks nothing"):
        fp.paper_table({"x": table}, "nothing")


def test_bad_input() -> None:
    scores = {"q_score": [1.0, 2.0], "bad": [1.0, np.nan]}
    for given, correct, settings, message in (
        (scores, [0, 1], {}, "bad is NaN for 1 of 2 samples"),
        ({}, [0, 1], {}, "scores is empty"),
        ({"constant": [1, 2]}, [0, 1], {}, "'constant' is taken"),
        ({"a": [1, 2, 3]}, [0, 1], {}, r"a has the shape \(3,\)"),
        ({"a": [1, 2]}, [0, 1], {"level": 1.0}, "level = 1"),
        ({"a": [1, 2]}, [0, 1], {"num_resamples": -1}, "num_resamples = -1"),
        ({"a": [1, 2]}, [0, 1], {"metrics": [fp.auroc(), fp.auroc()]}, "give each once"),
    ):
        with pytest.raises(SettingsError, match=message):
            fp.evaluate(given, correct, **settings)
