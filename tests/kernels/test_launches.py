"""What the host does around the Triton kernels: how many it launches, and that it never waits."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

kernels = importlib.import_module("qscore_fast.kernels.triton")

# Operators that only allocate, or only look at a tensor in another way.
FREE = {
    "empty.memory_format",
    "view.default",
    "view.dtype",
    "detach.default",
    "alias.default",
    "select.int",
    "slice.Tensor",
    "unsqueeze.default",
    "as_strided.default",
}


class Launches(TorchDispatchMode):
    """The names of the kernels that ran, and of the torch operators that would launch one."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self.operators: list[str] = []
        self.in_kernel = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        if not self.in_kernel and name not in FREE:
            self.operators.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    counter = Launches()

    def count(launcher: type) -> None:
        run = launcher.run if hasattr(launcher, "run") else launcher.__call__
        method = "run" if hasattr(launcher, "run") else "__call__"

        def counted(self: object, *args: object, **kwargs: object) -> object:
            counter.kernels.append(self.fn.__name__)
            counter.in_kernel = True  # the interpreter's own copies are not the host's
            try:
                return run(self, *args, **kwargs)
            finally:
                counter.in_kernel = False

        monkeypatch.setattr(launcher, method, counted)

    if torch.cuda.is_available():
        from triton.runtime import JITFunction

        count(JITFunction)
    else:
        from triton.runtime.interpreter import GridExecutor

        count(GridExecutor)
    yield counter


@pytest.fixture
def h() -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randn(256, 2048, generator=torch.Generator().manual_seed(0)).to(device)


def test_loss_forward_and_backward_are_four_launches(h: torch.Tensor, launches: Launches) -> None:
    mask = torch.arange(2048, device=h.device) % 2 == 0
    dloss = torch.ones((), device=h.device)
    with launches:
        _, *kept = kernels.q_score_loss_fwd(h, mask, 2.0, 1e-4, 1e-4, False)
        kernels.q_score_loss_bwd(dloss, h, mask, *kept)
    assert launches.kernels == [
        "_q_score_loss_fwd_kernel",
        "_q_score_loss_sums_kernel",
        "_q_score_loss_finish_kernel",
        "_q_score_loss_bwd_kernel",
    ]
    assert launches.operators == []


def test_what_a_loss_over_several_processes_launches(h: torch.Tensor, launches: Launches) -> None:
    with launches:
        kernels.q_score_loss_partial(h, None, 2.0)
    assert launches.kernels == ["_q_score_loss_fwd_kernel"]
    assert launches.operators == ["full.default", "sum.IntList_out", "sum.IntList_out"]


def test_score_forward_and_backward_are_two_launches(h: torch.Tensor, launches: Launches) -> None:
    with launches:
        q, saved = kernels.q_score_fwd(h, None, 2.0)
        kernels.q_score_bwd(q, h, None, q, saved)
    assert launches.kernels == ["_q_score_fwd_kernel", "_q_score_bwd_kernel"]
    assert launches.operators == []


def test_everything_at_once_is_two_launches_and_one_wait(
    h: torch.Tensor, launches: Launches
) -> None:
    with launches:
        kernels.score_rows(h[:8], None, 2.0, 1.0)
    assert launches.kernels == ["_score_rows_kernel", "_sparse_fill_kernel"]
    assert launches.operators.count("_local_scalar_dense.default") == 1
    assert sorted(set(launches.operators) - {"_local_scalar_dense.default"}) == [
        "cumsum.out",
        "sum.dim_IntList",
        "zero_.default",
    ]


def test_maps_are_scored_in_three_launches(h: torch.Tensor, launches: Launches) -> None:
    maps = h[:8].view(8, 128, 16)
    with launches:
        kernels.score_maps(maps, None, 2.0, False, "sum", False)
    assert launches.kernels == ["_pool_maps_kernel", "_q_score_fwd_kernel", "_combine_maps_kernel"]
    assert launches.operators == []


def test_a_wait_would_be_seen(h: torch.Tensor, launches: Launches) -> None:
    with launches:
        h.sum().item()
    assert launches.operators == ["sum.default", "_local_scalar_dense.default"]
