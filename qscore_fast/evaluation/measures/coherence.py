"""Coherence: the largest leverage of a row, in a second pass."""

from __future__ import annotations

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.row_blocks import Array, finite_rows, row_blocks
from qscore_fast.evaluation.measures.spectral import no_rows
from qscore_fast.evaluation.measures.spectrum import whitening


class Coherence:
    """Coherence (Tsitsulin et al. 2023): ``N / rank * max_i x_i^T (X^T X)^+ x_i``, not centred.

    From 1 (every row weighs the same) to N / rank (one row alone spans a direction). The published N / r is
    meant for full rank; the pseudo-inverse and the rank take its place where features are dead or N < r (then
    it is 1 whatever the rows are). Hangs on one row, so it is the least stable of the measures.

    Args:
        moments: of all rows, from the first pass; they must not change before ``compute``.

    ``update`` takes the same rows again, in any order and batches; accumulators with the same moments merge.
    """

    def __init__(self, moments: RepresentationMoments) -> None:
        self.moments = moments
        self._whitening = whitening(moments.rows)
        self.reset()

    @property
    def rank(self) -> int:
        """Of the uncentred rows."""
        return self._whitening.shape[1]

    def reset(self) -> None:
        """Forget the second pass."""
        self.num_samples = 0
        self._largest = 0.0

    def update(self, h: Array) -> Coherence:
        """Take the rows of ``h`` (..., r)."""
        for block in row_blocks(h, self.moments.num_features, self._whitening.device):
            rows, _ = finite_rows(block)
            self.num_samples += len(rows)
            if len(rows) and self.rank:
                leverage = (rows @ self._whitening).square().sum(1)
                self._largest = max(self._largest, float(leverage.max()))
        return self

    def merge(self, other: Coherence) -> Coherence:
        """Add what another one saw of the second pass."""
        mine, others = self.moments, other.moments
        if (mine.num_features, mine.num_samples) != (others.num_features, others.num_samples):
            raise SettingsError(
                f"cannot merge coherence over {others!r} into that over {mine!r}: give both the moments of "
                "all rows"
            )
        self.num_samples += other.num_samples
        self._largest = max(self._largest, other._largest)
        return self

    def compute(self) -> Measured:
        """The value; undefined until the second pass has seen all rows."""
        n = self.moments.num_samples
        if not n:
            return Measured.undefined(no_rows(self.moments))
        if not self.rank:
            return Measured.undefined("every row is zero")
        if self.num_samples != n:
            return Measured.undefined(
                f"the second pass saw {self.num_samples} rows and the first {n}: give it the same rows"
            )
        largest = min(self._largest, 1.0)
        return Measured.of(n / self.rank * largest, rank=self.rank, largest_leverage=largest)
