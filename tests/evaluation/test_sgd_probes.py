"""SGD probes against torch.optim.SGD and torch's schedulers, and many at once against one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.sgd import PROTOCOLS, SGDProtocol, accuracies, fit_protocol, fit_sgd
from qscore_fast.evaluation.sgd.batches import Batches
from qscore_fast.evaluation.sgd.fit import _start


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int64)


SMALL = SGDProtocol((0.5,), epochs=4, batch_size=64)


class LARC:
    """NVIDIA apex's, without clipping, around an optimiser of torch."""

    def __init__(self, optimiser, trust):
        self.optimiser, self.trust = optimiser, trust

    def step(self):
        decays = [group["weight_decay"] for group in self.optimiser.param_groups]
        for group, decay in zip(self.optimiser.param_groups, decays, strict=True):
            group["weight_decay"] = 0
            for p in group["params"]:
                norm, slope = p.data.norm(), p.grad.norm()
                if norm != 0 and slope != 0:
                    adaptive = self.trust * norm / (slope + norm * decay + 1e-8)
                    p.grad = (p.grad + decay * p.data) * adaptive
        self.optimiser.step()
        for group, decay in zip(self.optimiser.param_groups, decays, strict=True):
            group["weight_decay"] = decay


def torch_loop(x, y, classes, protocol, rate, scheduler=None, by_step=False, seed=0):
    """nn.Linear, torch.optim.SGD and a scheduler of torch, in float64 on the batches of ours."""
    weight, bias = _start(protocol, classes, x.shape[1], seed)
    layer = torch.nn.Linear(x.shape[1], classes, dtype=torch.float64)
    layer.weight.data, layer.bias.data = weight.double(), bias.double()
    optimiser = torch.optim.SGD(
        layer.parameters(),
        rate,
        momentum=protocol.momentum,
        nesterov=protocol.nesterov,
        weight_decay=protocol.weight_decay,
    )
    schedule = scheduler(optimiser) if scheduler else None
    stepper = LARC(optimiser, protocol.trust) if protocol.trust else optimiser
    losses = []
    for epoch in range(protocol.epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(x))
        total = 0.0
        for start in range(0, len(x), protocol.batch_size):
            at = order[start : start + protocol.batch_size]
            logits = layer(torch.from_numpy(x[at]).double())
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[at]))
            optimiser.zero_grad()
            loss.backward()
            stepper.step()
            total += loss.item() * len(at)
            if schedule and by_step:
                schedule.step()
        losses.append(total / len(x))
        if schedule and not by_step:
            schedule.step()
    return layer, losses


def cosine(steps):
    return lambda optimiser: torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)


def drops(*epochs):
    return lambda optimiser: torch.optim.lr_scheduler.MultiStepLR(optimiser, list(epochs), 0.1)


class Published(NamedTuple):
    """What the authors' own files say; all have momentum 0.9."""

    rates: tuple[float, ...]  # at their batch size
    epochs: int
    batch_size: int
    scheduler: Callable[
        [torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler
    ]  # of 10 epochs
    by_step: bool = False
    weight_decay: float = 0.0
    nesterov: bool = False
    trust: float | None = None
    start: str = "normal"


# Those of 256 rows a step, for 1,024.
DINOV2 = (*(4 * 10.0**power * digit for power in range(-5, -1) for digit in (1, 2, 5)), 0.4)
PUBLISHED = {
    "moco": Published((30.0,), 100, 256, drops(6, 8)),
    "moco_v3": Published((0.4,), 90, 1024, cosine(10)),
    "moco_v3_vit": Published((12.0,), 90, 1024, cosine(10)),
    "simsiam": Published((1.6,), 90, 4096, cosine(10), trust=0.001),
    "swav": Published((0.3,), 100, 256, cosine(10), weight_decay=1e-6),
    "vicreg": Published((0.02,), 100, 256, cosine(10), weight_decay=1e-6),
    "barlow": Published((0.3,), 100, 256, cosine(10), weight_decay=1e-6),
    "dino": Published((0.004,), 100, 1024, cosine(10)),
    "dinov2": Published(DINOV2, 10, 1024, cosine(10 * 29), True),
    "byol": Published(
        (3.2,), 80, 4096, cosine(10 * 29), True, nesterov=True, start="truncated-normal-by-fan-in"
    ),
    "simclr": Published(
        (1.6,), 90, 4096, cosine(10 * 29), True, weight_decay=1e-6, nesterov=True, start="zero"
    ),
    "solo-learn": Published(
        (0.1, 0.15, 0.3, 1.0, 3.0, 30.0), 100, 256, drops(6, 8), start="uniform-by-fan-in"
    ),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_preset_is_the_loop_of_its_authors(digits, name):
    x, y = digits
    published, protocol = PUBLISHED[name], PROTOCOLS[name]
    rate = published.rates[0]
    # Where steps are long for the rows, training is chaotic: no two roundings end alike.
    x = (x / max(1, rate**0.5)).astype(np.float32)
    assert protocol.used_rates == pytest.approx(published.rates, rel=1e-12)
    # A decay of 1e-6 moves no weight by what two roundings differ in: only its value can be held to it.
    told = ("weight_decay", "nesterov", "trust", "start")
    for field in ("epochs", "batch_size", *told):
        assert getattr(protocol, field) == getattr(published, field), field
    assert protocol.momentum == 0.9
    # Ten epochs of 29 steps instead, at the rate of the published batch size.
    short = replace(protocol, rates=(rate,), epochs=10, batch_size=64, scaled=False)
    ours = fit_sgd(FeatureRows.of(x), y, 10, short)[0]
    theirs = SGDProtocol(
        (rate,), 10, 64, momentum=0.9, **{field: getattr(published, field) for field in told}
    )
    layer, losses = torch_loop(x, y, 10, theirs, rate, published.scheduler, published.by_step)
    scale = float(layer.weight.abs().max())
    torch.testing.assert_close(
        ours.weight.double(), layer.weight.data, rtol=1e-3, atol=1e-4 * scale
    )
    np.testing.assert_allclose(ours.losses, losses, rtol=1e-3, atol=1e-6)


def test_weight_decay_nesterov_and_larc_together(digits):
    x, y = digits
    protocol = replace(SMALL, weight_decay=0.01, nesterov=True, trust=0.02)
    ours = fit_sgd(FeatureRows.of(x), y, 10, protocol)[0]
    layer, _ = torch_loop(x, y, 10, protocol, 0.5, cosine(4))
    torch.testing.assert_close(ours.weight.double(), layer.weight.data, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours.bias.double(), layer.bias.data, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("trust", [None, 0.01])
def test_all_rates_and_features_at_once_are_each_alone(digits, trust):
    x, y = digits
    protocol = replace(SMALL, rates=(0.01, 0.3, 3.0), trust=trust, weight_decay=1e-3)
    subsets = [np.arange(64), np.arange(10, 40)]
    together = fit_sgd(FeatureRows.of(x), y, 10, protocol, subsets=subsets)
    for number, fit in enumerate(together):
        columns, rate = subsets[number // 3], protocol.rates[number % 3]
        assert fit.rate == rate
        alone = replace(protocol, rates=(rate,))
        # Zeros for the features outside it: nothing of a subset's probe comes from elsewhere.
        cut = np.zeros_like(x)
        cut[:, columns] = x[:, columns]
        apart = fit_sgd(FeatureRows.of(cut), y, 10, alone, subsets=[columns])[0]
        torch.testing.assert_close(fit.weight, apart.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fit.bias, apart.bias, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fit.losses, apart.losses, rtol=1e-5)
        outside = np.setdiff1d(np.arange(64), columns)
        assert not fit.weight[:, outside].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_that_are_read_again_are_the_rows_that_stay(digits, dtype, monkeypatch):
    monkeypatch.setattr("qscore_fast.evaluation.sgd.batches.BLOCK_BYTES", 1 << 14)
    x, y = digits
    rows = FeatureRows((x[:1000].astype(dtype), x[1000:].astype(dtype)))
    chosen = np.random.default_rng(0).permutation(len(x))[:1500]
    first = fit_sgd(rows, y, 10, SMALL, chosen=chosen)[0]
    again = fit_sgd(rows, y, 10, SMALL, chosen=chosen, resident=0)[0]
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    other = fit_sgd(rows, y, 10, SMALL, chosen=chosen, seed=1)[0]
    assert not torch.equal(first.weight, other.weight)


def test_an_epoch_has_every_row_once_in_another_order(digits):
    x, y = digits
    chosen = np.arange(3, 903, 2)
    batches = Batches(FeatureRows.of(x), y, 64, seed=3, chosen=chosen)
    epochs = []
    for number in range(2):
        parts = list(batches.epoch(number))
        assert len(parts) == len(batches) == math.ceil(len(chosen) / 64)
        epochs.append(torch.cat([torch.cat([a, b[:, None]], 1) for a, b in parts]).numpy())
    expected = np.concatenate([x, y[:, None]], 1)[chosen]
    for found in epochs:
        np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    assert not np.array_equal(*epochs)


def test_the_rate_is_the_best_on_rows_that_were_held_out(digits):
    x, y = digits
    train, other = FeatureRows.of(x[:1200]), FeatureRows.of(x[1200:])
    protocol = replace(SMALL, rates=(1e-6, 0.3, 1e-5), epochs=10)
    found = fit_protocol(train, y[:1200], 10, protocol)
    assert found.fit.rate == 0.3
    assert list(found.held_out) == [1e-6, 0.3, 1e-5]
    assert found.held_out[0.3] > 0.9 > found.held_out[1e-6]
    # It was trained on all of the rows.
    alone = fit_sgd(train, y[:1200], 10, replace(protocol, rates=(0.3,)))[0]
    assert torch.equal(found.fit.weight, alone.weight)
    expected = (found.fit.logits(torch.from_numpy(x[1200:])).argmax(1).numpy() == y[1200:]).mean()
    assert accuracies([found.fit], other, y[1200:], np.arange(len(other))) == [expected]
    assert expected > 0.88


def test_a_rate_that_is_far_too_large_does_not_spoil_the_others(digits):
    x, y = digits
    protocol = replace(SMALL, rates=(0.3, 1e38), weight_decay=1e-3, epochs=6)
    fits = fit_sgd(FeatureRows.of(x), y, 10, protocol)
    assert [fit.finite for fit in fits] == [True, False]
    assert fit_protocol(FeatureRows.of(x), y, 10, protocol).fit.rate == 0.3
    with pytest.raises(SettingsError, match="NaN at the learning rates"):
        fit_protocol(FeatureRows.of(x), y, 10, replace(protocol, rates=(1e38,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(x > 0.9, np.nan, x), y), "NaN or Inf"),
        (lambda x, y: (x, y[:-1]), "give one label for each"),
        (lambda x, y: (x, y + 5), "from 0 to 9"),
    ],
)
def test_rows_that_do_not_fit_are_refused(digits, change, message):
    x, y = change(*digits)
    with pytest.raises(SettingsError, match=message):
        fit_sgd(FeatureRows.of(x.astype(np.float32)), y, 10, SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": ()}, "learning rates are"),
        ({"rates": (0.1, -1.0)}, "learning rates are"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"momentum": 1.0}, "momentum is 1"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        replace(SMALL, **change)


def test_features_that_are_not_there_are_refused(digits):
    x, y = digits
    with pytest.raises(SettingsError, match="outside 0 to 63"):
        fit_sgd(FeatureRows.of(x), y, 10, SMALL, subsets=[np.array([64])])


def test_starts_have_the_spread_that_they_say():
    weight, bias = _start(PROTOCOLS["moco"], 100, 400, 0)
    assert float(weight.std()) == pytest.approx(0.01, rel=0.02) and not bias.any()
    weight, bias = _start(PROTOCOLS["solo-learn"], 100, 400, 0)
    assert 0.0499 < float(weight.abs().max()) <= 0.05 and 0.04 < float(bias.abs().max()) <= 0.05
    weight, bias = _start(PROTOCOLS["byol"], 100, 400, 0)
    assert 0.099 < float(weight.abs().max()) <= 0.1 and not bias.any()
    # A normal cut at two spreads keeps 0.88 of its spread.
    assert float(weight.std()) == pytest.approx(0.05 * 0.8796, rel=0.02)
    assert not _start(PROTOCOLS["simclr"], 100, 400, 0)[0].any()


@pytest.mark.parametrize(("num_rows", "noted"), [(63, True), (64, False)])
def test_fewer_rows_than_a_step_takes_are_said(digits, num_rows, noted):
    x, y = digits
    protocol = SGDProtocol((0.1,), epochs=2, batch_size=64)
    fit = fit_protocol(FeatureRows((x[:num_rows],)), y[:num_rows], 10, protocol)
    assert bool(fit.notes) == noted
    if noted:
        assert fit.notes[0].startswith("63 training images are fewer than the 64 of a step")
