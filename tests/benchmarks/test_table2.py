"""Table 2: verdicts follow from the intervals; the experiment runs on ImageNet's layout and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagenet_tree import save_imagenet_tree
from published import ROWS
from sample_data import save_images
from scipy import stats
from sklearn.metrics import roc_auc_score

import qscore_fast as qf
from benchmarks.science.claims import FAILS, HOLDS, OPEN
from benchmarks.table2.__main__ import _parser, main
from benchmarks.table2.document import document
from benchmarks.table2.gains import gain, over_systems, values
from benchmarks.table2.plan import plan_of
from benchmarks.table2.published import TABLE_2
from benchmarks.table2.reading import collapsed, facts, verdicts
from benchmarks.table2.representation import has_collapsed, representation
from benchmarks.table2.small_systems import OBJECTIVES, SYSTEMS, small_encoder
from qscore_fast.encoders import load_encoder
from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import Settings
from qscore_fast.finetuning.export import export
from qscore_fast.finetuning.starting import starting

SEEDS = (0, 1, 2)


def system(name: str, gains: tuple[float, ...], lasso: float = 0.0, **given: Any) -> dict[str, Any]:
    """A system whose Q-Score arm gains these over a control that varies with the seed."""

    def row(arm: str, seed: int | None, linear: float) -> dict[str, Any]:
        log = {"steps": 5, "first_ssl": 9.0, "ssl": 8.0, "q_term": -1e-5, "column_term": 0.1}
        found = {
            "arm": arm, "seed": seed, "linear": linear, "knn": linear - 0.05, "mean_q": linear / 5,
            "auroc": linear - 0.2, "rankme": 90.0, "normalised_std": 0.6, "collapsed": False,
            "log": None if arm == "base" else log,
        }  # fmt: skip
        return found | given

    control = [0.80 + 0.01 * seed for seed in SEEDS]
    rows = [row("base", None, 0.79)]
    rows += [row("control", s, c) for s, c in zip(SEEDS, control, strict=True)]
    rows += [row("lasso", s, c + lasso) for s, c in zip(SEEDS, control, strict=True)]
    rows += [row("qscore", s, c + g) for s, c, g in zip(SEEDS, control, gains, strict=True)]
    return {
        "system": name, "checkpoint": f"{name}.pth", "encoder": "ResNet", "num_features": 512,
        "discovery": {"eps": 2.9, "num_discriminative": 230, "empty_fraction": 0.004},
        "pretraining": None, "untrained": None, "moved": None, "rows": rows,
    }  # fmt: skip


GAINS = {
    "simclr": (0.010, 0.012, 0.011),
    "swav": (0.001, -0.002, 0.001),
    "byol": (-0.02, -0.021, -0.02),
}


@pytest.fixture
def systems() -> list[dict[str, Any]]:
    return [system(name, gains) for name, gains in GAINS.items()]


def test_gains_are_paired_by_seed(systems):
    first = systems[0]
    pairs = [values(first, arm, "linear") for arm in ("qscore", "control")]
    expected = stats.ttest_rel(*pairs).confidence_interval(0.95)
    found = gain(first, "qscore", "linear")
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(expected)
    expected = stats.ttest_1samp(pairs[1], 0.79).confidence_interval(0.95)
    found = gain(first, "control", "linear", over="base")
    assert found.mean + found.half_width == pytest.approx(expected.high - 0.79)
    means = [np.mean(gains) for gains in GAINS.values()]
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert over_systems(systems, "qscore", "linear").half_width == pytest.approx(
        (expected.high - expected.low) / 2
    )


def test_verdicts_name_the_systems(systems):
    base, first = verdicts(systems)[:2]
    # All three have the same AUROC, 59: nothing spreads.
    assert (base.verdict, base.because[:6]) == (HOLDS, "+9.00 ")
    assert first.verdict == OPEN
    assert "SimCLR significantly above, BYOL significantly below, SwAV neither" in first.because
    alike = [system(name, (0.010, 0.012, 0.011)) for name in ("simclr", "swav", "byol")]
    assert verdicts(alike)[1].verdict == HOLDS
    assert verdicts([system(name, (-0.010, -0.012, -0.011)) for name in GAINS])[1].verdict == FAILS
    # One point is less than the paper's four.
    assert verdicts(alike)[2].verdict == FAILS
    assert "+1.10 ± 0.00" in verdicts(alike)[2].because


def test_one_system_decides_nothing_alone():
    assert {verdict.verdict for verdict in verdicts([system("dino", (0.01, 0.01, 0.01))])} == {OPEN}


def test_what_is_undefined_stays_out(systems):
    systems[1]["rows"][-1]["auroc"] = None
    assert gain(systems[1], "qscore", "auroc") is None
    assert over_systems(systems, "qscore", "auroc").count == 2
    systems[0]["rows"][4]["collapsed"] = True
    assert collapsed(systems) == ["SimCLR, lasso, seed 0"]


def test_the_papers_gains():
    gains = {name: tuple(round(b - a, 2) for a, b in pairs) for name, pairs in TABLE_2.items()}
    assert gains == {
        "simclr": (2.15, 2.38), "swav": (4.54, 1.10), "moco": (5.54, 2.28), "byol": (5.84, 3.67),
        "dino": (0.98, 0.26), "simsiam": (2.61, 1.85), "vicreg": (1.79, 1.09),
        "barlow_twins": (0.40, 1.73),
    }  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_small_systems_fit_their_official_layouts(name, tmp_path):
    encoder = small_encoder(name)
    assert encoder.num_features == 512
    settings = Settings(objective=dict(OBJECTIVES[name]), batch_size=128)
    begun = starting(encoder, name, settings)
    found = load_encoder(export(begun.objective, encoder, tmp_path / f"{name}.pth"), device="cpu")
    assert found.system == name
    assert found.preprocess == encoder.preprocess
    again = starting(found, name, settings)
    assert again.fresh_heads == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--imagenet", "x"], "--checkpoints SYSTEM=FILE"),
        (["--checkpoints", "simclr"], "SYSTEM=FILE, got 'simclr'"),
        (["--checkpoints", "byol=a", "byol=b"], "a system twice"),
        (["--systems", "simclr", "mae"], "no 'mae'"),
        (["--arms", "control", "ridge"], "choose each once of control, lasso, qscore"),
        (["--seeds", "1", "1"], "each once"),
        (["--lambda1", "-1"], "lambda1"),
    ],
)
def test_what_cannot_be_done_is_refused_first(words, message):
    with pytest.raises(SettingsError, match=message):
        plan_of(_parser().parse_args(["--out", "x", *words]))


def test_published_checkpoints_have_the_papers_settings():
    plan = plan_of(
        _parser().parse_args(["--out", "x", "--imagenet", "i", "--checkpoints", "byol=a.pkl"])
    )
    assert plan.tuning == Settings(keep=0, collapse_below=0.0)
    assert (plan.tuning.preset, plan.pretraining, plan.systems) == ("paper", None, ("byol",))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_imagenet_tree(tmp_path_factory.mktemp("imagenet"), num_train=16, num_val=24)


def test_the_papers_own_table_on_imagenets_layout(tree, tmp_path, capsys):
    rows = {"simsiam": "simsiam-official", "vicreg": "vicreg-official-full"}
    files = []
    for name, row in rows.items():
        written = next(one for one in ROWS if one.id == row).write(tmp_path / name, stem=4)
        files.append(f"{name}={written.path}")
    words = [
        "--imagenet", str(tree), "--checkpoints", *files, "--out", str(tmp_path / "work"),
        "--results", str(tmp_path / "results"), "--document", str(tmp_path / "docs"),
        "--steps", "3", "--batch-size", "16", "--lr", "0.01", "--seeds", "0", "--image-size", "32",
        "--arms", "control", "qscore", "--workers", "0", "--device", "cpu",
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().err
    assert said.index("estimated time") < said.index("simsiam-arms ...")
    assert "48 training and 24 test images of 3 classes" in said
    (file,) = tmp_path.joinpath("results").rglob("table2-*.json")
    result = json.loads(file.read_text())
    assert [one["system"] for one in result["systems"]] == ["simsiam", "vicreg"]
    for one in result["systems"]:
        assert [(row["arm"], row["seed"]) for row in one["rows"]] == [
            ("base", None), ("control", 0), ("qscore", 0)
        ]  # fmt: skip
        fingerprints = {row["fingerprint"] for row in one["rows"]}
        assert len(fingerprints) == 3
        assert len({row["ridge"] for row in one["rows"]}) == 1
        # Embeddings are gone, what follows from them is kept.
        arms = tmp_path / "work" / one["system"] / "arms"
        assert {path.name for path in arms.rglob("*.npy")} == {"logits.npy"}
        assert all(row["rankme"] >= 1 for row in one["rows"])
    text = (tmp_path / "docs" / "table2.md").read_text()
    assert f"{100 * result['systems'][0]['rows'][0]['linear']:.2f}" in text
    assert "78.80 → 81.41 (+2.61)" in text
    assert (tmp_path / "docs" / "images" / "table2-gains.svg").stat().st_size > 2000

    # One step is lost: what it was made of is still there, and the rest is not done again.
    (tmp_path / "work" / "vicreg-arms.json").unlink()
    file.unlink()
    assert main([*words, "--no-estimate"]) == 0
    said = capsys.readouterr().err
    assert said.count("done before") == 1 and "vicreg-arms ..." in said
    (file,) = tmp_path.joinpath("results").rglob("table2-*.json")
    assert json.loads(file.read_text())["systems"] == result["systems"]


def test_weak_encoders_are_called_weak(systems):
    for one, before in zip(systems, (0.78, 0.76, 0.80), strict=True):
        one["untrained"] = {"linear": before, "knn": 0.7}
    text = " ".join(facts({"systems": systems, "stopped": {}}))
    assert "by -1.00 (BYOL) to +3.00 points (SwAV) from" in text
    assert "weak" in text
    systems[1]["untrained"]["linear"] = 0.5
    assert "weak" not in " ".join(facts({"systems": systems, "stopped": {}}))


def test_the_document_says_what_is_missing(systems):
    result = {
        "environment": {"device": "x", "cores": 2, "torch": "2", "python": "3"},
        "data": {"name": "Some", "images": "9 images", "probes": "9 images"},
        "plan": {
            "pretraining": None, "seeds": [0, 1, 2], "objectives": {},
            "tuning": {"optimiser": None, "lr": None, "steps": None, "epochs": None,
                       "batch_size": None, "lambda1": 1e-4, "lambda2": 1e-4, "reduction": "sum"},
        },
        "systems": systems, "stopped": {"dino": "the loss is NaN"}, "file": "f.json",
    }  # fmt: skip
    text = document(result)
    assert "Missing here: MoCo, DINO, SimSiam, VICReg, Barlow Twins." in text
    assert "DINO stopped: the loss is NaN." in text
    assert "LARS at a peak rate of 1e-05, 50 epochs of 256 images" in text
    assert "| SimCLR | 79.00 | 81.00 ± 2.48 |" in text
    assert max(map(len, (line for line in text.splitlines() if not line.startswith("|")))) <= 110


def test_auroc_of_a_representation_is_scikit_learns(tmp_path):
    encoder = small_encoder("simsiam")
    images = save_images(tmp_path / "images", 120)
    for split in ("train", "test"):
        qf.score(images, encoder, tmp_path / split, embeddings="npy", device="cpu")
    (tmp_path / "linear").mkdir()
    right = np.random.default_rng(0).random(120) < 0.6
    pq.write_table(pa.table({"correct": right}), tmp_path / "linear" / "probe.parquet")
    found = representation(tmp_path, 2.5, encoder.fingerprint)
    h = np.concatenate([np.load(p) for p in sorted((tmp_path / "test" / "parts").glob("*.npy"))])
    h = h.astype(np.float64)
    above = h > h.mean(1, keepdims=True) + 2.5 * h.std(1, ddof=1, keepdims=True)
    share = above.mean(0)
    low, high = np.percentile(share, [50, 95])
    in_d = (share >= low) & (share <= high) & (share > 0)
    chosen = above & in_d
    z = (h - h.mean(1, keepdims=True)) / np.linalg.norm(h, axis=1, keepdims=True)
    q = np.where(chosen.any(1), (z * chosen).sum(1) / np.maximum(chosen.sum(1), 1), 0)
    assert found["num_discriminative"] == in_d.sum()
    assert found["own_mean_q"] == pytest.approx(q.mean(), rel=1e-4)
    assert found["auroc"] == pytest.approx(roc_auc_score(right, q), abs=1e-3)
    singular = np.linalg.svd(h, compute_uv=False)
    p = singular / singular.sum()
    assert found["rankme"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=0.01)
    assert not has_collapsed(found, found)
    assert has_collapsed({"normalised_std": 0.01}, found)
    (tmp_path / "linear" / "probe.parquet").unlink()  # known by now
    assert representation(tmp_path, 2.5, encoder.fingerprint) == found
