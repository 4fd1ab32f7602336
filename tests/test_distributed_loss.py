"""A batch over 2 and over 4 processes against one process with the whole batch: same loss, same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loss_processes import (
    EPS,
    FEATURES,
    LAMBDA1,
    LAMBDA2,
    Case,
    Outcome,
    in_processes,
    run_case,
)
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce

from qscore_fast import reference

DOUBLE, BFLOAT16 = torch.float64, torch.bfloat16
SPLITS = {2: [(9, 4), (0, 7), (5, 5)], 4: [(6, 0, 3, 11), (0, 0, 0, 8), (4, 4, 4, 4)]}


def cases(world: int) -> list[Case]:
    uneven, lonely, even = SPLITS[world]
    last = sum(uneven) - 1
    # Compiling costs seconds in every process.
    return [
        Case("native", uneven, ddp=True, compiled=world == 2),
        Case("native", uneven, DOUBLE, "mean", two_sided=True, ddp=True),
        Case("native", even, BFLOAT16, "mean"),
        Case("native", lonely, reduction="mean", ddp=True),
        Case("native", uneven, nan_row=last),
        Case("native", (0,) * world),
        Case("triton", uneven, reduction="mean", ddp=True),
        Case("triton", even, BFLOAT16, two_sided=True),
        Case("triton", lonely, nan_row=0),
        Case("triton", (0,) * world, reduction="mean"),
        Case("reference", uneven, DOUBLE, two_sided=True, ddp=True),
        Case("reference", even, BFLOAT16, "mean", ddp=True),
        Case("reference", lonely, reduction="mean"),
        Case("reference", uneven, nan_row=last),
        Case("reference", (0,) * world),
    ]


ALL = [(world, number) for world in SPLITS for number in range(len(cases(world)))]
NAMES = [f"{world}-{cases(world)[number]}" for world, number in ALL]


def job(rank: int, world: int) -> dict[str, Any]:
    results: dict[str, Any] = {"cases": [run_case(c, rank, "world") for c in cases(world)]}
    results["autograd"] = by_autograd_through_all_reduce(rank, cases(world)[1])
    if world == 4:
        halves = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
        results["half"] = run_case(half_case(rank // 2), rank % 2, halves[rank // 2])
    return results


def half_case(half: int) -> Case:
    return Case("native", [(3, 8), (6, 1)][half], DOUBLE, ddp=True)


def by_autograd_through_all_reduce(rank: int, case: Case) -> tuple[Tensor, Tensor]:
    """Loss and gradient of this process's rows, by the differentiable collectives of torch, two-sided."""
    begin = sum(case.split[:rank])
    h = case.representations(case.layer()(case.inputs()[begin : begin + case.split[rank]]))
    h = h.detach().requires_grad_()
    rows = sum(case.split)
    distance = h - h.mean(1, keepdim=True)
    members = (distance.abs() > EPS * h.std(1, keepdim=True)) & case.mask
    norm = h.norm(dim=1, keepdim=True)
    q = (distance.abs() * members).sum(1) / members.sum(1).clamp(min=1) / norm[:, 0]
    c = all_reduce((h.abs() / norm).sum(0))
    alpha = all_reduce(q.sum()).detach() / rows
    quality = all_reduce((q * (q < alpha)).sum()) / rows
    loss = -LAMBDA1 * quality + LAMBDA2 * c[c > c.mean()].sum() / rows
    loss.backward()
    return loss.detach(), h.grad


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, Any]]]:
    """What every process of both worlds got."""
    folder = tmp_path_factory.mktemp
    return {world: list(in_processes(world, folder(f"w{world}"), job, world)) for world in SPLITS}


def whole_batch(case: Case) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, gradient of h and of the parameters in one process, by the reference."""
    layer = case.layer()
    h = case.representations(layer(case.inputs()))
    h.retain_grad()
    loss = reference.q_score_loss(h, *case.settings(), case.two_sided)
    loss.backward()
    return loss.detach(), h.grad, [parameter.grad for parameter in layer.parameters()]


def assert_equal_to_the_whole_batch(case: Case, outcomes: list[Outcome]) -> None:
    loss, dh, parameters = whole_batch(case)
    # In float32 sums differ by their order; a gradient is rounded to the dtype of h.
    close = {"rtol": 1e-9, "atol": 1e-11} if case.dtype == DOUBLE else {"rtol": 2e-5, "atol": 1e-6}
    coarse = {"rtol": 2e-2, "atol": 2e-3} if case.dtype == BFLOAT16 else close
    for outcome in outcomes:
        torch.testing.assert_close(outcome.loss, loss, **close, equal_nan=True)
        torch.testing.assert_close(outcome.value, outcome.loss, **close, equal_nan=True)
        torch.testing.assert_close(outcome.parameters, parameters, **coarse, equal_nan=True)
    pieces = torch.cat([outcome.dh for outcome in outcomes]) / len(outcomes)
    torch.testing.assert_close(pieces, dh, **coarse, equal_nan=True)


@pytest.mark.parametrize(("world", "number"), ALL, ids=NAMES)
def test_equals_one_process_with_the_whole_batch(
    results: dict[int, list[dict[str, Any]]], world: int, number: int
) -> None:
    case = cases(world)[number]
    outcomes = [result["cases"][number] for result in results[world]]
    assert_equal_to_the_whole_batch(case, outcomes)
    values = {outcome.loss.item() for outcome in outcomes if not outcome.loss.isnan()}
    assert len(values) == (0 if case.nan_row is not None else 1)  # the same to the bit everywhere
    assert outcomes[0].loss.isnan() == (case.nan_row is not None)


@pytest.mark.parametrize("world", SPLITS)
def test_two_collectives_forward_and_none_backward(
    results: dict[int, list[dict[str, Any]]], world: int
) -> None:
    for result in results[world]:
        for outcome in result["cases"]:
            assert sorted(outcome.forward_sizes) == [1, FEATURES + 2]
            assert outcome.backward_sizes == []


@pytest.mark.parametrize("world", SPLITS)
def test_the_gradient_is_that_through_torchs_differentiable_collectives(
    results: dict[int, list[dict[str, Any]]], world: int
) -> None:
    for result in results[world]:
        loss, dh = result["autograd"]
        ours = result["cases"][1]
        torch.testing.assert_close(ours.loss, loss, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(ours.dh, dh, rtol=1e-9, atol=1e-11)
        assert dh.any() or not len(dh)


def test_a_group_is_a_batch_of_its_own(results: dict[int, list[dict[str, Any]]]) -> None:
    """Two groups of two processes in a world of four: each has its own alpha and beta."""
    for half in range(2):
        outcomes = [result["half"] for result in results[4][2 * half : 2 * half + 2]]
        assert_equal_to_the_whole_batch(half_case(half), outcomes)


def test_parts_would_not_do(results: dict[int, list[dict[str, Any]]]) -> None:
    """The mean of the losses of the parts is not the loss of the batch, so the tests above can fail."""
    case = cases(4)[1]
    h = case.representations(case.layer()(case.inputs()))
    parts = [
        reference.q_score_loss(part, *case.settings(), True)
        for part in h.split(case.split)
        if len(part)
    ]
    assert abs(torch.stack(parts).mean() / results[4][0]["cases"][1].loss - 1) > 0.01
