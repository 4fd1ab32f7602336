"""The streamed measures of the rows' directions and entries: self-clustering, normalised std, sparsity."""

from __future__ import annotations

from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.moments import RepresentationMoments
from qscore_fast.evaluation.measures.spectral import no_rows
from qscore_fast.evaluation.measures.spectrum import rounding_of_mean


def self_clustering(moments: RepresentationMoments) -> Measured:
    """Self-clustering (Tsitsulin et al. 2023, Def. 3.5): 0 for uniform directions, 1 if all rows collapse.

    With unit rows W (N, r): ``(Q - E) / (N^2 - E)``, ``Q = |W^T W|_F^2``, ``E = N + N (N - 1) / r``. Negative
    where rows repel each other. Zero rows are left out of N.
    """
    n, r = moments.num_nonzero, moments.num_features
    if reason := _too_few(moments, 1):
        return Measured.undefined(reason)
    if n == 1 or r == 1:
        only = "there is one row that is not zero" if n == 1 else "r is 1"
        return Measured.undefined(f"{only}: uniform and collapsed are the same")
    q = float(moments.units.uncentred.square().sum())
    expected = n + n * (n - 1) / r
    return Measured.of((q - expected) / (n * n - expected), rows=n)


def normalised_std(moments: RepresentationMoments) -> Measured:
    """Mean over the features of the standard deviation of unit rows (Chen and He 2021), Bessel's correction.

    About ``1 / sqrt(r)`` (``details["isotropic"]``) where directions are spread, 0 where all rows collapse,
    which centred spectra do not show. Zero rows are left out.
    """
    if reason := _too_few(moments, 2):
        return Measured.undefined(reason)
    units = moments.units
    variance = units.variance.clamp(min=0)
    equal = float(variance.sum()) * (units.count - 1) <= rounding_of_mean(units)
    std = 0.0 if equal else float(variance.sqrt().mean())
    return Measured.of(std, rows=moments.num_nonzero, isotropic=moments.num_features**-0.5)


def sparsity_l0(moments: RepresentationMoments) -> Measured:
    """m_l0: mean share of entries that are not 0, from 0 to 1 (dense). 1 for encoders without a ReLU."""
    if not moments.num_samples:
        return Measured.undefined(no_rows(moments))
    return Measured.of(moments.l0_sum / moments.num_samples / moments.num_features)


def sparsity_l1(moments: RepresentationMoments) -> Measured:
    """m_l1: mean of ``(|x|_1 / |x|_2)^2 / r``, from 1/r (one entry) to 1 (all equal). Zero rows left out."""
    if reason := _too_few(moments, 1):
        return Measured.undefined(reason)
    mean = moments.l1_ratio_sum / moments.num_nonzero
    return Measured.of(mean / moments.num_features, rows=moments.num_nonzero)


def _too_few(moments: RepresentationMoments, needed: int) -> str | None:
    if not moments.num_samples:
        return no_rows(moments)
    if not moments.num_nonzero:
        return "every row is zero"
    if moments.num_nonzero < needed:
        return "there is one row that is not zero: it needs two"
    return None
