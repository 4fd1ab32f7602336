"""The measures that follow from the singular values of the rows."""

from __future__ import annotations

import numpy as np

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.spectrum import Spectrum

# A line needs so many eigenvalues if the range asked for reaches past the rank.
_MIN_FITTED = 10


def entropy_rank(weights: np.ndarray, eps: float = 0.0) -> float:
    """exp of the entropy of weights / sum + eps, with 0 log 0 = 0; weights (m,), not all 0."""
    p = weights / weights.sum() + eps
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def rank_me(moments: RepresentationMoments, eps: float = 0.0) -> Measured:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values over their sum; not centred.

    From 1 (all rows on one line) to min(N, r). Compare at equal N only.

    Args:
        moments: of the representations.
        eps: added to every share, which then sum to more than 1; published codes use 1e-12 to 1e-5.
    """
    if not (eps >= 0 and np.isfinite(eps)):
        raise SettingsError(f"eps is {eps:g}: give a finite number, 0 or more")
    spectrum, reason = _spectrum(moments, centred=False)
    if reason:
        return Measured.undefined(reason, eps=eps, centred=False)
    return Measured.of(entropy_rank(spectrum.singular_values, eps), eps=eps, centred=False)


def effective_rank(moments: RepresentationMoments) -> Measured:
    """Effective rank in its variance form: exp of the entropy of the covariance's eigenvalues, centred.

    From 1 to min(N - 1, r). Smaller than RankMe, for squares weigh the large values more.
    """
    spectrum, reason = _spectrum(moments, centred=True)
    if reason:
        return Measured.undefined(reason, centred=True)
    return Measured.of(entropy_rank(spectrum.shares), centred=True)


def power_law_exponent(eigenvalues: np.ndarray, fit: tuple[int, int] = (10, 99)) -> Measured:
    """alpha of ``lambda_j ~ j^-alpha``, by least squares of log lambda on log j weighted with 1/j.

    Args:
        eigenvalues: (m,), descending, 0 or more.
        fit: first and last index, from 0, both included. Where eigenvalues are 0 or missing the range
            ends earlier, at no fewer than 10; ``details["fit"]`` is the range used.
    """
    first, last = fit
    if not 0 <= first < last:
        raise SettingsError(f"fit is {fit}; it needs 0 <= first < last, indices from 0")
    num_positive = int(np.count_nonzero(np.asarray(eigenvalues) > 0))
    end = min(last + 1, num_positive)
    asked = {"fit_asked": [first, last], "weights": "1/j"}
    if end - first < min(_MIN_FITTED, last - first + 1):
        return Measured.undefined(
            f"{num_positive} eigenvalues are above 0, too few for a line through those from {first} "
            f"to {last} (from 0): pass another range (fit)",
            **asked,
        )
    j = np.arange(first + 1, end + 1, dtype=np.float64)
    x, y, weight = np.log(j), np.log(eigenvalues[first:end]), 1 / j
    x = x - np.average(x, weights=weight)
    slope = float((weight * x * y).sum() / (weight * x * x).sum())
    return Measured.of(-slope, fit=[first, end - 1], **asked)


def alpha_req(moments: RepresentationMoments, fit: tuple[int, int] = (10, 99)) -> Measured:
    """alpha-ReQ (Agrawal et al. 2022): :func:`power_law_exponent` of the covariance's eigenvalues, centred.

    0 for an isotropic spectrum, large for one that decays fast; near 1 is held to be good. The range of the
    fit can change the order of models, so it is kept in ``details``.
    """
    spectrum, reason = _spectrum(moments, centred=True)
    if reason:
        return Measured.undefined(reason, fit_asked=list(fit), weights="1/j")
    return power_law_exponent(spectrum.values, fit)


def nesum(moments: RepresentationMoments) -> Measured:
    """NESum (He and Ozay 2022): sum of the covariance's eigenvalues over the largest, centred.

    From 1 to min(N - 1, r); the same as the centred stable rank.
    """
    return stable_rank(moments, centred=True)


def stable_rank(moments: RepresentationMoments, *, centred: bool = False) -> Measured:
    """Stable (numerical) rank: ``|X|_F^2 / s_1^2``, of X itself or centred. From 1 to min(N, r)."""
    spectrum, reason = _spectrum(moments, centred=centred)
    if reason:
        return Measured.undefined(reason, centred=centred)
    return Measured.of(1 / float(spectrum.shares[0]), centred=centred)


def anisotropy(moments: RepresentationMoments) -> Measured:
    """Share of the variance along the first principal direction, centred: 1 / NESum. Up to 1 (collapsed)."""
    spectrum, reason = _spectrum(moments, centred=True)
    if reason:
        return Measured.undefined(reason, centred=True)
    return Measured.of(float(spectrum.shares[0]), centred=True)


def participation_ratio(moments: RepresentationMoments) -> Measured:
    """``(sum lambda)^2 / sum lambda^2`` of the covariance's eigenvalues, centred. From 1 to min(N - 1, r)."""
    spectrum, reason = _spectrum(moments, centred=True)
    if reason:
        return Measured.undefined(reason, centred=True)
    return Measured.of(1 / float(np.square(spectrum.shares).sum()), centred=True)


def participation_ratio_corrected(moments: RepresentationMoments) -> Measured:
    """The participation ratio PR with the bias of N samples and r features taken off.

    ``1 / naive = 1/N + 1/r + 1/PR``, where both are samples of larger populations. Undefined where naive
    is at its ceiling, so that PR has no bound.
    """
    naive = participation_ratio(moments)
    if naive.value is None:
        return naive
    n, r = moments.num_samples, moments.num_features
    left = 1 / naive.value - 1 / n - 1 / r
    if left <= 0:
        return Measured.undefined(
            f"the naive value {naive.value:.6g} is as large as {n} samples of {r} features allow: "
            "the corrected one has no bound",
            centred=True,
        )
    return Measured.of(1 / left, centred=True)


def pseudo_condition(moments: RepresentationMoments, *, centred: bool = False) -> Measured:
    """Pseudo-condition number (Tsitsulin et al. 2023) as ``s_m / s_1``, m = min(N, r): 1 is isotropic.

    0 where one dimension is lost, be it by a single dead feature: ``details["rank"]`` says how many are left,
    and ``details["smallest_above_0"]`` what the ratio is among them. Below ``details["resolution"]`` times
    ``s_1`` a singular value counts as 0. Some codes print the reciprocal, others centre first (then it is 0
    for every N <= r).
    """
    spectrum, reason = _spectrum(moments, centred=centred)
    about = {
        "direction": "s_m / s_1: 1 isotropic, 0 rank-deficient",
        "centred": centred,
        "resolution": spectrum.resolution,
    }
    if reason:
        return Measured.undefined(reason, **about)
    if len(spectrum.values) == 1:
        return Measured.undefined("min(N, r) is 1: one singular value has no ratio", **about)
    about |= {"rank": spectrum.rank, "smallest_above_0": spectrum.smallest_ratio}
    return Measured.of(float(np.sqrt(spectrum.values[-1] / spectrum.values[0])), **about)


def _spectrum(moments: RepresentationMoments, *, centred: bool) -> tuple[Spectrum, str | None]:
    spectrum = moments.spectrum(centred=centred)
    n = moments.num_samples
    if n == 0:
        return spectrum, no_rows(moments)
    if centred and n == 1:
        return spectrum, "one sample has no covariance"
    if spectrum.rank == 0:
        return spectrum, "all rows are equal" if centred else "every row is zero"
    return spectrum, None


def no_rows(moments: RepresentationMoments) -> str:
    """Why there is nothing to measure."""
    if moments.num_invalid:
        return f"all {moments.num_invalid} rows hold NaN, Inf or huge entries"
    return "there are no samples"
