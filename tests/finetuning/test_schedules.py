"""Schedules against NumPy's closed forms of the official code and against torch's schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning import schedules

STEPS, WARMUP = 50, 8


def values(schedule: Callable[[int], float], steps: int = STEPS) -> np.ndarray:
    return np.array([schedule(step) for step in range(steps)])


def by_torch(
    make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], base: float
) -> np.ndarray:
    """The rates that a scheduler of torch sets."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = make(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def test_cosine_is_torchs() -> None:
    ours = values(lambda step: schedules.cosine(step, STEPS, 0.3, 0.01))
    theirs = by_torch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, 0.01), 0.3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_linear_is_torchs() -> None:
    ours = values(lambda step: schedules.linear(step, WARMUP, 0.1, 0.5))
    theirs = by_torch(lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.2, 1.0, WARMUP), 0.5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_step_decay_is_torchs() -> None:
    ours = values(lambda step: schedules.step_decay(step, [12, 16], 0.03))
    theirs = by_torch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [12, 16]), 0.03)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_warmup_cosine_is_torchs() -> None:
    """torch's linear warm-up followed by its cosine; its warm-up cannot begin at 0."""

    def make(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        lr = torch.optim.lr_scheduler
        warmup = lr.LinearLR(optimizer, 0.25, 1.0, WARMUP)
        anneal = lr.CosineAnnealingLR(optimizer, STEPS - WARMUP, 0.002)
        return lr.SequentialLR(optimizer, [warmup, anneal], [WARMUP])

    ours = values(lambda step: schedules.warmup_cosine(step, STEPS, 0.4, WARMUP, 0.1, 0.002))
    np.testing.assert_allclose(ours, by_torch(make, 0.4), rtol=1e-9)


def test_warmup_cosine_is_that_of_barlow_twins_and_vicreg() -> None:
    """step / warm-up, then lr q + end (1 - q) with q = (1 + cos) / 2 and end a thousandth of lr."""
    step = np.arange(STEPS)
    q = 0.5 * (1 + np.cos(np.pi * (step - WARMUP) / (STEPS - WARMUP)))
    expected = np.where(step < WARMUP, 0.2 * step / WARMUP, 0.2 * q + 0.2e-3 * (1 - q))
    ours = values(lambda s: schedules.warmup_cosine(s, STEPS, 0.2, WARMUP, end=0.2e-3))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_warmup_cosine_through_the_peak_is_that_of_swav_and_dino() -> None:
    warmup = np.linspace(0.3, 4.8, WARMUP)
    later = np.arange(STEPS - WARMUP)
    anneal = 0.0048 + 0.5 * (4.8 - 0.0048) * (1 + np.cos(np.pi * later / len(later)))

    def ours(step: int) -> float:
        return schedules.warmup_cosine(step, STEPS, 4.8, WARMUP, 0.3, 0.0048, through_peak=True)

    np.testing.assert_allclose(values(ours), np.concatenate([warmup, anneal]), rtol=1e-12)
    one = [schedules.warmup_cosine(s, 9, 1.0, 1, 0.5, through_peak=True) for s in range(2)]
    assert one == [np.linspace(0.5, 1.0, 1)[0], 1.0]


def test_ema_momentum_is_that_of_byol() -> None:
    expected = 1 - (1 - 0.996) * (np.cos(np.pi * np.arange(STEPS) / STEPS) + 1) / 2
    ours = values(lambda step: schedules.ema_momentum(step, STEPS, 0.996))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert schedules.ema_momentum(STEPS, STEPS, 0.996) == 1


def test_teacher_temperature_and_weight_decay_are_those_of_dino() -> None:
    expected = np.concatenate([np.linspace(0.04, 0.07, 30), np.full(20, 0.07)])
    np.testing.assert_allclose(values(schedules.teacher_temperature), expected, rtol=1e-12)
    np.testing.assert_allclose(
        values(lambda e: schedules.teacher_temperature(e, 0)), np.full(STEPS, 0.07)
    )
    step = np.arange(STEPS)
    expected = 0.4 + 0.5 * (0.04 - 0.4) * (1 + np.cos(np.pi * step / STEPS))
    np.testing.assert_allclose(
        values(lambda s: schedules.weight_decay(s, STEPS)), expected, rtol=1e-12
    )


def test_warmup_anneal() -> None:
    def ours(step: int) -> float:
        return schedules.warmup_anneal(step, 40, 1e-4, 10, 20, 1e-5)

    np.testing.assert_allclose([ours(s) for s in range(10)], 1e-5 * np.arange(10), rtol=1e-12)
    assert {ours(s) for s in range(10, 21)} == {1e-4}
    assert ours(30) == pytest.approx((1e-4 + 1e-5) / 2)
    assert ours(25) == pytest.approx(1e-5 + 9e-5 * (1 + math.cos(math.pi / 4)) / 2)
    assert ours(40) == ours(90) == 1e-5
    # Without a warm-up and without an end it is level.
    assert {schedules.warmup_anneal(s, 9, 2.0, 0, 9) for s in range(9)} == {2.0}


@pytest.mark.parametrize("lengths", [(-1, 5, 9), (6, 5, 9), (2, 10, 9)])
def test_an_impossible_anneal_is_refused(lengths: tuple[int, int, int]) -> None:
    warmup, anneal_from, steps = lengths
    with pytest.raises(SettingsError, match=f"warmup_steps is {warmup}, anneal_from {anneal_from}"):
        schedules.warmup_anneal(0, steps, 1.0, warmup, anneal_from)


def test_the_last_value_stays() -> None:
    assert schedules.constant(10**9, 0.1) == 0.1
    assert schedules.linear(70, STEPS, 1.0, 3.0) == 3
    assert schedules.cosine(70, STEPS, 1.0, 0.5) == 0.5
    assert schedules.warmup_cosine(70, STEPS, 1.0, WARMUP, end=0.5) == 0.5
    # A training that is all warm-up has no cosine to divide by.
    assert schedules.warmup_cosine(STEPS, STEPS, 1.0, STEPS, end=0.5) == 0.5
