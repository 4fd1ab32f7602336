"""The failure metrics against torch-uncertainty's, where their conventions agree or differ by a known term.

Scores are all different: it breaks ties by position.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_uncertainty.metrics import AUGRC, AURC, FPR95, CovAtxRisk, RiskAtxCov

from qscore_fast.evaluation import failure as fp


def value(metric, probs, targets) -> float:
    metric.update(probs, targets)
    return float(metric.compute())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [2, 7, 60, 400])
def test_torch_uncertainty(n: int, seed: int) -> None:
    rng = np.random.default_rng((seed, n))
    # Confidences of a classifier of two classes, float32 as it keeps them.
    confidence = rng.permutation(np.linspace(0.51, 0.99, n)).astype(np.float32)
    correct = rng.random(n) < 0.4 + 0.5 * (confidence > 0.75)
    correct[:2] = True, False
    probs = torch.from_numpy(np.stack([confidence, 1 - confidence], 1))
    targets = torch.from_numpy((~correct).astype(np.int64))
    ours = {name: float(metric(confidence, correct)) for name, metric in {
        "aurc": fp.aurc("torch_uncertainty"), "augrc": fp.augrc(), "fpr95": fp.fpr_at_tpr(),
    }.items()}  # fmt: skip
    assert ours["aurc"] == pytest.approx(value(AURC(), probs, targets), abs=1e-6)
    # Its generalised risk starts at coverage 1/n: the first trapezoid is missing, the rest rescaled.
    first = float(not correct[np.argmax(confidence)]) / n
    theirs = value(AUGRC(), probs, targets) * (1 - 1 / n) + first / (2 * n)
    assert ours["augrc"] == pytest.approx(theirs, abs=1e-6)
    positive = torch.from_numpy(correct.astype(np.int64))
    fpr = value(FPR95(pos_label=1), torch.from_numpy(confidence), positive)
    assert ours["fpr95"] == pytest.approx(fpr, abs=1e-6)
    for coverage in (0.5, 0.8, 1.0):
        risk = value(RiskAtxCov(coverage), probs, targets)
        accuracy = float(fp.selective_accuracy(coverage)(confidence, correct))
        assert 1 - accuracy == pytest.approx(risk, abs=1e-6)
    for risk in (0.05, 0.2, 0.5):
        covered = value(CovAtxRisk(risk), probs, targets)
        if math.isnan(covered):
            with pytest.raises(fp.UndefinedMetricError):
                fp.coverage_at_risk(risk)(confidence, correct)
        else:
            found = float(fp.coverage_at_risk(risk)(confidence, correct))
            assert found == pytest.approx(covered, abs=1e-6)
