"""Each loss and its gradients against the official definition, and what must not change it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import official_objectives as official
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from qscore_fast.finetuning.objectives.barlow_twins import barlow_twins_terms
from qscore_fast.finetuning.objectives.byol import byol_loss
from qscore_fast.finetuning.objectives.dino import dino_loss
from qscore_fast.finetuning.objectives.moco import moco_loss
from qscore_fast.finetuning.objectives.moco_v3 import contrast
from qscore_fast.finetuning.objectives.simclr import nt_xent_loss
from qscore_fast.finetuning.objectives.simsiam import simsiam_loss
from qscore_fast.finetuning.objectives.sinkhorn import sinkhorn
from qscore_fast.finetuning.objectives.swav import swav_loss
from qscore_fast.finetuning.objectives.vicreg import vicreg_terms

N, D, K = 5, 4, 6
T = 0.3
WEIGHTS = (25.0, 20.0, 1.5)
ANY = np.random.default_rng(1)
QUEUE = ANY.normal(size=(K, D))
QUEUE /= np.linalg.norm(QUEUE, axis=1, keepdims=True)
CENTER = ANY.normal(size=D)
QUEUED = ANY.uniform(-1, 1, size=(2, 3, D))
OFF = 0.02


def t(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def like(array: np.ndarray, other: Tensor) -> Tensor:
    """Constants, which training keeps in float32."""
    return t(array).to(torch.promote_types(other.dtype, torch.float32))


def unit(keys: Tensor) -> Tensor:
    return F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=1)


def codes(*x: np.ndarray) -> list[np.ndarray]:
    found = []
    for queued, scores in zip(QUEUED, x[:2], strict=True):
        found.append(official.swav_codes(np.concatenate([queued, scores]), 0.4, 3)[-len(scores) :])
    return found


def vicreg(z1: Tensor, z2: Tensor) -> Tensor:
    return sum(
        (w * term for w, term in zip(WEIGHTS, vicreg_terms(z1, z2), strict=True)), z1.sum() * 0
    )


def barlow_twins(z1: Tensor, z2: Tensor) -> Tensor:
    on, off = barlow_twins_terms(z1, z2)
    return on + OFF * off


@dataclass(frozen=True)
class Case:
    """A loss of `inputs` tensors (N, D), the first `trained` of which have a gradient.

    ours: of torch tensors; official: of arrays, given the arrays at which constants are taken.
    scale, swap: the invariances that it has, as a set of inputs and as a permutation of them.
    """

    name: str
    inputs: int
    trained: int
    ours: Callable[..., Tensor]
    official: Callable[..., float]
    scaled: tuple[int, ...] = ()
    swap: tuple[int, ...] | None = None


CASES = (
    Case("simclr", 2, 2, lambda a, b: nt_xent_loss(a, b, T),
         lambda x, at: official.simclr(*x, T), (0, 1), (1, 0)),
    Case("swav", 4, 4, lambda *s: swav_loss(s, like(QUEUED, s[0]), T, 0.4, 3),
         lambda x, at: official.swav(x, codes(*at), T)),
    Case("moco", 2, 1, lambda q, k: moco_loss(q, unit(k), like(QUEUE, q), T),
         lambda x, at: official.moco(x[0], at[1], QUEUE, T), (0,)),
    Case("moco_v3", 2, 1, lambda q, k: contrast(q, k, T),
         lambda x, at: official.moco_v3(x[0], at[1], T), (0, 1)),
    Case("byol", 4, 2, byol_loss, lambda x, at: official.byol(x[0], x[1], at[2], at[3]),
         (0, 1, 2, 3), (1, 0, 3, 2)),
    Case("simsiam", 4, 2, simsiam_loss,
         lambda x, at: official.simsiam(x[0], x[1], at[2], at[3]), (0, 1, 2, 3), (1, 0, 3, 2)),
    Case("dino", 6, 4, lambda *s: dino_loss(s[:4], s[4:], like(CENTER, s[0]), 0.07, 0.2)[0],
         lambda x, at: official.dino(x[:4], at[4:], CENTER, 0.07, 0.2), (), (1, 0, 3, 2, 5, 4)),
    Case("vicreg", 2, 2, vicreg, lambda x, at: official.vicreg(*x, WEIGHTS), (), (1, 0)),
    Case("barlow_twins", 2, 2, barlow_twins, lambda x, at: official.barlow_twins(*x, OFF), (), (1, 0)),
)  # fmt: skip
BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def arrays(case: Case) -> list[np.ndarray]:
    drawn = np.random.default_rng(0)
    return [drawn.normal(size=(N, D)) for _ in range(case.inputs)]


def tensors(case: Case) -> list[Tensor]:
    return [t(array) for array in arrays(case)]


@BY_NAME
def test_value_and_gradients_are_the_official_ones(case: Case) -> None:
    at = arrays(case)
    ours = [t(array).requires_grad_() for array in at]
    loss = case.ours(*ours)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(case.official(at, at), rel=1e-12)
    loss.backward()
    for place in range(case.trained):

        def varied(x: np.ndarray, place: int = place) -> float:
            return case.official([*at[:place], x, *at[place + 1 :]], at)

        expected = official.gradient(varied, at[place])
        assert ours[place].grad is not None
        np.testing.assert_allclose(ours[place].grad.numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name in ("byol", "simsiam")], ids=lambda c: c.name
)
def test_targets_have_no_gradient(case: Case) -> None:
    ours = [t(array).requires_grad_() for array in arrays(case)]
    case.ours(*ours).backward()
    assert [x.grad is not None for x in ours] == [True, True, False, False]


@BY_NAME
def test_the_order_of_the_images_does_not_matter(case: Case) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    given = tensors(case)
    torch.testing.assert_close(case.ours(*(x[order] for x in given)), case.ours(*given))


@BY_NAME
def test_lengths_and_order_of_views_where_they_do_not_matter(case: Case) -> None:
    given = tensors(case)
    expected = case.ours(*given)
    for place in case.scaled:
        changed = [x * 7.5 if i == place else x for i, x in enumerate(given)]
        torch.testing.assert_close(case.ours(*changed), expected)
    if not case.scaled:
        assert not torch.isclose(case.ours(*(1.5 * x for x in given)), expected)
    if case.swap:
        torch.testing.assert_close(case.ours(*(given[i] for i in case.swap)), expected)


@BY_NAME
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_shows(case: Case, bad: float) -> None:
    given = tensors(case)
    given[0][2, 1] = bad
    assert not case.ours(*given).isfinite()


@BY_NAME
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_under_autocast(case: Case, dtype: torch.dtype) -> None:
    given = [x.to(dtype) for x in tensors(case)]
    expected = case.ours(*(x.double() for x in given))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = case.ours(*given)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=1e-6)


def test_identical_views_reach_the_least_value() -> None:
    z = t(ANY.normal(size=(N, D)))
    assert byol_loss(z, z, z, z).item() == pytest.approx(0, abs=1e-12)
    assert simsiam_loss(z, z, z, z).item() == pytest.approx(-1)
    logits = [z, z, z]
    loss, entropy = dino_loss(logits, logits[:2], torch.zeros(D, dtype=z.dtype), 0.2, 0.2)
    torch.testing.assert_close(loss, entropy)
    white = (
        torch.linalg.qr(
            torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        )[0]
        * 8
    )
    on, off = barlow_twins_terms(white, white)
    assert on.item() == pytest.approx(0, abs=1e-20)
    assert off.item() == pytest.approx(0, abs=1e-20)


def test_one_image_has_nothing_to_be_told_from() -> None:
    one, other = (t(ANY.normal(size=(1, D))) for _ in range(2))
    assert nt_xent_loss(one, other).item() == pytest.approx(0, abs=1e-12)
    assert contrast(one, other).item() == pytest.approx(0, abs=1e-12)


def test_codes_use_every_prototype_equally_often() -> None:
    scores = t(np.random.default_rng(2).uniform(-1, 1, size=(40, 8)))
    few, many = sinkhorn(scores, 0.1, 3), sinkhorn(scores, 0.1, 200)
    np.testing.assert_allclose(few.numpy(), official.swav_codes(scores.numpy(), 0.1, 3), rtol=1e-12)
    torch.testing.assert_close(many.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(many.sum(0), torch.full((8,), 5.0, dtype=torch.float64))
