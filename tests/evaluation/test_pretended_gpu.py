"""What is asked of a GPU, on machines without one: every operand is there, and the host seldom waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import OnGPU, pretended_gpu
from sample_data import save_images
from sklearn.datasets import load_digits

from qscore_fast.encoders import Encoder
from qscore_fast.evaluation.compression import compression_curve_of_runs
from qscore_fast.evaluation.failure import RivalSettings, evaluate_run, fitted_probe
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.knn import nearest
from qscore_fast.evaluation.knn import search as search_module
from qscore_fast.evaluation.logistic import SoftmaxProblem, chosen_C, fit_logistic
from qscore_fast.evaluation.measures import measure_run
from qscore_fast.evaluation.probes import knn_probe, linear_probe
from qscore_fast.evaluation.sgd import PROTOCOLS, SGDProtocol, fit_sgd
from qscore_fast.scoring import ScoreRun, score

SLOW = SGDProtocol((0.01, 0.5), epochs=2, batch_size=64, weight_decay=1e-4, trust=None)
PROTOCOLS_TRIED = {
    "sgd": SLOW,
    "larc": replace(SLOW, trust=0.01),
    "nesterov": replace(SLOW, nesterov=True),
    "dinov2": replace(PROTOCOLS["dinov2"], epochs=2, batch_size=64),
}


@pytest.fixture(scope="module")
def digits() -> tuple[FeatureRows, np.ndarray]:
    """Of two parts, float16."""
    data = load_digits()
    x = (data.data[:600] / 16).astype(np.float16)
    return FeatureRows((x[:250], x[250:])), data.target[:600].astype(np.int64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> list[ScoreRun]:
    """Training images, test images, and these mirrored."""
    place = tmp_path_factory.mktemp("runs")
    train = score(
        save_images(place / "train", 150), encoder, place / "a", embeddings="npy", eps=3.0
    )
    images = save_images(place / "test", 60, start=200)
    views = (encoder, encoder.with_view("flip"))
    return [train] + [
        score(images, shown, place / f"b{n}", train.features, embeddings="npy")
        for n, shown in enumerate(views)
    ]


def on_both(ask: Callable[[str], Any]) -> tuple[Any, Any]:
    here = ask("cpu")
    with pretended_gpu():
        return here, ask("cuda")


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with pretended_gpu() as gpu:
        there, here = torch.arange(3.0, device="cuda"), torch.ones(3)
        assert there.device.type == (there + 1).device.type == here.to("cuda").device.type == "cuda"
        for wrong in (
            lambda: there + here,
            lambda: here[there.long()],
            lambda: torch.cat([here, there]),
            lambda: there.numpy(),
        ):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert gpu.waits == 0
        assert float(there.sum()) == 3 and (2 * there).cpu().tolist() == there.mul_(2).tolist()
        assert there[torch.tensor([1])].tolist() == [2]
        assert gpu.waits == 4
    assert isinstance(there, OnGPU)


def test_logistic_regression(digits, monkeypatch):
    monkeypatch.setattr("qscore_fast.evaluation.logistic.softmax_problem.CHUNK_ROWS", 128)
    rows, y = digits  # chunks, and a rest
    subsets = [np.arange(40), np.arange(64)]

    def fits(device: str) -> Any:
        problem = SoftmaxProblem(rows, y, 10, device=device)
        return fit_logistic(problem, [0.01, 0.1], subsets), chosen_C(rows, y, 10, device=device)

    (here, C), (there, C_there) = on_both(fits)
    assert C_there == pytest.approx(C, rel=1e-6)
    for one, other in zip(here, there, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4)


def test_logistic_regression_waits_twice_an_iteration(digits):
    """For the losses of all probes and the products of each; loops over pairs would wait thirty times."""
    rows, y = digits
    with pretended_gpu() as gpu:
        problem = SoftmaxProblem(rows, y, 10, device="cuda")
        gpu.waits = 0
        (fit,) = fit_logistic(problem, [1.0], tolerance=1e-9)
        assert fit.iterations > 12
        assert gpu.waits <= 2 * (fit.iterations + 1) + 12


@pytest.mark.parametrize("resident", [None, 0], ids=["kept", "read"])
@pytest.mark.parametrize("name", PROTOCOLS_TRIED)
def test_sgd_never_waits_between_steps(digits, name, resident):
    rows, y = digits
    protocol = PROTOCOLS_TRIED[name]

    def weights(device: str) -> Any:
        return fit_sgd(rows, y, 10, protocol, device=device, resident=resident)

    here = weights("cpu")
    with pretended_gpu() as gpu:
        there = weights("cuda")
        assert gpu.waits <= 3
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(other.weight.cpu(), one.weight)


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_neighbours(digits, itself, small, monkeypatch):
    if small:
        monkeypatch.setattr(search_module, "QUERY_BYTES", 4 * 64 * 100)
        monkeypatch.setattr(search_module, "COSINE_BYTES", 4 * 100 * 37)
    rows, _ = digits
    here, there = on_both(lambda device: nearest(rows, rows, 9, itself=itself, device=device))
    np.testing.assert_allclose(here.similarity, there.similarity, atol=1e-6)


def test_probes_of_runs(runs):
    train, test, _ = runs

    def found(device: str) -> list[dict[str, Any]]:
        return [
            linear_probe(train, test, C=0.1, device=device).to_json(),
            linear_probe(train, test, protocol="dinov2", epochs=1, device=device).to_json(),
            knn_probe(train, test, ks=[1, 5], device=device).to_json(),
        ]

    for here, there in zip(*on_both(found), strict=True):
        names = [name for name in here if name.startswith("top")]
        assert [here[name] for name in names] == pytest.approx([there[name] for name in names])


def test_the_curve(runs):
    train, test, _ = runs

    def means(device: str) -> list[float]:
        curve = compression_curve_of_runs(
            train, test, shares=(0.4,), num_seeds=1, C=0.1, device=device
        )
        return [point.mean for point in curve.points]

    here, there = on_both(means)
    assert there == pytest.approx(here, abs=0.02)


def test_failure_prediction(runs, tmp_path: Path):
    train, test, flipped = runs
    linear_probe(train, test, C=0.1).write(tmp_path)

    def scores(device: str) -> dict[str, np.ndarray]:
        evaluated = evaluate_run(
            test, tmp_path / "probe.parquet", reference=train, logits=tmp_path / "logits.npy",
            views=[flipped], num_resamples=10, settings=RivalSettings(device=device),
        )  # fmt: skip
        return evaluated.scores

    here, there = on_both(scores)
    assert here.keys() == there.keys()
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    fitted = [fitted_probe(train, probe="knn", device="cpu")]
    with pretended_gpu():
        fitted.append(fitted_probe(train, probe="knn", device="cuda"))
    assert fitted[0].correctness.correct.tolist() == fitted[1].correctness.correct.tolist()


def test_measures(digits):
    rows, _ = digits
    h = rows.to_array()
    views = np.stack([h, h + np.float16(0.01)], 1)

    def values(device: str) -> list[float | None]:
        found = measure_run([h[:200], h[200:]], views=[views], device=device)
        return [one.value for one in found.measures.values()]

    here, there = on_both(values)
    assert there == pytest.approx(here, rel=1e-6)
