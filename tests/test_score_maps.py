"""``score_maps`` as users and the compiler see it: the three backends, layouts, wrong arguments."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import qscore_fast as qf
from qscore_fast import reference

SETTINGS = [(False, "sum", False), (True, "mean", True), (False, "max", True), (True, "max", False)]


def make_maps(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, 60, 1, 1, generator=generator)
    return (torch.randn(5, 60, 4, 6, generator=generator) + means).to(dtype)


LAYOUTS = {
    "contiguous": lambda maps: maps,
    "channels_last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "rows_apart": lambda maps: torch.cat([maps, maps], 3)[..., :6],
    "samples_apart": lambda maps: torch.cat([maps, maps], 1)[:, :60],
    "turned": lambda maps: maps.mT.contiguous().mT,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_the_reference(
    layout: str, setting: tuple[bool, str, bool], backend: str, device: torch.device
) -> None:
    two_sided, combine, rectify = setting
    maps = LAYOUTS[layout](make_maps()).to(device)
    mask = (torch.arange(60) % 3 > 0).to(device)
    found = qf.score_maps(maps, mask, 1.0, combine, rectify=rectify, two_sided=two_sided)
    exact = reference.score_maps(maps.double(), mask, 1.0, two_sided, combine, rectify)
    assert found.num_active.max() > 1
    for mine, wanted in zip(found, exact, strict=True):
        assert mine.shape == wanted.shape
        torch.testing.assert_close(mine.double(), wanted.double(), rtol=1e-5, atol=1e-6)


def test_what_the_reference_computes() -> None:
    """By hand: r = 20, one channel stands out, one of D does not, and the heat is the first."""
    maps = torch.zeros(2, 20, 2, 2)
    maps[0, 3] = torch.tensor([[4.0, 0.0], [0.0, 8.0]])
    maps[0, 5] = 0.5
    mask = torch.zeros(20, dtype=torch.bool)
    mask[[3, 5]] = True
    found = reference.score_maps(maps.double(), mask, 4.0)
    assert found.h[0, [3, 5]].tolist() == [3.0, 0.5]
    assert found.num_active.tolist() == [1, 0]
    assert found.heat[0].tolist() == [[4.0, 0.0], [0.0, 8.0]]
    assert found.heat[1].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    h = found.h[0]
    assert found.q_score[0].item() == pytest.approx((3 - h.mean().item()) / h.norm().item())


def test_float64_and_a_d_with_its_own_eps() -> None:
    maps = make_maps(torch.float64)
    census = qf.FeatureCensus(60, 1.25)
    census.update(maps.mean((2, 3)))
    d = qf.discriminative_features(census, 5, 95)
    found = qf.score_maps(maps, d)
    torch.testing.assert_close(found.q_score, qf.q_score(maps.mean((2, 3)), d))
    assert {t.dtype for t in (found.h, found.q_score, found.heat)} == {torch.float64}


@pytest.mark.parametrize("backend_name", ["native", "triton"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "rows_apart"])
def test_opcheck(layout: str, backend_name: str) -> None:
    maps = LAYOUTS[layout](make_maps(torch.bfloat16))
    with qf.use_backend(backend_name):
        arguments = (maps, torch.arange(60) % 2 > 0, 1.0, True, "max", True)
        torch.library.opcheck(torch.ops.qscore_fast.score_maps.default, arguments)


def test_compiled_as_one_graph() -> None:
    torch._dynamo.reset()

    def heat(maps: Tensor) -> Tensor:
        return qf.score_maps(maps.relu(), None, 1.0, "mean").heat * 2

    compiled = torch.compile(heat, fullgraph=True)
    for samples in (2, 3, 5):
        maps = make_maps()[:samples]
        torch.testing.assert_close(compiled(maps), heat(maps))


def test_no_gradient_and_no_samples() -> None:
    maps = make_maps().requires_grad_()
    assert qf.score_maps(maps, eps=1.0).h.grad_fn is None
    none = qf.score_maps(maps[:0], eps=1.0)
    assert [tuple(field.shape) for field in none] == [(0, 60), (0,), (0,), (0, 4, 6)]


@pytest.mark.parametrize(
    ("maps", "arguments", "error", "message"),
    [
        (None, {}, TypeError, "maps is NoneType"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int32), {}, TypeError, "maps has dtype torch.int32"),
        (torch.zeros(2, 3, 4), {}, ValueError, r"must be \(N, r, height, width\)"),
        (torch.zeros(2, 3, 0, 4), {}, ValueError, "only N may be 0"),
        (
            make_maps(),
            {"features": torch.ones(5, dtype=torch.bool)},
            ValueError,
            "different encoders",
        ),
        (make_maps(), {"combine": "median"}, ValueError, "combine is 'median'"),
        (make_maps(), {"eps": -1}, ValueError, "eps is -1.0"),
    ],
)
def test_wrong_arguments(
    maps: Tensor, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        qf.score_maps(maps, **arguments)
