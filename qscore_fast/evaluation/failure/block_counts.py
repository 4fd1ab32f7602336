"""BlockCounts: how many correct and wrong samples each block of equal scores holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@dataclass(frozen=True)
class BlockCounts:
    """Blocks of samples with equal scores, the highest score first; all that a metric looks at.

    Equal scores have no order among themselves, so a block enters every metric as one.

    Attributes:
        correct, wrong: (..., m) float64, whole numbers, for m blocks; a block of a resample may be empty.
    """

    correct: np.ndarray
    wrong: np.ndarray

    @cached_property
    def size(self) -> np.ndarray:
        """(..., m): samples of each block."""
        return self.correct + self.wrong

    @cached_property
    def successes(self) -> np.ndarray:
        """(..., m): correct samples in this block and all before it."""
        return np.cumsum(self.correct, axis=-1)

    @cached_property
    def errors(self) -> np.ndarray:
        """(..., m): wrong samples in this block and all before it."""
        return np.cumsum(self.wrong, axis=-1)

    @cached_property
    def covered(self) -> np.ndarray:
        """(..., m): samples in this block and all before it."""
        return self.successes + self.errors

    @cached_property
    def risk(self) -> np.ndarray:
        """(..., m): the share of wrong samples in this block and all before it; 0 where all are empty."""
        return self.errors / np.maximum(self.covered, 1)

    @property
    def num_correct(self) -> np.ndarray:
        """(...,): correct samples in all."""
        return self.successes[..., -1]

    @property
    def num_wrong(self) -> np.ndarray:
        """(...,): wrong samples in all."""
        return self.errors[..., -1]

    @property
    def num_samples(self) -> np.ndarray:
        """(...,): samples in all."""
        return self.covered[..., -1]

    @cached_property
    def first_risk(self) -> np.ndarray:
        """(...,): the share of wrong samples in the first block that is not empty."""
        first = np.argmax(self.size > 0, axis=-1)[..., None]
        return np.take_along_axis(self.risk, first, axis=-1)[..., 0]

    @cached_property
    def sum_of_risks(self) -> np.ndarray:
        """(...,): the sum over k = 1 .. n of the expected share of wrong samples among the first k.

        Within a block the errors grow evenly, E(k) = E + b (k - K) with b the block's share of wrong
        samples and E, K the counts before it; E(k) / k = b + (E - b K) / k is summed in closed form.
        """
        steps = harmonic_numbers(int(self.num_samples.max()))[self.covered.astype(np.intp)]
        steps[..., 1:] -= steps[..., :-1].copy()
        share = self.wrong / np.maximum(self.size, 1)
        before = self.errors - self.wrong - share * (self.covered - self.size)
        return self.num_wrong + np.einsum("...i,...i->...", before, steps)


@lru_cache(maxsize=4)
def harmonic_numbers(n: int) -> np.ndarray:
    """(n + 1,) float64: 1 + 1/2 + ... + 1/k for k = 0 .. n."""
    numbers = np.zeros(n + 1)
    np.cumsum(1 / np.arange(1, n + 1), out=numbers[1:])
    numbers.flags.writeable = False
    return numbers
