"""Which features to keep: by activity, by variance, or by chance."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.feature_rows import FeatureRows, as_tensor

Strategy = Literal["discriminative", "random", "top_tail", "bottom_tail", "variance"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
BY_ACTIVITY: tuple[Strategy, ...] = ("discriminative", "top_tail", "bottom_tail")

# Of what is left out, the part above the band: 5 of 55 at the published band, the 50th to 95th percentile.
UPPER_PART = 5 / 55


def num_kept(num_features: int, share: float) -> int:
    """The whole number nearest to ``share`` of r, at least 1.

    Raises:
        SettingsError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise SettingsError(f"share to keep is {share:g}: give a number above 0, at most 1")
    return max(1, round(share * num_features))


def kept_indices(
    strategy: Strategy,
    share: float,
    counts: np.ndarray,
    *,
    variances: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """The features that a strategy keeps, int64 ascending, exactly ``num_kept(r, share)`` of them.

    Features are ordered by A_j, equal ones by index; dead ones come first, which :func:`dead_note` tells of.
    ``discriminative`` keeps a band of that order: both ends move inwards in the proportion of the published
    band, which it is at a share of 0.45 but for ties. ``top_tail`` and ``bottom_tail`` keep the most and the
    least active, ``variance`` those of the largest variance, ``random`` any, by ``seed``.

    Args:
        counts: (r,) samples that have feature j in L, as in ``DiscriminativeFeatures.counts``.
        variances: (r,), for ``variance``.

    Raises:
        SettingsError: an unknown strategy, a share outside 0 to 1, ``variance`` without variances, or a
            strategy by activity where no feature is ever active.
    """
    if strategy in BY_ACTIVITY and not counts.any():
        raise SettingsError(
            f"no feature is ever active in the census, so the strategy {strategy} has no order to go by: "
            "discover the features at a smaller eps (qscore discover --eps), or keep by variance or at random"
        )
    r, k = len(counts), num_kept(len(counts), share)
    by_activity = np.argsort(counts, kind="stable")
    match strategy:
        case "discriminative":
            below = r - k - round((r - k) * UPPER_PART)
            chosen = by_activity[below : below + k]
        case "top_tail":
            chosen = by_activity[r - k :]
        case "bottom_tail":
            chosen = by_activity[:k]
        case "random":
            chosen = np.random.default_rng(seed).permutation(r)[:k]
        case "variance":
            if variances is None:
                raise SettingsError("the strategy variance needs the variances of the features")
            chosen = np.argsort(-variances, kind="stable")[:k]
        case _:
            raise SettingsError(f"strategy is {strategy!r}: give one of {', '.join(STRATEGIES)}")
    return np.sort(chosen).astype(np.int64)


def dead_note(strategy: str, kept: np.ndarray, counts: np.ndarray) -> str | None:
    """What a user should know where a strategy by activity keeps features that are never active.

    Args:
        kept: (k,) indices. counts: (r,) samples that have each feature in L.
    """
    dead = counts == 0
    inside = int(dead[kept].sum())
    if strategy not in BY_ACTIVITY or not inside:
        return None
    return (
        f"{inside:,} of the {len(kept):,} features kept by {strategy} are dead: of {len(counts):,} features "
        f"{int(dead.sum()):,} are never active in the census, which says nothing about their order"
    )


def column_variances(rows: FeatureRows, block: int = 8192) -> np.ndarray:
    """(r,) float64: the variance of each feature over all rows, divided by N; one pass.

    Raises:
        SettingsError: NaN or Inf in the rows.
    """
    count = 0
    mean = torch.zeros(rows.num_features, dtype=torch.float64)
    deviations = torch.zeros_like(mean)
    for array in rows.blocks(block):
        part = as_tensor(array).double()
        own = part.mean(0)
        total = count + len(part)
        # Chan, Golub and LeVeque: a large mean costs no digits.
        deviations += (part - own).square().sum(0) + (own - mean).square() * (
            count * len(part) / total
        )
        mean += (own - mean) * (len(part) / total)
        count = total
    if not bool(torch.isfinite(deviations).all()):
        raise SettingsError("the representations hold NaN or Inf: leave such rows out")
    return (deviations / count).numpy()
