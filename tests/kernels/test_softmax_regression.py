"""The native softmax regression against autograd in float64: every tail, target and number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from forbidden_page import before_a_forbidden_page
from qscore_fast.kernels import cpu
from torch import Tensor
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.usefixtures("target")


@pytest.fixture
def as_many_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(n: int, r: int, classes: int, probes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + r + classes)
    x = torch.randn(n, r, generator=generator)
    targets = torch.randint(classes, (n,), generator=generator)
    weights = torch.randn(probes, classes, r, generator=generator) / r**0.5
    return x, targets, weights, torch.randn(probes, classes, generator=generator)


def by_autograd(x: Tensor, targets: Tensor, weights: Tensor, biases: Tensor) -> list[Tensor]:
    w, b = weights.double().requires_grad_(), biases.double().requires_grad_()
    logits = torch.einsum("nr,kcr->nkc", x.double(), w) + b
    losses = torch.stack(
        [cross_entropy(logits[:, k], targets, reduction="sum") for k in range(len(w))]
    )
    return [losses.detach(), *torch.autograd.grad(losses.sum(), (w, b))]


def check(x: Tensor, targets: Tensor, weights: Tensor, biases: Tensor, about: str = "") -> None:
    found = cpu.softmax_regression(x, targets, weights, biases)
    for actual, exact in zip(found, by_autograd(x, targets, weights, biases), strict=True):
        size = float(exact.abs().max())
        torch.testing.assert_close(
            actual, exact, rtol=2e-5, atol=2e-6 * size, msg=lambda m: f"{about}: {m}"
        )


def test_every_number_of_features() -> None:
    for r in (*range(1, 70), 127, 511, 2048, 60_000):
        check(*problem(13, r, 3, 1), about=f"{r} features")


def test_every_number_of_rows() -> None:
    for n in (*range(1, 30), 95, 96, 97, 193):
        check(*problem(n, 40, 5, 1), about=f"{n} rows")


@pytest.mark.parametrize("probes", [1, 2, 5])
def test_every_number_of_classes(probes: int) -> None:
    for classes in (*range(1, 40), 100, 1000):
        check(*problem(31, 37, classes, probes), about=f"{classes} classes")


@pytest.mark.usefixtures("as_many_threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_many_rows_by_any_number_of_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    args = problem(5000, 200, 10, 2)
    check(*args)
    again = [cpu.softmax_regression(*args) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again, strict=True))


def test_what_lies_between_the_rows_is_not_read() -> None:
    x, *others = problem(50, 37, 10, 1)
    wide = torch.full((50, 61), float("nan"))
    wide[:, :37] = x
    for strided, plain in zip(
        cpu.softmax_regression(wide[:, :37], *others),
        cpu.softmax_regression(x, *others),
        strict=True,
    ):
        assert torch.equal(strided, plain)


def test_nothing_beyond_the_last_row_is_read() -> None:
    """The page behind the rows may not be read."""
    for r in (1, 7, 37, 100):
        x, *others = problem(11, r, 5, 1)
        with before_a_forbidden_page(11 * r) as whole:
            at_the_end = whole.view(11, r)
            at_the_end.copy_(x)
            check(at_the_end, *others)


def test_logits_far_apart() -> None:
    """Where softmax is 0 and 1 to the last digit, and a naive exponential would be infinite."""
    x, targets, weights, biases = problem(40, 64, 10, 1)
    for scale in (1e2, 1e4, 1e30):
        check(x, targets, weights * scale, biases, about=f"times {scale:g}")


def test_the_exponential_everywhere() -> None:
    """Two classes whose logits lie d apart: the loss of the first is log(1 + e^-d)."""
    d = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([0.0, -0.0, 87.0, 86.999, 88.0])])
    x = d[:, None].contiguous()
    weights, biases = torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2)
    for value in x:
        row = value[None]
        losses, gradient, bias = cpu.softmax_regression(
            row, torch.zeros(1, dtype=torch.int64), weights, biases
        )
        torch.testing.assert_close(
            losses,
            torch.nn.functional.softplus(-row.double()[0], threshold=1e3),
            rtol=3e-7,
            atol=2e-7,
        )
        exact = torch.sigmoid(-row.double())  # 1 - p of the first class
        torch.testing.assert_close(bias[0, 1:], exact[0], rtol=3e-7, atol=1.7e-38)
        # And where p is so near 1 that float32 has no digits left of the difference.
        torch.testing.assert_close(bias[0, :1], -exact[0], rtol=3e-7, atol=2e-16)
        torch.testing.assert_close(
            gradient[0, 1], exact[0] * row.double()[0], rtol=3e-7, atol=1e-35
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_in_the_loss(value: float) -> None:
    x, *others = problem(30, 20, 4, 2)
    x[17, 3] = value
    losses, _, _ = cpu.softmax_regression(x, *others)
    assert losses.isnan().all()
