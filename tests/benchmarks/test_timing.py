"""Samples are taken in turn, and slow calls get few."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks import timing

CPU = torch.device("cpu")


class Machine:
    """A clock that calls move forward: 5 s a call of "slow", 0.2 s of "fast"."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def call(self, name: str, seconds: float) -> timing.Call:
        def run() -> None:
            self.now += seconds
            self.calls.append(name)

        return run


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now)
    return machine


def test_order_and_number_of_samples(machine: Machine) -> None:
    calls = {"fast": machine.call("fast", 0.2), "slow": machine.call("slow", 5.0)}
    times = timing.interleaved(calls, CPU, rounds=6, seconds=4)
    # One call each to begin with: the slow one's counts, the other warms up. Then the order turns from round
    # to round.
    warm = ["fast"] * timing.WARM_ROUNDS
    assert machine.calls == ["fast", "slow", *warm, "fast", "slow", "slow", "fast", *["fast"] * 4]
    assert times["slow"].rounds == timing.MINIMUM_ROUNDS
    assert times["fast"].rounds == 6
    assert times["slow"].median == pytest.approx(5)
    assert times["fast"].median == pytest.approx(0.2)


def test_short_calls_are_repeated_in_a_sample(machine: Machine) -> None:
    times = timing.interleaved({"a": machine.call("a", 1e-4)}, CPU, rounds=3)
    assert times["a"].median == pytest.approx(1e-4)
    assert len(machine.calls) == 2 + timing.WARM_ROUNDS + 3 * 100


def test_an_outlier_does_not_move_the_median(machine: Machine) -> None:
    steps = iter([*[0.2] * timing.WARM_ROUNDS, 0.2, 0.2, 9.0, 0.2, 0.2, 0.2])

    def call() -> None:
        machine.now += next(steps)

    times = timing.interleaved({"a": call}, CPU, rounds=6, seconds=9.3)
    assert times["a"].median == pytest.approx(0.2)
