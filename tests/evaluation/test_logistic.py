"""Logistic regression against scikit-learn's, and many probes at once against one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import qscore_fast as qf
from qscore_fast.demo.fashion_mnist import read_idx
from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.logistic import (
    C_of_ridge,
    SoftmaxProblem,
    chosen_C,
    fit_logistic,
    grid_of_C,
    ridge_of,
)
from qscore_fast.evaluation.logistic.lbfgs import MEMORY, Minimum, _Pairs, lbfgs


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.data.astype(np.float32), data.target.astype(np.int64)


def objective(weight, bias, C, x, y):
    """scikit-learn's, in float64, from its documentation."""
    logits = x.astype(np.float64) @ weight.T + bias
    top = logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]
    return 0.5 * (weight**2).sum() + C * losses.sum()


def scikit_learn(x, y, C):
    """Newton's method, to the last digits."""
    return LogisticRegression(C=C, tol=1e-8, max_iter=200, solver="newton-cholesky").fit(
        x.astype(np.float64), y
    )


def fashion(split):
    images, labels = read_idx(split, "images-idx3"), read_idx(split, "labels-idx1")
    pixels = images.reshape(len(images), 28, 28)[:, ::3, ::3].reshape(len(images), -1)
    return pixels.astype(np.float32) / 255, labels.astype(np.int64)


@pytest.mark.parametrize("C", [1e-3, 0.1, 1.0])
def test_loss_and_accuracy_are_those_of_scikit_learn(C):
    x, y = fashion("discover")
    tx, ty = fashion("score")
    fit = fit_logistic(SoftmaxProblem(FeatureRows.of(x), y, 10), [C])[0]
    theirs = scikit_learn(x, y, C)
    expected = objective(theirs.coef_, theirs.intercept_, C, x, y)
    ours = objective(fit.weight.numpy(), fit.bias.numpy(), C, x, y)
    assert fit.converged
    assert ours == pytest.approx(expected, rel=1e-4)
    assert fit.loss == pytest.approx(ours, rel=1e-5)
    accuracy = (fit.logits(torch.from_numpy(tx)).argmax(1).numpy() == ty).mean()
    assert abs(accuracy - theirs.score(tx, ty)) <= 1e-3


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["kept", "streamed"])
def test_loss_and_gradients_are_those_of_autograd(digits, backend, memory, monkeypatch):
    """By the native kernel and by the library's products, of rows in memory and read part by part."""
    x, y = digits
    monkeypatch.setattr("qscore_fast.evaluation.logistic.softmax_problem.WIDENED_NUMBERS", 64 * 700)
    with qf.use_backend(backend):
        problem = SoftmaxProblem(FeatureRows((x[:900], x[900:])), y, 10, in_memory=memory)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(3, 10, 64, generator=generator, dtype=torch.float64) / 8
        biases = torch.randn(3, 10, generator=generator, dtype=torch.float64)
        found = zip(*problem.evaluate(list(weights), list(biases)), strict=True)
    centred = torch.from_numpy(x).double()
    centred -= centred.mean(0)
    for weight, bias, (loss, gradient, bias_gradient) in zip(weights, biases, found, strict=True):
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        exact = torch.nn.functional.cross_entropy(centred @ weight.T + bias, torch.from_numpy(y))
        assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
        for ours, theirs in zip(
            (gradient, bias_gradient), torch.autograd.grad(exact, (weight, bias)), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("change", ["float16", "parts", "mean 1000", "scales", "streamed"])
def test_the_optimum_does_not_depend_on_how_rows_come(digits, change):
    x, y = digits
    parts, memory = (x,), 1 << 30
    if change == "float16":
        parts = (x.astype(np.float16),)  # whole numbers to 16: exact
    elif change == "parts":
        parts = (x[:100], x[100:101], x[101:])
    elif change == "mean 1000":
        x = x + np.float32(1000)
        parts = (x,)
    elif change == "scales":
        x = x * np.logspace(-1, 1, 64, dtype=np.float32)
        parts = (x,)
    else:
        memory = 0
    problem = SoftmaxProblem(FeatureRows(parts), y, 10, in_memory=memory)
    fit = fit_logistic(problem, [1.0], tolerance=1e-9, max_iterations=3000)[0]
    reference = x if change == "scales" else digits[0]
    theirs = scikit_learn(reference, y, 1.0)
    expected = objective(theirs.coef_, theirs.intercept_, 1.0, reference, y)
    own = objective(fit.weight.numpy(), fit.bias.numpy(), 1.0, x, y)
    assert own == pytest.approx(expected, rel=1e-4)


def test_probes_trained_together_are_those_trained_apart(digits):
    x, y = digits
    problem = SoftmaxProblem(FeatureRows.of(x), y, 10)
    rng = np.random.default_rng(0)
    subsets = [np.sort(rng.permutation(64)[:size]) for size in (3, 20, 40, 64)]
    values = [0.01, 1.0, 0.1, 0.001]
    together = fit_logistic(problem, values, subsets, tolerance=1e-10)
    for fit, C, columns in zip(together, values, subsets, strict=True):
        alone = FeatureRows.of(np.ascontiguousarray(x[:, columns]))
        apart = fit_logistic(SoftmaxProblem(alone, y, 10), [C], tolerance=1e-10)[0]
        assert fit.loss == pytest.approx(apart.loss, rel=1e-5)
        logits = apart.logits(torch.from_numpy(x[:, columns]))
        torch.testing.assert_close(fit.logits(torch.from_numpy(x)), logits, rtol=0.02, atol=0.02)


def test_a_start_from_a_smaller_C_ends_at_the_same_optimum_sooner(digits):
    x, y = digits
    problem = SoftmaxProblem(FeatureRows.of(x), y, 10)
    first = fit_logistic(problem, [0.01])
    cold = fit_logistic(problem, [0.02], tolerance=1e-8)[0]
    warm = fit_logistic(problem, [0.02], start=first, tolerance=1e-8)[0]
    assert warm.loss == pytest.approx(cold.loss, rel=1e-6)
    assert warm.iterations < cold.iterations


def test_lbfgs_finds_the_minimum_of_a_quadratic():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(30, 30, dtype=torch.float64, generator=generator)
    matrix = root @ root.T / 30 + 0.1 * torch.eye(30, dtype=torch.float64)
    wanted = torch.randn(30, dtype=torch.float64, generator=generator)
    ask = lbfgs(torch.zeros(30, dtype=torch.float64), 1e-14, 500)
    x, found = next(ask), None
    while found is None:
        gap = x - wanted
        try:
            x = ask.send((float(gap @ matrix @ gap) / 2 + 1, matrix @ gap))
        except StopIteration as stop:
            found = stop.value
    assert isinstance(found, Minimum) and found.converged
    torch.testing.assert_close(found.point, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 5, MEMORY, MEMORY + 9])
def test_directions_are_those_of_the_dense_inverse_hessian(count):
    """Nocedal and Wright, (6.17) from (7.20) on, of the last pairs; pairs that say nothing leave no trace."""
    rng = np.random.default_rng(0)
    size = 40
    root = rng.normal(size=(size, size))
    hessian = root @ root.T / size + 0.1 * np.eye(size)
    steps = rng.normal(size=(count, size))
    changes = steps @ hessian
    gradient = rng.normal(size=size)
    pairs = _Pairs(torch.zeros(size, dtype=torch.float64))
    for number, pair in enumerate(zip(steps, changes, strict=True)):
        pairs.add(*map(torch.from_numpy, pair))
        pairs.direction(torch.from_numpy(rng.normal(size=size)))
        if number % 3 == 0:
            pairs.add(torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))
            pairs.direction(torch.from_numpy(rng.normal(size=size)))
    inverse = np.eye(size)
    if count:
        inverse *= steps[-1] @ changes[-1] / (changes[-1] @ changes[-1])
    for step, change in zip(steps[-MEMORY:], changes[-MEMORY:], strict=True):
        turn = np.eye(size) - np.outer(step, change) / (step @ change)
        inverse = turn @ inverse @ turn.T + np.outer(step, step) / (step @ change)
    direction, slope, squared = pairs.direction(torch.from_numpy(gradient))
    np.testing.assert_allclose(direction.numpy(), -inverse @ gradient, rtol=1e-9, atol=1e-12)
    assert slope == pytest.approx(-gradient @ inverse @ gradient)
    assert squared == pytest.approx(gradient @ gradient)


@pytest.mark.parametrize("shift", [3e-5, 3e-4])
def test_a_curvature_that_rounding_left_indefinite_is_lifted(digits, shift):
    """It is only the axes that steps are taken in: the optimum stays."""
    x, y = digits
    x = np.concatenate([x, x[:, :8]], 1)  # dependent features
    problem = SoftmaxProblem(FeatureRows.of(x), y, 10)
    expected = fit_logistic(problem, [0.01], tolerance=1e-9)[0]
    problem.covariance -= shift * float(problem.covariance.diagonal().mean()) * torch.eye(72)
    found = fit_logistic(problem, [0.01], tolerance=1e-9)[0]
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    problem.covariance -= 1000 * problem.covariance.diagonal().max() * torch.eye(72)
    with pytest.raises(SettingsError, match="no positive matrix"):
        fit_logistic(problem, [0.01])


def test_dead_features_and_a_class_without_samples_are_no_obstacle(digits):
    x, y = digits
    x = x.copy()
    x[:, 10:20] = 3.0
    fit = fit_logistic(SoftmaxProblem(FeatureRows.of(x), y, 12), [1.0])[0]
    assert torch.isfinite(fit.weight).all()
    assert fit.weight[:, 10:20].abs().max() < 1e-6
    assert set(fit.logits(torch.from_numpy(x)).argmax(1).tolist()) <= set(range(10))


def test_more_features_than_samples(digits):
    x, y = digits
    x = np.concatenate([x[:20], np.random.default_rng(0).normal(size=(20, 100))], 1)
    y = y[:20]
    fit = fit_logistic(SoftmaxProblem(FeatureRows.of(x), y, 10), [1.0], tolerance=1e-9)[0]
    theirs = scikit_learn(x, y, 1.0)
    expected = objective(theirs.coef_, theirs.intercept_, 1.0, x, y)
    assert objective(fit.weight.numpy(), fit.bias.numpy(), 1.0, x, y) == pytest.approx(
        expected, rel=1e-4
    )


def test_the_chosen_C_is_the_best_of_the_grid_on_other_rows(digits):
    x, y = digits
    rng = np.random.default_rng(0)
    noisy = np.concatenate([x, 8 * rng.normal(size=(len(x), 200))], 1).astype(np.float32)
    train, other = FeatureRows.of(noisy[:600]), torch.from_numpy(noisy[600:])
    found = chosen_C(train, y[:600], 10)
    problem = SoftmaxProblem(train, y[:600], 10)
    fits = fit_logistic(problem, [*grid_of_C(problem), found])
    accuracies = [(fit.logits(other).argmax(1).numpy() == y[600:]).mean() for fit in fits]
    assert accuracies[-1] >= max(accuracies) - 0.02
    assert accuracies[-1] > min(accuracies) + 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(x > 15, np.nan, x), y), "NaN or Inf"),
        (lambda x, y: (x, y[:-1]), "give one label for each"),
        (lambda x, y: (x, y + 5), "from 0 to 9"),
    ],
)
def test_rows_that_do_not_fit_are_refused(digits, change, message):
    x, y = change(*digits)
    with pytest.raises(SettingsError, match=message):
        SoftmaxProblem(FeatureRows.of(x.astype(np.float32)), y, 10)


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan"), float("inf")])
def test_a_C_that_makes_no_sense_is_refused(digits, C):
    x, y = digits
    with pytest.raises(SettingsError, match="C is"):
        fit_logistic(SoftmaxProblem(FeatureRows.of(x[:50]), y[:50], 10), [1.0, C])


def test_a_ridge_means_the_same_whatever_the_scale(digits):
    h, targets = digits
    rows, larger = FeatureRows.of(h), FeatureRows.of(30 * h)
    C = 1e-3
    ridge = ridge_of(C, rows)
    assert ridge == pytest.approx(1 / (C * np.asarray(h, np.float64).var(0).mean() * len(h)))
    assert C_of_ridge(ridge, rows) == pytest.approx(C)
    logits = [
        fit_logistic(SoftmaxProblem(some, targets, 10), [C_of_ridge(ridge, some)])[0].logits(
            torch.from_numpy(np.asarray(factor * h, np.float32))
        )
        for some, factor in ((rows, 1), (larger, 30))
    ]
    torch.testing.assert_close(*logits, rtol=0.01, atol=0.01)
    with pytest.raises(SettingsError, match="all representations are equal"):
        C_of_ridge(ridge, FeatureRows.of(np.ones((4, 3), np.float32)))
