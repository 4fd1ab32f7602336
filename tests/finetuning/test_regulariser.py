"""The regulariser in the loop: its terms, its schedule, lasso, and what it does to held-out images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import features_of, representations, small_encoder, small_settings

import qscore_fast as qf
from qscore_fast.finetuning import Lambdas, RepresentationRegulariser, finetune
from qscore_fast.finetuning.regulariser import gini


@pytest.fixture(scope="module")
def h() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 64, generator=generator).relu().pow(3)


def transcribed(h: np.ndarray, mask: np.ndarray, eps: float) -> dict[str, float]:
    """The terms as the paper has them, image by image and column by column, in float64."""
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    q = []
    for row in unit:
        chosen = (row > row.mean() + eps * row.std(ddof=1)) & mask
        q.append((row[chosen] - row.mean()).mean() if chosen.any() else 0.0)
    columns = np.abs(unit).sum(0)
    low = [value for value in q if value < np.mean(q)]
    high = columns[columns > columns.mean()]
    n = len(columns)
    differences = np.abs(columns[:, None] - columns[None]).sum()
    return {
        "mean_q": float(np.mean(q)),
        "below_alpha": len(low) / len(q),
        "q_term": -0.3 * sum(low) / len(q),
        "column_term": 0.02 * high.sum(),
        "column_gini": differences / (2 * n * n * columns.mean()),
        "column_top1": columns.max() / columns.sum(),
    }


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_terms_are_those_of_the_paper_and_add_up_to_the_loss(
    h: torch.Tensor, reduction: str
) -> None:
    mask = torch.arange(64) % 3 != 0
    regulariser = RepresentationRegulariser("qscore", mask, Lambdas(0.3, 0.02), reduction, 2.0)
    found = {name: float(value) for name, value in regulariser.terms(h, 0, 1).items()}
    expected = transcribed(h.double().numpy(), mask.numpy(), 2.0)
    if reduction == "mean":
        expected["column_term"] /= len(h)
    assert found == pytest.approx(expected, rel=1e-5)
    loss = regulariser(h, 0, 1)
    assert float(loss) == pytest.approx(found["q_term"] + found["column_term"], rel=1e-5)


def test_gini_of_extremes() -> None:
    assert float(gini(torch.ones(10))) == pytest.approx(0, abs=1e-7)
    assert float(gini(torch.eye(10)[0])) == pytest.approx(0.9)
    assert float(gini(torch.zeros(10))) == 0


def test_lasso_is_the_l1_norm(h: torch.Tensor) -> None:
    h = h.clone().requires_grad_()
    lasso = RepresentationRegulariser("lasso", None, Lambdas(0.5, 7.0), "sum")
    lasso(h, 0, 1).backward()
    torch.testing.assert_close(h.grad, 0.5 * h.detach().sign())
    mean = RepresentationRegulariser("lasso", None, Lambdas(0.5), "mean")
    assert float(mean(h.detach(), 0, 1)) == pytest.approx(
        0.5 * float(h.detach().abs().sum(1).mean())
    )
    assert float(mean.terms(h, 0, 1)["lasso_term"]) == pytest.approx(float(mean(h.detach(), 0, 1)))


@pytest.mark.parametrize("kind, lambdas", [("none", Lambdas()), ("qscore", Lambdas(0, 0))])
def test_a_control_adds_nothing(h: torch.Tensor, kind: str, lambdas: Lambdas) -> None:
    assert RepresentationRegulariser(kind, None, lambdas)(h, 0, 1) is None


def test_schedules_of_the_lambdas() -> None:
    warm = Lambdas(1.0, 2.0, "warmup")
    assert [warm.at(step, 100)[0] for step in (0, 5, 10, 99)] == [0, 0.5, 1, 1]
    annealed = Lambdas(1.0, 2.0, "warmup_anneal")
    assert [annealed.at(step, 100)[1] for step in (5, 50)] == [1, 2]
    assert annealed.at(75, 100)[1] == pytest.approx(1)
    assert annealed.at(100, 100) == (0, 0)


def test_raising_lambda1_raises_mean_q_of_held_out_images(
    few_images: Path, held_out: Path, tmp_path: Path
) -> None:
    encoder = small_encoder(3)
    features = features_of(encoder, few_images)
    found = []
    for lambda1 in (0.0, 4.0):
        settings = small_settings(steps=25, lambda1=lambda1, lambda2=0.0, log_every=25, keep=0)
        out = tmp_path / str(lambda1)
        trained = finetune(encoder, few_images, features, out, settings, device="cpu").encoder()
        h = representations(trained, held_out)
        found.append(float(qf.q_score(h, features).mean()))
    assert found[0] < found[1]
