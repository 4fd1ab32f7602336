"""The registry of scores that are compared: what each is, which way it points, what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Needs = Literal[
    "nothing",
    "scores",
    "activations",
    "embeddings",
    "reference",
    "views",
    "logits",
    "probe",
    "given",
]


@dataclass(frozen=True)
class Rival:
    """A score of one sample, oriented so that higher means more trusted.

    The orientation is fixed here, before any outcome is seen: a score that points the wrong way has an AUROC
    below a half and shows it.

    Attributes:
        name: the key in tables, JSON and files.
        title: the same for a person.
        direction: "+" if the quantity is taken as it is, "-" if it is negated.
        needs: "scores" (scores.parquet), "activations" (the parts), "embeddings", "reference" (embeddings
            of a reference set, too), "views" (embeddings of other views of the same images), "logits" (of a
            probe, so of labels), "probe" (another answer of one), "nothing", or "given" (by the caller).
        formula: the quantity, before the sign.
        source: who proposed or used it.
    """

    name: str
    title: str
    direction: Literal["+", "-"]
    needs: Needs
    formula: str
    source: str

    @property
    def uses_labels(self) -> bool | None:
        """Whether labels were needed to compute it, so that it is a bound and no rival; None: not known."""
        return None if self.needs == "given" else self.needs in ("logits", "probe")


RIVALS = (
    Rival("q_score", "Q-Score", "+", "scores",
          "mean over L and D of (h - mu) / ||h||_2", "Kalibhat 2024"),
    Rival("v1_score", "v1 score (max z / L1)", "+", "activations",
          "max z / ||h / ||h||_2||_1, z = (h - mu) / sigma", "Kalibhat 2022, arXiv v1"),
    Rival("l1_norm", "L1 norm", "+", "scores", "||h||_1", "Park 2023"),
    Rival("l2_norm", "L2 norm", "+", "scores", "||h||_2", "Yu 2023, Park 2023"),
    Rival("max_z", "max z", "+", "activations", "max (h - mu) / sigma", "Kalibhat 2022, numerator"),
    Rival("max_activation", "max activation", "+", "activations", "max h", "baseline"),
    Rival("num_active", "active features", "+", "scores", "|L and D|", "baseline"),
    Rival("num_highly_active", "highly active features", "+", "scores", "|L|", "baseline"),
    Rival("hoyer", "Hoyer sparsity", "+", "scores",
          "(sqrt(r) - ||h||_1 / ||h||_2) / (sqrt(r) - 1)", "Hoyer 2004"),
    Rival("gini", "Gini sparsity", "+", "embeddings",
          "1 - 2 sum_k |h|_(k) / ||h||_1 (r - k + 1/2) / r, ascending", "Hurley and Rickard 2009"),
    Rival("knn_distance", "kNN distance", "-", "reference",
          "distance to the k-th neighbour, unit rows", "Sun 2022"),
    Rival("knn_density", "kNN density", "-", "reference",
          "mean distance to the k nearest neighbours, unit rows", "baseline"),
    Rival("mahalanobis", "Mahalanobis, one Gaussian", "-", "reference",
          "(h - m)^T (S + delta I)^-1 (h - m)", "Lee 2018, without classes"),
    Rival("pca_residual", "PCA residual", "-", "reference",
          "||(I - P P^T)(h - m)||_2", "Wang 2022 (ViM), without the probe"),
    Rival("consistency", "perturbation consistency", "+", "views",
          "mean cosine over all pairs of views", "Wang and Isola 2020, alignment of one sample"),
    Rival("constant", "constant", "+", "nothing", "0", "what a score without information gives"),
    Rival("shuffled", "shuffled", "+", "nothing",
          "the first score, its values dealt to other samples", "what chance gives"),
    Rival("msp", "MSP", "+", "logits", "max softmax(f)", "Hendrycks and Gimpel 2017"),
    Rival("margin", "margin", "+", "logits", "largest less second largest softmax(f)", "Scheffer 2001"),
    Rival("max_logit", "max logit", "+", "logits", "max f", "Hendrycks 2022"),
    Rival("energy", "energy", "+", "logits", "T logsumexp(f / T)", "Liu 2020, minus its energy"),
    Rival("entropy", "entropy", "-", "logits", "-sum p ln p, p = softmax(f)", "Shannon 1948"),
)  # fmt: skip

RIVAL_OF = {rival.name: rival for rival in RIVALS}
