"""Cluster learnability, and CLID, which adds the intrinsic dimension."""

from __future__ import annotations

import math

import numpy as np

from qscore_fast.errors import MissingExtraError
from qscore_fast.evaluation.measures.measured import Measured
from qscore_fast.evaluation.measures.row_sample import RowSample
from qscore_fast.evaluation.measures.two_nn import two_nn

_MIN_ROWS = 16


def cluster_learnability(units: np.ndarray, seed: int = 0) -> Measured:
    """CL (Lu et al. 2023): how well a 1-nearest-neighbour classifier learns k-means clusters of the rows.

    round(sqrt(n)) clusters, half of each cluster to learn from, accuracy on the other half; 0 to 1.

    Args:
        units: (n, r) rows of length 1, so that Euclidean and cosine neighbours agree.
        seed: of k-means and of the halves.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.neighbors import KNeighborsClassifier
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "evaluation") from error

    n = len(units)
    if n < _MIN_ROWS:
        return Measured.undefined(f"{n} rows are finite and not zero: {_MIN_ROWS} are needed")
    distinct = len(np.unique(units, axis=0))
    k = round(math.sqrt(n))
    if distinct < k:
        return Measured.undefined(f"{distinct} rows are different, fewer than the {k} clusters")
    labels = KMeans(k, n_init=1, random_state=seed).fit_predict(units)
    shuffled = np.random.default_rng(seed).permutation(n)
    by_cluster = shuffled[np.argsort(labels[shuffled], kind="stable")]
    learn, judge = by_cluster[::2], by_cluster[1::2]
    nearest = KNeighborsClassifier(1, algorithm="brute").fit(units[learn], labels[learn])
    accuracy = float((nearest.predict(units[judge]) == labels[judge]).mean())
    return Measured.of(accuracy, clusters=k, rows=n, seed=seed)


def clid_measures(sample: RowSample, seed: int = 0) -> dict[str, Measured]:
    """``cluster_learnability`` and ``intrinsic_dimension`` (TwoNN) of a sample's unit rows, and ``clid``.

    CLID = CL + ID / r. Both parts change with r and N, so the sum ranks models only if they are alike in
    both. The paper's WCLID weighs the parts by a regression on known models.
    """
    rows = sample.rows.astype(np.float64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    learnability, dimension = cluster_learnability(units, seed), two_nn(units)
    if learnability.value is None or dimension.value is None:
        reason = learnability.reason or dimension.reason or ""
        both = Measured.undefined(reason)
    else:
        both = Measured.of(
            learnability.value + dimension.value / sample.num_features, **sample.about()
        )
    return {"cluster_learnability": learnability, "intrinsic_dimension": dimension, "clid": both}
