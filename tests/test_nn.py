"""QScoreLoss in a training loop."""

from __future__ import annotations

import io

import pytest
import torch

import qscore_fast as qf


def discovered(h: torch.Tensor) -> qf.DiscriminativeFeatures:
    return qf.discriminative_features(qf.FeatureCensus(h.shape[1], eps=1.5).update(h))


def test_equals_the_function_and_keeps_its_state() -> None:
    torch.manual_seed(0)
    h = torch.randn(50, 40).relu()
    D = discovered(h)
    module = qf.QScoreLoss(D, lambda1=0.3, lambda2=0.2, reduction="mean")
    expected = qf.q_score_loss(h, D, None, 0.3, 0.2, "mean")
    assert module(h) == expected
    assert module(h.reshape(5, 10, 40)) == expected

    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = qf.QScoreLoss(torch.ones(40, dtype=torch.bool), 1.5, 0.3, 0.2, "mean")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other(h) == expected
    assert f"{len(D)} of 40" in repr(module)


def test_without_features_all_count() -> None:
    h = torch.randn(10, 30)
    everything = torch.ones(30, dtype=torch.bool)
    assert qf.QScoreLoss(None, 1.0)(h) == qf.QScoreLoss(everything, 1.0)(h)


def test_two_sides_count_alike() -> None:
    """A row with a peak and a row with a pit as deep score the same; one-sided only the first scores."""
    h = torch.eye(30)[:2] * torch.tensor([[1.0], [-1.0]])
    module = qf.QScoreLoss(None, 2.0, lambda1=1.0, lambda2=0.0, two_sided=True)
    assert qf.q_score(h, None, 2.0, two_sided=True).tolist() == [pytest.approx(29 / 30)] * 2
    assert qf.q_score(h, None, 2.0).tolist() == [pytest.approx(29 / 30), 0]
    assert module(h) == qf.q_score_loss(h, None, 2.0, 1.0, 0.0, two_sided=True)
    assert "two_sided=True" in repr(module)


def test_moves_between_devices_and_dtypes() -> None:
    """half() and to() must not turn the set D into numbers."""
    module = qf.QScoreLoss(torch.ones(30, dtype=torch.bool)).half().to("meta")
    assert module.features.dtype == torch.bool
    assert module.features.device.type == "meta"


def test_training_on_it_raises_weak_scores() -> None:
    """Descent on the first term lifts the scores below the mean; on the second, evens out the columns."""
    torch.manual_seed(0)
    start = torch.randn(64, 100).relu() + 0.1
    weak = qf.q_score(start, None, 1.0) < qf.q_score(start, None, 1.0).mean()

    def descend(loss: qf.QScoreLoss) -> torch.Tensor:
        h = start.clone().requires_grad_()
        optimizer = torch.optim.SGD([h], lr=0.5)
        for _ in range(30):
            optimizer.zero_grad()
            loss(h).backward()
            optimizer.step()
        return h.detach()

    lifted = descend(qf.QScoreLoss(eps=1.0, lambda1=1000.0, lambda2=0.0))
    before, after = (qf.q_score(h, None, 1.0)[weak].mean() for h in (start, lifted))
    assert after > 1.1 * before

    def spread(h: torch.Tensor) -> torch.Tensor:
        columns = torch.nn.functional.normalize(h).abs().sum(0)
        return columns.max() / columns.mean()

    evened = descend(qf.QScoreLoss(eps=1.0, lambda1=0.0, lambda2=0.2))
    assert spread(evened) < spread(start)


def test_the_world_of_one_process_is_its_own_batch() -> None:
    h = torch.randn(20, 30)
    assert qf.QScoreLoss(eps=1.0, group="world")(h) == qf.QScoreLoss(eps=1.0)(h)
