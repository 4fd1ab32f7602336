"""Training steps of every system: what is compared with what, what moves, and what stays."""

from __future__ import annotations

import copy
import math

import numpy as np
import official_objectives as official
import pytest
import torch
from small_objectives import (
    SYSTEMS,
    parameters_of,
    sgd,
    small_objective,
    small_views,
    train_step,
)
from torch import Tensor, nn
from torch.nn import functional as F

from qscore_fast.errors import SettingsError
from qscore_fast.finetuning.objective import Objective, StepPosition

N = 8
EPOCH = 2
ALL = pytest.mark.parametrize("system", SYSTEMS)


def at(step: int, steps: int = 10) -> StepPosition:
    return StepPosition(step, steps, EPOCH)


def numpy(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().numpy() for tensor in tensors]


@torch.no_grad()
def loss_by_hand(o: nn.Module, v: list[Tensor]) -> float:
    """The official definition on what the modules of a copy return, view by view as the official code."""
    o = copy.deepcopy(o)
    if o.system == "simclr":
        return official.simclr(*numpy(*o.projector(o.backbone(torch.cat(v))).chunk(2)), 0.1)
    if o.system in ("swav", "dino"):
        large, small = torch.cat(v[:2]), torch.cat(v[2:])
        z = o.projector(torch.cat([o.backbone(large), o.backbone(small)]))
        if o.system == "swav":
            scores = numpy(*(F.normalize(z, dim=1) @ o.prototypes.weight.T).chunk(4))
            codes = [official.swav_codes(s, 0.05, 3) for s in scores[:2]]
            return official.swav(scores, codes, 0.1)
        student = numpy(*o.prototypes(z).chunk(4))
        teacher = numpy(*o.ema_prototypes(o.ema_projector(o.ema_backbone(large))).chunk(2))
        return official.dino(student, teacher, *numpy(o.center), 0.04, 0.1)
    h1, h2 = o.backbone(v[0]), None
    z1 = o.projector(h1)
    if o.system in ("moco", "moco_v2"):
        k = o.ema_projector(o.ema_backbone(v[1]))
        return official.moco(*numpy(z1, k, o.queue), {"moco": 0.07, "moco_v2": 0.2}[o.system])
    h2 = o.backbone(v[1])
    z2 = o.projector(h2)
    if o.system == "vicreg":
        return official.vicreg(*numpy(z1, z2), (25, 25, 1))
    if o.system == "barlow_twins":
        return official.barlow_twins(*map(official.standardised, numpy(z1, z2)), 0.0051)
    p1, p2 = numpy(o.predictor(z1), o.predictor(z2))
    if o.system == "simsiam":
        return official.simsiam(p1, p2, *numpy(z1, z2))
    k1, k2 = numpy(*(o.ema_projector(o.ema_backbone(x)) for x in v))
    if o.system == "byol":
        return official.byol(p1, p2, k1, k2)
    return official.moco_v3(p1, k2, 1.0) + official.moco_v3(p2, k1, 1.0)


@ALL
def test_the_right_things_are_compared(system: str) -> None:
    objective = small_objective(system)
    objective.check_batch(N)
    views = small_views(system, N)
    if hasattr(objective, "ema_backbone"):  # so that it is not the online one
        with torch.no_grad():
            for p in (*objective.ema_backbone.parameters(), *objective.ema_projector.parameters()):
                p.mul_(1 + 0.1 * torch.rand(p.shape, generator=torch.Generator().manual_seed(2)))
    objective.before_step(at(0))
    expected = loss_by_hand(objective, views)
    online = copy.deepcopy(objective.backbone)
    output = objective(views)
    assert output.loss.item() == pytest.approx(expected, rel=1e-9)

    seen = views[:1] if system in ("moco", "moco_v2") else views[:2]
    together = system in ("simclr", "swav", "dino")
    h = online(torch.cat(seen)) if together else torch.cat([online(view) for view in seen])
    torch.testing.assert_close(output.representations, h)
    assert all(not term.requires_grad for term in output.terms.values())


@ALL
def test_five_steps(system: str) -> None:
    objective, optimiser = small_objective(system), None
    views = small_views(system, N)
    objective.before_step(at(0))
    objective(views).loss.backward()
    silent = [
        name
        for name, p in objective.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert silent == []
    assert all(p.grad is None for p in objective.parameters() if not p.requires_grad)

    optimiser = sgd(objective, 1e-3 if system == "barlow_twins" else 0.02)
    heads = {id(p) for p in objective.head_parameters()}
    backbone = {id(p) for p in objective.backbone.parameters() if p.requires_grad}
    assert heads.isdisjoint(backbone)
    assert heads | backbone == {id(p) for g in optimiser.param_groups for p in g["params"]}
    losses = [
        train_step(objective, optimiser, small_views(system, N, seed), at(seed))
        for seed in range(5)
    ]
    assert torch.stack(losses).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in objective.state_dict().values())


def momentum(base: float, step: int, steps: int) -> float:
    return 1 - (1 - base) * (math.cos(math.pi * step / steps) + 1) / 2


@pytest.mark.parametrize("system", ["moco", "moco_v2", "moco_v3", "byol", "dino"])
def test_the_moving_average(system: str) -> None:
    objective = small_objective(system)
    parts = ["backbone", "projector"] + (["prototypes"] if system == "dino" else [])
    online = [objective.get_submodule(part) for part in parts]
    average = [objective.get_submodule(f"ema_{part}") for part in parts]
    assert not any(p.requires_grad for module in average for p in module.parameters())
    optimiser = sgd(objective)
    before_forward = system.startswith("moco")
    for step in range(3):
        position = at(step)
        keeps = {
            "moco": 0.999, "moco_v2": 0.999, "moco_v3": momentum(0.99, step, 10),
            "byol": momentum(0.996, step, 10), "dino": momentum(0.996, step, 10),
        }[system]  # fmt: skip
        old, new = parameters_of(*average), parameters_of(*online)
        objective.before_step(position)
        loss = objective(small_views(system, N, step)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        statistics = [b.clone() for module in average for b in module.buffers()]
        if not before_forward:
            assert all(map(torch.equal, parameters_of(*average), old))
            new = parameters_of(*online)
        objective.after_step(position)
        for found, was, towards in zip(parameters_of(*average), old, new, strict=True):
            torch.testing.assert_close(found, keeps * was + (1 - keeps) * towards)
        after = [b for module in average for b in module.buffers()]
        assert all(map(torch.equal, after, statistics))


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_queue_of_moco(symmetric: bool) -> None:
    objective = small_objective("moco_v2", symmetric=symmetric, queue_length=32)
    expected = objective.queue.clone()
    place = 0
    for step in range(5):
        views = small_views("moco_v2", N, step)
        objective.before_step(at(step))
        hand = copy.deepcopy(objective)
        wanted = views[::-1] if symmetric else views[1:]
        keys = [hand.ema_projector(hand.ema_backbone(view)) for view in wanted]
        by_view = keys[::-1] if symmetric else keys
        loss = objective(views).loss
        if symmetric:
            q1, q2 = (hand.projector(hand.backbone(view)) for view in views)
            both = [
                official.moco(*numpy(q, k, expected), 0.2)
                for q, k in ((q1, keys[0]), (q2, keys[1]))
            ]
            assert loss.item() == pytest.approx(sum(both), rel=1e-9)
        for rows in F.normalize(torch.cat(by_view).detach(), dim=1):
            expected[place] = rows
            place = (place + 1) % 32
        torch.testing.assert_close(objective.queue, expected)
        assert objective.queue_ptr.tolist() == [place]


def test_evaluation_changes_no_state() -> None:
    for system in SYSTEMS:
        objective = small_objective(system).eval()
        before = copy.deepcopy(objective.state_dict())
        objective(small_views(system, N))
        after = objective.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before), system


def test_the_queue_of_swav() -> None:
    objective = small_objective("swav", queue_length=16, queue_start_epoch=1)
    kept: list[list[Tensor]] = [[], []]
    for step in range(6):
        views = small_views("swav", N, step)
        objective.before_step(at(step))
        hand = copy.deepcopy(objective)
        z = hand.projector(
            torch.cat([hand.backbone(torch.cat(views[:2])), hand.backbone(torch.cat(views[2:]))])
        )
        z = F.normalize(z, dim=1).detach()
        weight = hand.prototypes.weight
        scores = numpy(*(z @ weight.T).chunk(4))
        codes = []
        for view in range(2):
            old = torch.cat(kept[view])[:16] if len(kept[view]) >= 2 else z[:0]
            together = np.concatenate([*numpy(old @ weight.T), scores[view]])
            codes.append(official.swav_codes(together, 0.05, 3)[-N:])
        loss = objective(views).loss
        assert loss.item() == pytest.approx(official.swav(scores, codes, 0.1), rel=1e-9)
        if step >= EPOCH:  # from epoch 1 on
            for view in range(2):
                kept[view].insert(0, z.chunk(4)[view])
                found = objective.queue[view, : N * min(len(kept[view]), 2)]
                torch.testing.assert_close(found, torch.cat(kept[view])[:16])
        else:
            assert not objective.queue.any()


def test_prototypes_stay_on_the_sphere_and_start_late() -> None:
    objective = small_objective("swav", freeze_prototypes_steps=2)
    optimiser = sgd(objective, 0.5)
    start = F.normalize(objective.prototypes.weight.detach(), dim=1)
    for step in range(4):
        objective.before_step(at(step))
        weight = objective.prototypes.weight.detach().clone()
        torch.testing.assert_close(weight.norm(dim=1), torch.ones_like(weight[:, 0]))
        assert torch.allclose(weight, start) == (step <= 2)
        train_step(objective, optimiser, small_views("swav", N), at(step))


def test_the_centre_temperature_and_last_layer_of_dino() -> None:
    objective = small_objective(
        "dino",
        warmup_teacher_temperature=0.02,
        teacher_temperature=0.08,
        warmup_teacher_temperature_epochs=3,
    )
    optimiser = sgd(objective)
    schedule = [*np.linspace(0.02, 0.08, 3), 0.08, 0.08]
    for step in range(10):
        views = small_views("dino", N, step)
        objective.before_step(at(step))
        hand = copy.deepcopy(objective)
        logits = hand.ema_prototypes(hand.ema_projector(hand.ema_backbone(torch.cat(views[:2]))))
        center = 0.9 * hand.center + 0.1 * logits.mean(0)
        z = hand.projector(
            torch.cat([hand.backbone(torch.cat(views[:2])), hand.backbone(torch.cat(views[2:]))])
        )
        student = numpy(*hand.prototypes(z).chunk(4))
        warm = schedule[step // EPOCH]
        expected = official.dino(student, numpy(*logits.chunk(2)), *numpy(hand.center), warm, 0.1)
        last = parameters_of(objective.prototypes)
        loss = train_step(objective, optimiser, views, at(step))
        assert loss.item() == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(objective.center, center)
        # All stays in epoch 0, and the lengths always.
        same = list(map(torch.equal, parameters_of(objective.prototypes), last))
        names = [name for name, _ in objective.prototypes.named_parameters()]
        assert dict(zip(names, same, strict=True)) == {"weight_v": step < EPOCH, "weight_g": True}


@ALL
def test_batches_that_cannot_be_trained(system: str) -> None:
    objective = small_objective(system)
    with pytest.raises(SettingsError, match="a batch of 1 cannot be trained"):
        objective.check_batch(1)
    with pytest.raises(SettingsError, match="take the recipe of"):
        objective(small_views(system)[:1])
    wrong = [torch.zeros(2, 3, s, s, dtype=torch.float64) for s in (16, 8, 8)]
    with pytest.raises(SettingsError, match="take the recipe of"):
        objective(wrong)


@pytest.mark.parametrize(
    ("system", "settings", "batch"),
    [
        ("moco", {}, 7),
        ("moco_v2", {"symmetric": True, "queue_length": 24}, 8),
        ("swav", {"queue_length": 24}, 16),
        ("swav", {"queue_length": 8}, 16),
    ],
)
def test_batches_that_do_not_divide_the_queue(
    system: str, settings: dict[str, object], batch: int
) -> None:
    objective: Objective = small_objective(system, **settings)
    objective.check_batch(4)
    with pytest.raises(SettingsError, match=r"queue.*do not divide: take"):
        objective.check_batch(batch)
