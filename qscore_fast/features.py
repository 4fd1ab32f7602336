"""Discovery: the census of activations, and the discriminative features that follow from it."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qscore_fast.errors import QScoreError, SettingsError
from qscore_fast.functional import EPS, activation_counts

_FORMAT = "qscore-fast.features.1"
# A file for the largest r that is in use has a few MiB; what declares more is not ours.
_MAX_FILE_BYTES = 1 << 28


class FeatureCensus:
    """For every feature, the number of samples that have it in L.

    Counts are exact integers, so censuses of the parts of a population merge to that of the whole.

    Args:
        num_features: r.
        eps: threshold of L in standard deviations.
        two_sided: whether L holds entries far below the mean as well (beyond the paper).
    """

    def __init__(self, num_features: int, eps: float = EPS, *, two_sided: bool = False) -> None:
        if num_features < 1:
            raise SettingsError(
                f"num_features is {num_features}; an encoder has at least one feature"
            )
        self.num_features = int(num_features)
        self.eps = float(eps)
        self.two_sided = bool(two_sided)
        self.num_samples = 0
        self.counts = torch.zeros(self.num_features, dtype=torch.int64)

    @classmethod
    def from_counts(
        cls, counts: Tensor, num_samples: int, eps: float = EPS, *, two_sided: bool = False
    ) -> FeatureCensus:
        """A census from int64 counts (r,) over ``num_samples`` samples that were made elsewhere."""
        if counts.ndim != 1 or counts.dtype != torch.int64:
            raise SettingsError(
                f"counts has shape {tuple(counts.shape)} and dtype {counts.dtype}; pass int64 (r,)"
            )
        if len(counts) and not 0 <= int(counts.min()) <= int(counts.max()) <= num_samples:
            raise SettingsError(
                f"counts lie in {int(counts.min())}..{int(counts.max())}, outside 0..{num_samples} samples"
            )
        census = cls(len(counts), eps, two_sided=two_sided)
        census.counts = counts.clone()
        census.num_samples = int(num_samples)
        return census

    def update(self, h: Tensor) -> FeatureCensus:
        """Add the rows of ``h`` (..., r). A row with NaN or Inf counts as a sample with nothing active."""
        if h.shape[-1:] != (self.num_features,):
            raise SettingsError(
                f"h has shape {tuple(h.shape)}; this census counts r = {self.num_features} features"
            )
        counts = activation_counts(h, self.eps, two_sided=self.two_sided)
        self.counts = self.counts.to(counts.device) + counts
        self.num_samples += h.numel() // self.num_features
        return self

    def merge(self, other: FeatureCensus) -> FeatureCensus:
        """Add another census of the same features, eps and sides, over other samples."""
        if (self.num_features, self.eps) != (other.num_features, other.eps):
            raise SettingsError(
                f"cannot merge a census of {other.num_features} features at eps {other.eps} into one of "
                f"{self.num_features} at eps {self.eps}"
            )
        if self.two_sided != other.two_sided:
            raise SettingsError(
                f"cannot merge a census with two_sided = {other.two_sided} into one with two_sided = "
                f"{self.two_sided}: they count different sets"
            )
        self.counts = self.counts + other.counts.to(self.counts.device)
        self.num_samples += other.num_samples
        return self

    @property
    def percent(self) -> Tensor:
        """A_j: the percentage of samples that have feature j in L, float64 (r,); 0 without samples."""
        return self.counts.double() * 100 / max(self.num_samples, 1)

    def __repr__(self) -> str:
        return (
            f"FeatureCensus(num_features={self.num_features}, eps={self.eps}, "
            f"num_samples={self.num_samples}{', two_sided=True' * self.two_sided})"
        )


@dataclass(frozen=True, eq=False)
class DiscriminativeFeatures:
    """D, with the census that it was chosen from.

    A feature is in D when its A_j lies between the two percentiles of A, ends included, and is above 0.
    """

    counts: Tensor  # (r,) int64: samples that have feature j in L
    num_samples: int
    eps: float
    lower: float
    upper: float
    mask: Tensor  # (r,) bool: D
    fingerprint: str | None = None  # of the encoder that the features belong to
    two_sided: bool = False  # whether L holds entries far below the mean as well

    @property
    def num_features(self) -> int:
        """r, the features of the encoder; ``len`` gives the size of D."""
        return len(self.mask)

    @property
    def indices(self) -> Tensor:
        """The features in D, ascending, int64 (|D|,)."""
        return self.mask.nonzero().squeeze(1)

    @property
    def percent(self) -> Tensor:
        """A_j, float64 (r,)."""
        return self.counts.double() * 100 / max(self.num_samples, 1)

    def __len__(self) -> int:
        return int(self.mask.sum())

    def __repr__(self) -> str:
        return (
            f"DiscriminativeFeatures({len(self)} of {self.num_features}, eps={self.eps}, "
            f"percentiles {self.lower:g}-{self.upper:g} of {self.num_samples} samples"
            f"{', two-sided' * self.two_sided})"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz of plain arrays, whole or not at all.

        Arrays: ``format`` and ``fingerprint`` (strings), ``counts`` int64 (r,), ``mask`` bool (r,),
        ``num_samples`` int64, ``eps``, ``lower``, ``upper`` float64, ``two_sided`` bool.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.savez(
                    file,
                    format=np.array(_FORMAT),
                    fingerprint=np.array(self.fingerprint or ""),
                    counts=self.counts.cpu().numpy(),
                    mask=self.mask.cpu().numpy(),
                    num_samples=np.int64(self.num_samples),
                    eps=np.float64(self.eps),
                    lower=np.float64(self.lower),
                    upper=np.float64(self.upper),
                    two_sided=np.bool_(self.two_sided),
                )
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DiscriminativeFeatures:
        """Read what ``save`` wrote; a file without ``two_sided`` is one-sided.

        Raises ``QScoreError`` for a file that is not one, or is damaged.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                declared = sum(entry.file_size for entry in archive.infolist())
            if declared > _MAX_FILE_BYTES:
                raise ValueError(f"it declares {declared} bytes")
            with np.load(path, allow_pickle=False) as arrays:
                if str(arrays["format"]) != _FORMAT:
                    raise ValueError(
                        f"its format is {str(arrays['format'])[:60]!r}, not {_FORMAT!r}"
                    )
                counts = torch.from_numpy(arrays["counts"].astype(np.int64, casting="safe"))
                mask = torch.from_numpy(arrays["mask"].astype(np.bool_, casting="safe"))
                if counts.ndim != 1 or counts.shape != mask.shape or not len(counts):
                    raise ValueError(
                        f"counts {tuple(counts.shape)} and mask {tuple(mask.shape)} differ"
                    )
                return cls(
                    counts=counts,
                    num_samples=int(arrays["num_samples"]),
                    eps=float(arrays["eps"]),
                    lower=float(arrays["lower"]),
                    upper=float(arrays["upper"]),
                    mask=mask,
                    fingerprint=str(arrays["fingerprint"]) or None,
                    two_sided="two_sided" in arrays and bool(arrays["two_sided"]),
                )
        except FileNotFoundError:
            raise QScoreError(
                f"features file {os.fspath(path)!r} does not exist; make one with `qscore discover`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise QScoreError(
                f"{os.fspath(path)!r} is not a features file of qscore-fast ({error}); "
                "make one with `qscore discover` or DiscriminativeFeatures.save"
            ) from error


def discriminative_features(
    census: FeatureCensus, lower: float = 50, upper: float = 95
) -> DiscriminativeFeatures:
    """Choose D: the features whose A_j lies between two percentiles of A over all r features.

    The paper excludes rarely active (image-specific) and very often active (general) features. Percentiles
    interpolate linearly between order statistics like ``numpy.percentile``; both ends belong to D, ties
    stay together, and a feature that is never active is never in D. With few samples many A_j are equal
    and D can hold more than ``upper - lower`` per cent of the features.

    Args:
        census: over the population, the training set in the paper.
        lower: lower percentile, 0 to 100.
        upper: upper percentile, ``lower`` to 100.

    Raises:
        SettingsError: percentiles out of order or range, or a census without samples.
    """
    if not 0 <= lower <= upper <= 100:
        raise SettingsError(
            f"percentiles are {lower} and {upper}; they need 0 <= lower <= upper <= 100"
        )
    if not census.num_samples:
        raise SettingsError(
            "the census holds no samples; call update(h) with representations first"
        )
    counts = census.counts.cpu()
    low, high = np.percentile(counts.numpy(), [lower, upper])
    mask = (counts >= low) & (counts <= high) & (counts > 0)
    return DiscriminativeFeatures(
        counts=counts,
        num_samples=census.num_samples,
        eps=census.eps,
        lower=float(lower),
        upper=float(upper),
        mask=mask,
        two_sided=census.two_sided,
    )
