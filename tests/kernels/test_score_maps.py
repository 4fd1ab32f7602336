"""``score_maps`` of every backend: pooling and heat maps against float64, scores against the kernels' own."""

from __future__ import annotations

import itertools
from types import ModuleType

import numpy as np
import pytest
import torch
from forbidden_page import before_a_forbidden_page
from kernel_checks import assert_within_budget
from poison import poison_allocations
from torch import Tensor

from qscore_fast import ops

pytestmark = pytest.mark.usefixtures("backend")
kernels = ModuleType("of the backend under test")  # the fixture puts them here

EPS = 0.5
# Channels, height and width: every r of the kernels' tests, each with another number of positions.
SHAPES = (
    (1, 7, 7), (2, 1, 1), (3, 5, 3), (17, 20, 17), (127, 2, 2), (128, 4, 4), (129, 7, 7), (512, 3, 11),
    (1023, 1, 5), (2047, 2, 3), (2048, 7, 7), (4096, 1, 3), (16384, 1, 2), (40000, 1, 1),
)  # fmt: skip
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SETTINGS = list(itertools.product((False, True), ("sum", "mean", "max"), (False, True)))


@pytest.fixture(autouse=True)
def poison(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_allocations(monkeypatch, lambda: kernels.__name__)


def make_maps(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, channels_last: bool
) -> Tensor:
    """Normal, with the channels' means apart."""
    generator = torch.Generator().manual_seed(shape[1])
    maps = torch.randn(shape, generator=generator)
    maps = (maps + torch.randn(*shape[:2], 1, 1, generator=generator)).to(device, dtype)
    order = torch.channels_last if channels_last else torch.contiguous_format
    return maps.contiguous(memory_format=order)


def make_mask(r: int, device: torch.device) -> Tensor:
    mask = torch.rand(r, generator=torch.Generator().manual_seed(r + 1)) > 0.3
    mask[0] = True
    return mask.to(device)


def expected_heat(
    maps: Tensor, members: Tensor, h: Tensor, two_sided: bool, combine: str, rectify: bool
) -> np.ndarray:
    """The equations in float64, sample by sample, for given members of L & D."""
    heat = []
    for sample, chosen, pooled in zip(
        maps.double().cpu(), members.cpu(), h.double().cpu(), strict=True
    ):
        planes = sample[chosen].numpy()
        if two_sided:
            planes = planes * np.where(pooled[chosen] < pooled.mean(), -1.0, 1.0)[:, None, None]
        if rectify:
            planes = np.maximum(planes, 0)
        reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[combine]
        empty = not len(planes)
        heat.append(np.zeros(sample.shape[1:]) if empty else reduce(planes, axis=0))
    return np.stack(heat)


def check(
    maps: Tensor,
    mask: Tensor | None,
    two_sided: bool = False,
    combine: str = "sum",
    rectify: bool = False,
    eps: float = EPS,
) -> tuple[Tensor, ...]:
    """Compare one call, and return what it returned."""
    planes = ops._planes(maps)
    found = kernels.score_maps(planes, mask, eps, two_sided, combine, rectify)
    h, q, num_active, heat = found
    assert (h.dtype, q.dtype, num_active.dtype) == (torch.float32, torch.float32, torch.int32)
    finite = maps.isfinite().all((1, 2, 3))
    exact = maps[finite].double().mean((2, 3))
    assert_within_budget(h[finite], maps[finite].float().mean((2, 3)), exact)
    own = kernels.q_score(h, mask, eps, two_sided)
    torch.testing.assert_close(q, own, rtol=0, atol=0, equal_nan=True)
    members = kernels.highly_active(h, eps, two_sided)
    members = members if mask is None else members & mask
    assert torch.equal(num_active, members.sum(1, dtype=torch.int32))
    assert torch.equal(q.isnan(), ~finite)
    assert torch.equal(heat.isnan().all(1), ~finite)
    wanted = expected_heat(maps[finite], members[finite], h[finite], two_sided, combine, rectify)
    actual = heat[finite].double().cpu().numpy().reshape(wanted.shape)
    terms = 1 if combine != "sum" else max(1, int(members.sum(1).max()))
    np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=3e-6 * terms**0.5)
    return found


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(shape, dtype, id=f"{shape[0]}-{str(dtype).removeprefix('torch.')}")
        for shape in SHAPES
        for dtype in DTYPES
        if shape[0] < 2047 or dtype == torch.bfloat16
    ],
)
def test_every_shape(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    """Every type in one of the two orders, every order in one type or two."""
    number = 3 * SHAPES.index(shape) + DTYPES.index(dtype)
    orders = (False, True) if shape[0] == 2048 else (number % 2 == 1,)
    for channels_last in orders:
        maps = make_maps((2, *shape), dtype, device, channels_last)
        setting = SETTINGS[(5 * number + channels_last) % len(SETTINGS)]
        num_active = check(maps, make_mask(shape[0], device), *setting)[2]
        assert (num_active > 0).any() or shape[0] <= 3


@pytest.mark.parametrize(("two_sided", "combine", "rectify"), SETTINGS)
def test_every_setting(two_sided: bool, combine: str, rectify: bool, device: torch.device) -> None:
    maps = make_maps((2, 129, 4, 5), torch.float32, device, rectify)
    check(maps, make_mask(129, device), two_sided, combine, rectify)
    check(maps, None, two_sided, combine, rectify, eps=1.5)


def test_the_mean_of_a_sum_is_the_sum_of_the_features(device: torch.device) -> None:
    maps = make_maps((3, 300, 7, 7), torch.float32, device, False)
    h, _, _, heat = kernels.score_maps(ops._planes(maps), None, EPS, False, "sum", False)
    total = (h * kernels.highly_active(h, EPS)).sum(1)
    torch.testing.assert_close(heat.mean(1), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_nothing_active_gives_zeros(combine: str, device: torch.device) -> None:
    maps = make_maps((2, 40, 3, 3), torch.float32, device, False)
    nothing = torch.zeros(40, dtype=torch.bool, device=device)
    _, q, num_active, heat = check(maps, nothing, combine=combine)
    assert not q.any()
    assert not num_active.any()
    assert not heat.any()


@pytest.mark.parametrize("channels_last", [False, True])
def test_samples_that_are_not_finite(channels_last: bool, device: torch.device) -> None:
    maps = make_maps((4, 129, 3, 5), torch.bfloat16, device, channels_last)
    maps[0, 1, 2, 3], maps[1, 128, 0, 0], maps[2] = float("nan"), float("inf"), 0
    for combine in ("sum", "max"):
        _, q, num_active, heat = check(maps, make_mask(129, device), combine=combine)
        assert q[:2].isnan().all()
        assert num_active[:3].tolist() == [0, 0, 0]
        assert heat[2].tolist() == [0.0] * 15
        alone = kernels.score_maps(
            ops._planes(maps[3:]), make_mask(129, device), EPS, False, combine, False
        )
        assert torch.equal(heat[3:], alone[3])


def test_strided_samples_channels_and_positions(device: torch.device) -> None:
    for channels_last in (False, True):
        maps = make_maps((3, 40, 6, 5), torch.float32, device, channels_last)
        mask = make_mask(40, device)
        for part in (
            maps[::2],
            maps[:, 5:],
            maps[:, ::2],
            maps[..., 1:-1, :],
            maps[..., 1:-1],
            maps.mT,
        ):
            check(part, mask[-part.shape[1] :], combine="mean")


def test_no_samples(device: torch.device) -> None:
    nothing = make_maps((2, 17, 3, 3), torch.float32, device, False)[:0]
    found = kernels.score_maps(ops._planes(nothing), None, EPS, False, "sum", False)
    h, q, num_active, heat = found
    assert (h.shape, q.shape, num_active.shape, heat.shape) == ((0, 17), (0,), (0,), (0, 9))


def test_equal_to_the_bit_from_run_to_run(device: torch.device) -> None:
    maps = ops._planes(make_maps((6, 512, 7, 7), torch.bfloat16, device, True))
    first, second = (kernels.score_maps(maps, None, EPS, False, "sum", True) for _ in range(2))
    one = kernels.score_maps(maps[4:5], None, EPS, False, "sum", True)
    for a, b, alone in zip(first, second, one, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a[4:5], alone)


def test_nothing_beyond_the_maps_is_read(backend: str) -> None:
    """The maps end where the memory of the process does: reading further would kill it."""
    if backend == "triton":
        pytest.skip("the interpreter reads what is masked")
    for positions, dtype in itertools.product((1, 2, 3, 15, 17, 33, 49), DTYPES):
        for channels_last in (False, True):
            with before_a_forbidden_page(2 * 5 * positions, dtype) as whole:
                shape = (2, positions, 5) if channels_last else (2, 5, positions)
                maps = whole.view(shape).mT if channels_last else whole.view(shape)
                kernels.score_maps(maps, None, EPS, False, "sum", False)


def test_triton_refuses_what_it_cannot_read(backend: str, device: torch.device) -> None:
    if backend != "triton":
        pytest.skip("the native core reads what ops hands it")
    with pytest.raises(TypeError, match="maps has dtype torch.float64"):
        kernels.score_maps(
            torch.zeros(1, 2, 3, dtype=torch.float64), None, EPS, False, "sum", False
        )
    with pytest.raises(ValueError, match="unit stride along channels or positions"):
        kernels.score_maps(torch.zeros(1, 4, 6)[:, ::2, ::2], None, EPS, False, "sum", False)
    huge = torch.empty(1, 2, 2**31, device="meta")
    with pytest.raises(ValueError, match="one sample of maps spans"):
        kernels.score_maps(huge, None, EPS, False, "sum", False)
