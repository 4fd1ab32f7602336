"""The losses of the official codes, written out in NumPy: one number at a time, float64, no autograd.

Sources: google-research/simclr objective.py; facebookresearch/swav main_swav.py, moco moco/builder.py,
moco-v3 moco/builder.py, dino main_dino.py, simsiam main_simsiam.py, vicreg main_vicreg.py, barlowtwins
main.py; deepmind-research byol/byol_experiment.py and byol/utils/helpers.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def cosine(a: Array, b: Array) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def log_sum_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def simclr(z1: Array, z2: Array, temperature: float) -> float:
    n = len(z1)
    z = [*z1, *z2]
    halves = []
    for first in (0, n):
        total = 0.0
        for i in range(first, first + n):
            partner = (i + n) % (2 * n)
            others = [cosine(z[i], z[j]) / temperature for j in range(2 * n) if j != i]
            total += log_sum_exp(others) - cosine(z[i], z[partner]) / temperature
        halves.append(total / n)
    return halves[0] + halves[1]


def swav_codes(scores: Array, epsilon: float, sweeps: int) -> Array:
    q = [[math.exp(score / epsilon) for score in row] for row in scores]
    samples, prototypes = len(scores), len(scores[0])
    total = sum(map(sum, q))
    q = [[x / total for x in row] for row in q]
    for _ in range(sweeps):
        used = [sum(q[b][k] for b in range(samples)) for k in range(prototypes)]
        q = [[x / used[k] / prototypes for k, x in enumerate(row)] for row in q]
        q = [[x / sum(row) / samples for x in row] for row in q]
    return np.array([[x * samples for x in row] for row in q])


def swav(views: Sequence[Array], codes: Sequence[Array], temperature: float) -> float:
    n, loss = len(views[0]), 0.0
    for s, assigned in enumerate(codes):
        for v, scores in enumerate(views):
            if v == s:
                continue
            for code, row in zip(assigned, scores, strict=True):
                normaliser = log_sum_exp([x / temperature for x in row])
                for q, x in zip(code, row, strict=True):
                    loss -= q * (x / temperature - normaliser) / n / (len(views) - 1)
    return loss / len(codes)


def moco(query: Array, key: Array, queue: Array, temperature: float) -> float:
    total = 0.0
    for q, k in zip(query, key, strict=True):
        length = math.sqrt(sum(x * x for x in q))
        old = [sum(x * y for x, y in zip(q, row, strict=True)) / length for row in queue]
        logits = [cosine(q, k) / temperature, *(x / temperature for x in old)]
        total += log_sum_exp(logits) - logits[0]
    return total / len(query)


def moco_v3(query: Array, key: Array, temperature: float) -> float:
    total = 0.0
    for i, q in enumerate(query):
        logits = [cosine(q, k) / temperature for k in key]
        total += log_sum_exp(logits) - logits[i]
    return 2 * temperature * total / len(query)


def byol(p1: Array, p2: Array, z1: Array, z2: Array) -> float:
    pairs = [*zip(p1, z2, strict=True), *zip(p2, z1, strict=True)]
    return sum(2 - 2 * cosine(p, z) for p, z in pairs) / len(p1)


def simsiam(p1: Array, p2: Array, z1: Array, z2: Array) -> float:
    pairs = [*zip(p1, z2, strict=True), *zip(p2, z1, strict=True)]
    return -0.5 * sum(cosine(p, z) for p, z in pairs) / len(p1)


def dino(
    student: Sequence[Array], teacher: Sequence[Array], center: Array, warm: float, cold: float
) -> float:
    total, pairs = 0.0, 0
    for t, taught in enumerate(teacher):
        for s, seen in enumerate(student):
            if s == t:
                continue
            pairs += 1
            for g_t, g_s in zip(taught, seen, strict=True):
                sharp = [(x - c) / warm for x, c in zip(g_t, center, strict=True)]
                scaled = [x / cold for x in g_s]
                norm_t, norm_s = log_sum_exp(sharp), log_sum_exp(scaled)
                for a, b in zip(sharp, scaled, strict=True):
                    total -= math.exp(a - norm_t) * (b - norm_s) / len(taught)
    return total / pairs


def vicreg(z1: Array, z2: Array, weights: tuple[float, float, float]) -> float:
    n, d = z1.shape
    invariance = sum((z1[i, j] - z2[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (z1, z2):
        means = [sum(z[:, j]) / n for j in range(d)]

        def cov(a: int, b: int, z: Array = z, means: list[float] = means) -> float:
            return sum((z[i, a] - means[a]) * (z[i, b] - means[b]) for i in range(n)) / (n - 1)

        for j in range(d):
            variance += max(0.0, 1 - math.sqrt(cov(j, j) + 1e-4)) / d / 2
            covariance += sum(cov(j, k) ** 2 for k in range(d) if k != j) / d
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


def standardised(z: Array, eps: float = 1e-5) -> Array:
    """A batch norm without weight and bias, in training."""
    return np.stack([(c - c.mean()) / math.sqrt(c.var() + eps) for c in z.T], axis=1)


def barlow_twins(z1: Array, z2: Array, off_diagonal: float) -> float:
    n, d = z1.shape
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(z1[b, i] * z2[b, j] for b in range(n)) / n
            loss += (c - 1) ** 2 if i == j else off_diagonal * c**2
    return loss


def gradient(loss: Callable[[Array], float], at: Array, step: float = 1e-6) -> Array:
    """Central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        found[place] = (loss(up) - loss(down)) / (2 * step)
    return found
