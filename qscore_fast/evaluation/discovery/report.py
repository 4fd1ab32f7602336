"""discovery_report: D of a run, how stable it is, and what its features stand for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.class_labels import ClassLabels
from qscore_fast.evaluation.discovery.activation_figure import save_activation_figure
from qscore_fast.evaluation.discovery.activity import FeatureActivity, feature_activity
from qscore_fast.features import DiscriminativeFeatures, FeatureCensus, discriminative_features
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import made_folder, replacing, write_text
from qscore_fast.scoring.store import Store

BANDS = {"below": "below D", "in_d": "in D", "above": "above D"}
FILES = ("discovery.json", "features.parquet", "top_images.parquet", "activations.svg")


@dataclass(frozen=True, eq=False)
class DiscoveryReport:
    """What the activations of a run say about its features.

    Attributes:
        features: D.
        activity: the counts.
        sample_ids: (N,) of the scored samples.
        labels: of these; None without.
    """

    features: DiscriminativeFeatures
    activity: FeatureActivity
    sample_ids: pa.Array
    labels: ClassLabels | None

    @cached_property
    def halves(self) -> np.ndarray:
        """(splits, 2, r) bool: D of each half of each split, by the same percentiles."""
        activity, features = self.activity, self.features
        sizes = np.stack([activity.half_sizes, activity.num_samples - activity.half_sizes], 1)
        counts = np.stack([activity.half_counts, activity.counts - activity.half_counts], 1)
        return np.array(
            [
                [_band(features, half, int(size)) for half, size in zip(*pair, strict=True)]
                for pair in zip(counts, sizes, strict=True)
            ]
        ).reshape(len(sizes), 2, features.num_features)

    @property
    def jaccard(self) -> np.ndarray:
        """(splits,): |A and B| / |A or B| of D in both halves; NaN where both are empty."""
        return _ratio(self.halves.all(1).sum(1), self.halves.any(1).sum(1))

    @property
    def jaccard_by_chance(self) -> np.ndarray:
        """(splits,): what random sets of these sizes have, about; NaN where both are empty."""
        sizes = self.halves.sum(2).astype(np.float64)
        both = sizes.prod(1) / self.features.num_features
        return _ratio(both, sizes.sum(1) - both)

    @property
    def kept_share(self) -> np.ndarray:
        """(r,): the share of all halves in which the feature is in D."""
        return self.halves.mean((0, 1))

    @property
    def purity(self) -> np.ndarray | None:
        """(r,): the largest class's share of the samples that it fires for; NaN for a dead feature."""
        counts = self.activity.by_class
        return None if counts is None else _ratio(counts.max(1), self.activity.counts)

    @property
    def effective_classes(self) -> np.ndarray | None:
        """(r,): exp of the entropy of the classes that it fires for; NaN for a dead feature."""
        counts = self.activity.by_class
        if counts is None:
            return None
        p = _ratio(counts, self.activity.counts[:, None])
        entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)
        return np.where(self.activity.counts > 0, np.exp(entropy), np.nan)

    @property
    def bands(self) -> dict[str, np.ndarray]:
        """(r,) bool each: live features that fire more rarely than D, those in D, and the others."""
        counts, in_d = self.activity.counts, self.features.mask.numpy()
        live = counts > 0
        most = counts[in_d].max() if in_d.any() else np.median(counts[live]) if live.any() else 0
        above = live & ~in_d & (counts > most)
        return {"below": live & ~in_d & ~above, "in_d": live & in_d, "above": above}

    @property
    def notes(self) -> list[str]:
        """What a reader should know, one sentence each."""
        found = []
        undefined = int(np.isnan(self.jaccard).sum())
        if undefined:
            found.append(
                f"the Jaccard of {undefined} of {len(self.jaccard)} splits is undefined: D of both halves is "
                "empty"
            )
        if self.labels is None:
            return found
        classes = np.unique(self.labels.targets)
        if not self.activity.counts.any():
            return [*found, "no feature has a purity: none is ever active"]
        empty = [BANDS[name] for name, band in self.bands.items() if not band.any()]
        if empty:
            found.append(f"no live feature is {' or '.join(empty)}: the purity there is undefined")
        if len(classes) == 1:
            found.append(
                f"all images are of class {self.labels.classes[int(classes[0])]!r}: every purity is 1, which "
                "says nothing about the features"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where a Jaccard or a purity is undefined, with the reason in ``notes``."""
        purity = self.purity
        found: dict[str, Any] = {
            "num_samples": self.activity.num_samples,
            "eps": self.features.eps,
            "lower": self.features.lower,
            "upper": self.features.upper,
            "num_discriminative": len(self.features),
            "num_dead": int((self.activity.counts == 0).sum()),
            "num_features": {name: int(band.sum()) for name, band in self.bands.items()},
            "jaccard": _or_none(self.jaccard),
            "jaccard_by_chance": _or_none(self.jaccard_by_chance),
            "notes": self.notes,
        }
        if purity is not None and self.labels is not None:
            found["num_classes"] = self.labels.num_classes
            found["purity"] = {
                name: float(purity[band].mean()) if band.any() else None
                for name, band in self.bands.items()
            }
        return found

    def lines(self) -> list[str]:
        """For a terminal."""
        content = self.to_json()
        found = []
        defined = ~np.isnan(self.jaccard)
        if defined.any():
            found.append(
                f"D of one half of the samples against the other: Jaccard {self.jaccard[defined].mean():.3f} "
                f"over {defined.sum()} splits (random sets: {self.jaccard_by_chance[defined].mean():.3f})"
            )
        if "purity" in content and self.activity.counts.any():
            parts = [
                f"{title} {content['purity'][name]:.3f}"
                for name, title in BANDS.items()
                if content["purity"][name] is not None
            ]
            found.append(f"mean purity of the features: {', '.join(parts)}")
        return [*found, *(f"note: {note}" for note in self.notes)]

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write discovery.json, features.parquet (a row a feature), top_images.parquet and activations.svg.

        Raises:
            StoreError: the folder cannot be made or written.
        """
        folder = made_folder(folder)
        paths = [folder / name for name in FILES]
        write_text(paths[0], json.dumps(self.to_json(), indent=1) + "\n")
        for path, table in ((paths[1], self._features_table()), (paths[2], self._top_table())):
            with replacing(path) as temporary:
                pq.write_table(table, temporary, compression="zstd")
        save_activation_figure(
            self.features.percent.numpy(), self.features.mask.numpy(),
            self.features.lower, self.features.upper, paths[3],
        )  # fmt: skip
        return paths

    def _features_table(self) -> pa.Table:
        columns: dict[str, Any] = {
            "feature": np.arange(self.features.num_features),
            "count": self.activity.counts,
            "percent": self.features.percent.numpy(),
            "in_d": self.features.mask.numpy(),
            "share_of_halves_in_d": self.kept_share,
        }
        if self.labels is not None and self.activity.by_class is not None:
            names = pa.array(self.labels.classes, pa.string())
            dead = self.activity.counts == 0
            columns["top_class"] = names.take(pa.array(self.activity.by_class.argmax(1), mask=dead))
            columns["purity"] = pa.array(self.purity, mask=dead)
            columns["effective_classes"] = pa.array(self.effective_classes, mask=dead)
        return pa.table(columns)

    def _top_table(self) -> pa.Table:
        rows, values = self.activity.top_rows, self.activity.top_values
        feature, place = (rows >= 0).nonzero()
        chosen = rows[feature, place]
        columns: dict[str, Any] = {
            "feature": feature,
            "place": place + 1,
            "sample_id": self.sample_ids.take(pa.array(chosen)),
            "value": values[feature, place],
        }
        if self.labels is not None:
            names = pa.array(self.labels.classes, pa.string())
            columns["label"] = names.take(pa.array(self.labels.targets[chosen]))
        return pa.table(columns)


def discovery_report(
    run: str | os.PathLike[str] | ScoreRun,
    features: DiscriminativeFeatures | None = None,
    *,
    labels: str | os.PathLike[str] | bool | None = None,
    num_splits: int = 10,
    num_top: int = 10,
    seed: int = 0,
) -> DiscoveryReport:
    """Look at D in a finished run: one pass over its parts, no image and no embedding.

    Args:
        features: D to look at, chosen from this run; its own by default.
        labels: a file with sample_id and label; True or False to use or leave those of the run; None uses
            them if every scored image has one.
        num_splits: pairs of random halves, 1 or more. num_top: images to name for each feature. seed: of the
            halves.

    Raises:
        SettingsError: features of another encoder or other samples, labels that are missing, no split, or a
            count below 0.
        StoreError: no complete run there, or a damaged one.
    """
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    features = run.features if features is None else features
    if features.fingerprint != run.features.fingerprint:
        raise SettingsError(f"the features are not those of the encoder of {run.path}")
    if num_splits < 1:
        raise SettingsError(f"num_splits is {num_splits}: give 1 or more")
    if num_top < 0:
        raise SettingsError(f"num_top is {num_top}: give 0 or more")
    scores = run.scores().select(["sample_id", "label"])
    if isinstance(labels, bool) or labels is None:
        use = scores["label"].null_count == 0 if labels is None else labels
        known = ClassLabels.of_run(run) if use else None
    else:
        known = ClassLabels.of_run(run, labels)
    activity = feature_activity(
        Store(run.path), features.num_features, features.eps, known,
        num_splits=num_splits, num_top=num_top, seed=seed,
    )  # fmt: skip
    if activity.num_samples != features.num_samples or not np.array_equal(
        activity.counts, features.counts.numpy()
    ):
        raise SettingsError(
            f"the features of {run.path} were discovered on other samples: give the run that they come from, "
            "or a file (--out) to discover this one's own in, which leaves the run as it is"
        )
    return DiscoveryReport(features, activity, scores["sample_id"].combine_chunks(), known)


def _band(features: DiscriminativeFeatures, counts: np.ndarray, size: int) -> np.ndarray:
    if size == 0:
        return np.zeros(len(counts), bool)
    census = FeatureCensus.from_counts(
        torch.from_numpy(counts), size, features.eps, two_sided=features.two_sided
    )
    return discriminative_features(census, features.lower, features.upper).mask.numpy()


def _or_none(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0)
