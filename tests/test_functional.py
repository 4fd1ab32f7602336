"""The public functions on the three backends, against the reference in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from vectors import VECTORS

import qscore_fast as qf
from qscore_fast import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def features(*shape: int, seed: int = 0) -> Tensor:
    """Sparse and positive like the pooled features of a ResNet, with a few high peaks a row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).relu() ** 3 + 0.01


def signed(h: Tensor) -> Tensor:
    """Every other feature with its sign turned: peaks and pits."""
    return h * (1 - 2 * (torch.arange(h.shape[-1], device=h.device) % 2))


def half_of(r: int) -> Tensor:
    return torch.rand(r, generator=torch.Generator().manual_seed(9)) < 0.5


@pytest.mark.parametrize(("h", "mask", "eps", "active", "q"), VECTORS)
def test_published_vectors(
    h: Tensor,
    mask: Tensor | None,
    eps: float,
    active: list[int],
    q: float,
    backend: str,
    device: torch.device,
) -> None:
    h = h.to(device, torch.float32)
    assert qf.highly_active(h, eps)[0].nonzero().flatten().tolist() == active
    assert qf.q_score(h, mask, eps).item() == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_is_the_same_matrix(
    dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    """1-D, 3-D, strided rows, transposed, expanded: one result, with the leading shape of h."""
    wide = features(4, 5, 90).to(device, dtype)
    mask = half_of(30)
    for h in (
        wide[0, 0, :30],
        wide[..., :30],
        wide[:, ::2, 7:37],
        wide[..., :30].transpose(0, 1),
        wide[0, :, :30].T.contiguous().T,
        wide[0, 0, :30].expand(6, 30),
        wide[..., ::3],
    ):
        flat = h.reshape(-1, 30).double()
        q = qf.q_score(h, mask, 1.0)
        assert q.shape == h.shape[:-1]
        assert q.dtype == torch.float32
        expected = reference.q_score(flat, mask.to(device), 1.0)
        torch.testing.assert_close(q.flatten().double(), expected, rtol=1e-5, atol=1e-6)
        active = qf.highly_active(h, 1.0)
        assert torch.equal(active.reshape(-1, 30), reference.highly_active(flat, 1.0))
        assert torch.equal(qf.activation_counts(h, 1.0), active.reshape(-1, 30).sum(0))
        both = qf.highly_active(h, 1.0, two_sided=True)
        assert torch.equal(both.reshape(-1, 30), reference.highly_active(flat, 1.0, True))
        for field, expected in zip(qf.row_stats(h), reference.row_stats(flat), strict=True):
            assert field.shape == h.shape[:-1]
            torch.testing.assert_close(field.flatten().double(), expected, rtol=1e-5, atol=1e-6)


def squares(sparse: qf.SparseActivations) -> Tensor:
    return torch.cat([field.flatten() ** 2 for field in sparse[2:]])


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "q_score": lambda h: qf.q_score(h, half_of(40), 1.0),
    "row_stats": lambda h: torch.stack(list(qf.row_stats(h))),
    "sparse": lambda h: squares(qf.sparse_activations(h, 1.0)),
    "loss": lambda h: qf.q_score_loss(h, half_of(40), 1.0, 0.3, 0.2, "mean"),
    "two_sided_q_score": lambda h: qf.q_score(signed(h), half_of(40), 1.0, two_sided=True),
    "two_sided_sparse": lambda h: squares(qf.sparse_activations(signed(h), 1.0, two_sided=True)),
    "two_sided_loss": lambda h: qf.q_score_loss(
        signed(h), half_of(40), 1.0, 0.3, 0.2, "mean", two_sided=True
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("layout", ["plain", "three_d", "strided", "transposed"])
def test_gradients_reach_every_layout(
    call: Callable[[Tensor], Tensor], layout: str, backend: str, device: torch.device
) -> None:
    """An expanded (stride 0) upstream gradient, and inputs whose gradient is a view."""

    def view(leaf: Tensor) -> Tensor:
        return {
            "plain": lambda: leaf.reshape(-1, 40)[:12],
            "three_d": lambda: leaf[:, :, :40],
            "strided": lambda: leaf.reshape(12, -1)[::2, 3:43],
            "transposed": lambda: leaf.reshape(40, -1)[:, :6].T,
        }[layout]()

    leaf = features(3, 4, 60).to(device).requires_grad_()
    exact = features(3, 4, 60).to(device).double().requires_grad_()
    call(view(leaf)).sum().backward()
    with qf.use_backend("reference"):
        call(view(exact)).sum().backward()
    assert exact.grad.abs().max() > 0
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)


def test_autocast_keeps_the_statistics_wide(backend: str, device: torch.device) -> None:
    h = features(8, 64).to(device, torch.bfloat16)
    with torch.autocast(device.type, torch.bfloat16):
        q = qf.q_score(h, None, 1.0)
        loss = qf.q_score_loss(h, None, 1.0)
    assert q.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(
        q.double(), reference.q_score(h.double(), None, 1.0), rtol=1e-5, atol=1e-6
    )


def test_no_rows(backend: str, device: torch.device) -> None:
    h = torch.zeros(0, 5, 7, device=device, requires_grad=True)
    assert qf.q_score(h).shape == (0, 5)
    assert qf.row_stats(h).std.shape == (0, 5)
    assert qf.sparse_activations(h).offsets.tolist() == [0]
    assert qf.activation_counts(h).tolist() == [0] * 7
    loss = qf.q_score_loss(h)
    loss.backward()
    assert loss.item() == 0
    assert h.grad.shape == h.shape


def test_native_float64() -> None:
    h = features(20, 300).double().requires_grad_()
    with qf.use_backend("native"):
        q = qf.q_score(h, half_of(300), 2.0)
        (dh,) = torch.autograd.grad(q.sum(), h)
    expected = reference.q_score(h, half_of(300), 2.0)
    (dh_expected,) = torch.autograd.grad(expected.sum(), h)
    torch.testing.assert_close(q, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(dh, dh_expected, rtol=1e-12, atol=1e-16)


def test_two_sides_in_everything_at_once(backend: str, device: torch.device) -> None:
    """Q, counts and entries of ``score_rows`` are those of the separate functions."""
    h = signed(features(6, 5, 90)).to(device)
    mask = half_of(90).to(device)
    everything = qf.score_rows(h, mask, 1.5, 1.0, two_sided=True)
    q = qf.q_score(h, mask, 1.5, two_sided=True).flatten()
    torch.testing.assert_close(everything.q_score, q)
    active = qf.highly_active(h, 1.5, two_sided=True).reshape(-1, 90)
    assert torch.equal(everything.counts, active.sum(0))
    assert torch.equal(everything.num_active, (active & mask).sum(1).int())
    assert (active.sum(1) > qf.highly_active(h, 1.5).reshape(-1, 90).sum(1)).any()
    for mine, alone in zip(
        everything.activations, qf.sparse_activations(h, 1.0, two_sided=True), strict=True
    ):
        assert torch.equal(mine, alone)


@pytest.mark.parametrize("name", ["q_score", "row_stats", "loss", "two_sided", "two_sided_loss"])
def test_native_gradcheck(name: str) -> None:
    """Finite differences in float64; at eps = 1.5 no entry of these rows is near the threshold."""
    torch.manual_seed(3)
    h = (torch.randn(4, 40, dtype=torch.float64) + 3).requires_grad_()
    with qf.use_backend("native"):
        calls = {
            "q_score": lambda x: qf.q_score(x, half_of(40), 1.5),
            "row_stats": lambda x: tuple(qf.row_stats(x)),
            "loss": lambda x: qf.q_score_loss(x, half_of(40), 1.5, 0.7, 0.3),
            "two_sided": lambda x: qf.q_score(x, half_of(40), 1.5, two_sided=True),
            "two_sided_loss": lambda x: qf.q_score_loss(
                x, half_of(40), 1.5, 0.7, 0.3, two_sided=True
            ),
        }
        assert torch.autograd.gradcheck(calls[name], (h,), eps=1e-7, atol=1e-6)


def test_eps_follows_the_features() -> None:
    """D brings the eps that it was discovered with; an explicit eps wins."""
    h = features(200, 64)
    census = qf.FeatureCensus(64, eps=2.0).update(h)
    D = qf.discriminative_features(census)
    assert torch.equal(qf.q_score(h, D), qf.q_score(h, D.mask, 2.0))
    assert torch.equal(qf.q_score(h, D, 3.0), qf.q_score(h, D.mask, 3.0))
    assert torch.equal(qf.q_score(h, D.mask), qf.q_score(h, D.mask, 4.0))
    assert not torch.equal(qf.q_score(h, D), qf.q_score(h, D.mask, 4.0))
    assert torch.equal(qf.q_score_loss(h, D), qf.q_score_loss(h, D.mask, 2.0))


def test_sides_follow_the_features() -> None:
    """D brings the sides that it was discovered with; other ones are a contradiction."""
    h = signed(features(200, 64))
    both = qf.discriminative_features(qf.FeatureCensus(64, 2.0, two_sided=True).update(h))
    one = qf.discriminative_features(qf.FeatureCensus(64, 2.0).update(h))
    expected = qf.q_score(h, both.mask, 2.0, two_sided=True)
    assert not torch.equal(expected, qf.q_score(h, both.mask, 2.0))
    assert torch.equal(qf.q_score(h, both), expected)
    assert torch.equal(qf.q_score(h, both, two_sided=True), expected)
    torch.testing.assert_close(qf.score_rows(h, both).q_score, expected)
    loss = qf.q_score_loss(h, both.mask, 2.0, two_sided=True)
    assert qf.q_score_loss(h, both) == loss == qf.QScoreLoss(both)(h)
    for D, asked in ((both, False), (one, True)):
        for call in (qf.q_score, qf.score_rows, qf.q_score_loss):
            with pytest.raises(ValueError, match=f"two_sided is {asked}.*= {not asked}: leave"):
                call(h, D, two_sided=asked)
        with pytest.raises(ValueError, match="leave two_sided out"):
            qf.QScoreLoss(D, two_sided=asked)


NOT_IN_IT = torch.distributed.GroupMember.NON_GROUP_MEMBER
H = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: qf.q_score([[1.0]]), TypeError, "list.*torch.Tensor"),
        (lambda: qf.q_score(H.int()), TypeError, r"torch\.int32.*float32"),
        (lambda: qf.q_score(torch.tensor(1.0)), ValueError, r"shape \(\).*r >= 1"),
        (lambda: qf.row_stats(torch.zeros(2, 0)), ValueError, r"\(2, 0\)"),
        (lambda: qf.highly_active(H, -1), ValueError, "eps is -1.0"),
        (lambda: qf.sparse_activations(H, math.nan), ValueError, "eps is nan"),
        (lambda: qf.q_score(H, torch.ones(3)), TypeError, "float32.*bool mask"),
        (lambda: qf.q_score(H, torch.ones(4, dtype=torch.bool)), ValueError, r"\(4,\).*r = 3"),
        (lambda: qf.q_score(H, "all"), TypeError, "str.*DiscriminativeFeatures"),
        (lambda: qf.q_score_loss(H, reduction="avg"), ValueError, "'avg'.*'sum'.*'mean'"),
        (lambda: qf.q_score_loss(H, lambda1=math.inf), ValueError, "lambda1 is inf"),
        (lambda: qf.q_score_loss(H, group=object()), TypeError, "group is object.*ProcessGroup"),
        (lambda: qf.q_score_loss(H, group="all"), ValueError, "group is 'all'.*'world'"),
        (lambda: qf.q_score_loss(H, group=NOT_IN_IT), ValueError, "process is not in the group"),
    ],
)
def test_wrong_arguments(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
