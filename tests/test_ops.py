"""The operators as PyTorch's compiler, exporter and checks see them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import qscore_fast as qf
from qscore_fast import ops, reference

_ops = torch.ops.qscore_fast


def matrix(layout: str, dtype: torch.dtype, requires_grad: bool) -> Tensor:
    h = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    h = {
        "contiguous": lambda: h,
        "strided": lambda: torch.cat([h, h], 1)[:, :40],
        "transposed": lambda: h.T.contiguous().T,
    }[layout]()
    return h.detach().requires_grad_(requires_grad)


def arguments(name: str, h: Tensor) -> tuple[object, ...]:
    """Real arguments of an operator; a backward gets what its forward saved."""
    plain = h.detach()
    mask = torch.arange(40) % 3 > 0
    stats = ops.row_stats(plain)
    q, saved = _ops.q_score_fwd(plain, mask, 0.5)
    offsets, feature, value, _ = ops.sparse_activations(plain, 0.5)
    loss, *kept = _ops.q_score_loss_fwd(plain, mask, 0.5, 0.3, 0.2, True)
    return {
        "row_stats_fwd": (h,),
        "row_stats_bwd": (stats, h, stats),
        "q_score": (h, mask, 0.5),
        "q_score_fwd": (h, mask, 0.5),
        "q_score_bwd": (q, h, mask, q, saved),
        "highly_active": (h, 0.5),
        "activation_counts": (h, 0.5),
        "score_rows": (h, mask, 0.75, 0.5),
        "score_maps": (h[..., None, None].expand(-1, -1, 2, 3), mask, 0.5, False, "mean", True),
        "sparse_fwd": (h, 0.5),
        "sparse_bwd": (value, stats, h, offsets, feature, value, stats),
        "q_score_loss_fwd": (h, mask, 0.5, 0.3, 0.2, True),
        "q_score_loss_partial": (h, mask, 0.5),
        "q_score_loss_bwd": (loss, h, mask, *kept),
    }[name]


def two_sided_arguments(name: str, h: Tensor) -> tuple[object, ...]:
    """The same, with L on both sides."""
    plain = h.detach()
    mask = torch.arange(40) % 3 > 0
    q, saved = _ops.q_score_fwd(plain, mask, 0.5, True)
    loss, *kept = _ops.q_score_loss_fwd(plain, mask, 0.5, 0.3, 0.2, True, True)
    if name == "q_score_bwd":
        return (q, h, mask, q, saved)
    if name == "q_score_loss_bwd":
        return (loss, h, mask, *kept)
    return (*arguments(name, h), True)


TWO_SIDED = ["q_score_fwd", "q_score_bwd", "highly_active", "activation_counts", "score_rows"]
TWO_SIDED += [
    "sparse_fwd",
    "q_score_loss_fwd",
    "q_score_loss_partial",
    "q_score_loss_bwd",
    "q_score",
]


@pytest.mark.parametrize("name", TWO_SIDED)
@pytest.mark.parametrize("backend_name", ["native", "triton"])
def test_opcheck_two_sided(name: str, backend_name: str) -> None:
    with qf.use_backend(backend_name):
        h = matrix("strided", torch.float32, False)
        torch.library.opcheck(getattr(_ops, name).default, two_sided_arguments(name, h))


NAMES = [schema.partition("(")[0] for schema in ops._SCHEMAS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["contiguous", "strided", "transposed"])
@pytest.mark.parametrize(
    ("dtype", "requires_grad"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.float32, True)],
)
def test_opcheck(name: str, layout: str, dtype: torch.dtype, requires_grad: bool) -> None:
    h = matrix(layout, dtype, requires_grad)
    torch.library.opcheck(getattr(_ops, name).default, arguments(name, h))


@pytest.mark.parametrize("name", ["q_score_fwd", "q_score_loss_fwd", "row_stats_bwd"])
def test_opcheck_interpreted_triton(name: str) -> None:
    with qf.use_backend("triton"):
        h = matrix("transposed", torch.float32, False)
        torch.library.opcheck(getattr(_ops, name).default, arguments(name, h))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "q_score": lambda h: qf.q_score(h, None, 0.5).square().sum(),
    "loss": lambda h: qf.q_score_loss(h, None, 0.5, 0.3, 0.2),
    "two_sided_loss": lambda h: qf.q_score_loss(h, None, 0.5, 0.3, 0.2, two_sided=True),
    "row_stats": lambda h: sum(f.sum() for f in qf.row_stats(h)),
}


@pytest.mark.parametrize("function", LOSSES.values(), ids=LOSSES.keys())
def test_compiled_forward_and_backward(function: Callable[[Tensor], Tensor]) -> None:
    """One graph, dynamic rows, and after the first two shapes no compilation any more."""
    torch._dynamo.reset()
    frames: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        frames.append(1)
        return torch._inductor.compile(graph, inputs)

    def step(h: Tensor) -> Tensor:
        return function(h * 2)

    compiled = torch.compile(step, fullgraph=True, backend="inductor")
    with torch._dynamo.config.patch(error_on_recompile=False):
        for rows in (5, 9):
            compiled(torch.randn(rows, 40, requires_grad=True)).backward()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (17, 33, 4, 100):
            h = torch.randn(rows, 40, generator=torch.Generator().manual_seed(rows))
            ours, expected = h.clone().requires_grad_(), h.double().requires_grad_()
            value = compiled(ours)
            value.backward()
            with qf.use_backend("reference"):
                exact = step(expected)
            exact.backward()
            torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(ours.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)


def test_compiled_after_a_change_of_rank() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda h: qf.q_score(h, None, 0.5), fullgraph=True)
    for shape in ((6, 40), (2, 3, 40), (40,)):
        h = torch.randn(shape)
        torch.testing.assert_close(compiled(h), reference.q_score(h, None, 0.5))


def test_compiler_may_change_the_layout() -> None:
    """What reaches an operator from a compiled graph can be transposed; the result must not change."""
    torch._dynamo.reset()

    def scores(weight: Tensor, x: Tensor) -> Tensor:
        return qf.q_score((weight @ x).T.relu(), None, 0.5)

    weight, x = torch.randn(64, 16), torch.randn(16, 10)
    torch.testing.assert_close(
        torch.compile(scores, fullgraph=True)(weight, x), scores(weight, x), rtol=1e-4, atol=1e-5
    )


def test_export_keeps_the_operator() -> None:
    class Score(torch.nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return qf.q_score(h, None, 0.5)

    h = torch.randn(6, 40)
    rows = torch.export.Dim("rows", min=2, max=1000)
    program = torch.export.export(Score(), (h,), dynamic_shapes={"h": {0: rows}})
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("qscore_fast.q_score.default") == 1
    for rows_now in (2, 77):
        h = torch.randn(rows_now, 40)
        torch.testing.assert_close(program.module()(h), reference.q_score(h, None, 0.5))


def test_second_order_is_refused() -> None:
    h = torch.randn(4, 40, requires_grad=True)
    (dh,) = torch.autograd.grad(qf.q_score(h, None, 0.5).square().sum(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dh.sum().backward()


def test_without_gradient_autograd_is_skipped() -> None:
    h = torch.randn(4, 40, requires_grad=True)
    with torch.no_grad():
        assert qf.q_score(h).grad_fn is None
    with torch.inference_mode():
        torch.testing.assert_close(qf.q_score(h, None, 0.5), reference.q_score(h, None, 0.5))
    assert qf.q_score(h).grad_fn is not None


def test_offsets_beyond_int32_on_meta() -> None:
    """Shapes and strides past 2^31 pass through the fakes unharmed."""
    h = torch.empty_strided((3, 40), (2**31 + 8, 1), dtype=torch.bfloat16, device="meta")
    q, saved = _ops.q_score_fwd(h, None, 4.0)
    assert (q.shape, saved.shape, q.device.type) == ((3,), (3, 3), "meta")
    assert _ops.q_score_bwd(q, h, None, q, saved).stride() == (40, 1)
