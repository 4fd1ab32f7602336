"""The launch settings of the Triton kernels are a pure function: no GPU and no compilation here."""

from __future__ import annotations

import importlib

import pytest
import torch
from triton_compile import DEVICES, WIDTHS, capability, forward_registers

module = importlib.import_module("qscore_fast.kernels.triton.settings")
settings = module.settings

FEATURES = (1, 2, 16, 17, 128, 129, 768, 1023, 2048, 4096, 8193, 16384, 16385, 65536, 10**6)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
KINDS = ("rows", "columns", "entries")
H100 = capability("sm_90")


def is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", FEATURES)
def test_valid_for_triton(features: int, kind: str) -> None:
    values = 8 if kind == "entries" else 64
    for device, (_, warp_size, *_) in DEVICES.items():
        for dtype in DTYPES:
            s = settings(1000, features, dtype, capability(device), kind)
            threads = s.num_warps * warp_size
            assert is_power_of_two(s.block_m)
            assert is_power_of_two(s.block_d)
            assert is_power_of_two(s.num_warps)
            assert warp_size <= threads <= 512
            assert s.block_m * s.block_d <= values * threads
            assert is_power_of_two(module.entries_block(s))


@pytest.mark.parametrize("features", FEATURES)
def test_one_tile_holds_rows_up_to_16384(features: int) -> None:
    s = settings(1000, features, torch.float32, H100)
    assert (s.block_d >= features) == (features <= 16384)
    if features > 16384:
        assert s.block_m == 1


def test_short_rows_share_a_program() -> None:
    tiles = [settings(1000, r, torch.float32, H100) for r in (16, 128, 512, 1024, 2048, 4096)]
    assert [s.block_m for s in tiles] == [128, 16, 4, 2, 1, 1]


@pytest.mark.parametrize("features", FEATURES)
def test_rows_are_added_up_in_one_order(features: int) -> None:
    """What fixes the order of a row's sums is the same for every kernel that has them."""
    for device in DEVICES:
        for dtype in DTYPES:
            rows, columns = (
                settings(1000, features, dtype, capability(device), kind)
                for kind in ("rows", "columns")
            )
            assert (rows.block_m, rows.block_d) == (columns.block_m, columns.block_d)
            assert rows.num_warps == columns.num_warps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", FEATURES)
def test_nothing_compiled_depends_on_the_number_of_rows(features: int, kind: str) -> None:
    compiled, sums = set(), set()
    for rows in (0, 1, 3, 1000, 10**9):
        s = settings(rows, features, torch.bfloat16, H100, kind)
        compiled.add((s.block_m, s.block_d, s.num_warps, s.num_stages))
        t = module.sum_settings(rows, features, H100)
        sums.add((t.block_m, t.block_p, t.block_d, t.num_warps))
    assert len(compiled) == len(sums) == 1


def test_programs_cover_every_row() -> None:
    for rows in (0, 1, 15, 16, 17, 10**6):
        s = settings(rows, 128, torch.float32, H100)
        assert (s.programs - 1) * s.block_m < max(rows, 1) or rows == 0
        assert s.programs * s.block_m >= rows


def test_programs_of_the_sums_cover_every_column() -> None:
    for features in FEATURES:
        for rows in (1, 1000, 10**6):
            s = module.sum_settings(rows, features, H100)
            assert s.programs * s.block_d >= features
            assert s.programs <= max(-(-features // s.block_d), H100.multiprocessors)


@pytest.mark.parametrize("device", DEVICES)
def test_persistent_programs_are_all_resident(device: str) -> None:
    c = capability(device)
    for features in FEATURES:
        for dtype in DTYPES:
            s = settings(10**7, features, dtype, c, "columns")
            each = s.programs // c.multiprocessors
            assert s.programs == each * c.multiprocessors
            assert each * s.num_warps * c.warp_size * module.COLUMN_REGISTERS <= c.registers
            ahead = (s.num_stages - 1) * s.block_m * s.block_d * dtype.itemsize
            assert each * ahead <= c.shared_bytes // 2


def test_few_rows_have_few_programs() -> None:
    assert settings(8, 2048, torch.float32, H100, "columns").programs == 8
    assert settings(8, 128, torch.float32, H100, "columns").programs == 1
    assert settings(0, 2048, torch.float32, H100, "columns").programs == 0


# Little's law: what a multiprocessor must have asked for to be served without a pause, at a latency
# of 800 ns and the bandwidth that the maker states.
BANDWIDTH = {"sm_80": 2.04e12, "sm_90": 3.35e12, "sm_100": 8e12}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("features", WIDTHS)
@pytest.mark.parametrize("device", BANDWIDTH)
def test_enough_bytes_are_in_flight(device: str, features: int, dtype: torch.dtype) -> None:
    """A gradient reads half of what it moves, and must only ask for as much.

    ``test_triton_compiled`` shows that the registers are as few as is taken for granted here.
    """
    c = capability(device)
    needed = 800e-9 * BANDWIDTH[device] / c.multiprocessors
    s = settings(10**7, features, dtype, c)
    tile = s.block_m * features * dtype.itemsize
    threads = s.num_warps * c.warp_size
    for registers, part in (forward_registers(s.block_m, features, threads), 1), (255, 0.5):
        resident = module.resident_programs(threads, registers, 0, c)
        assert resident * tile >= part * needed, (resident, tile)
    s = settings(10**7, features, dtype, c, "columns")
    ahead = max(1, s.num_stages - 1) * s.programs // c.multiprocessors
    assert ahead * tile >= needed, s


def test_settings_are_immutable() -> None:
    s = settings(1, 1, torch.float32, H100)
    assert s == settings(1, 1, torch.float32, H100)
    with pytest.raises(AttributeError):
        s.block_m = 2


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("positions", [1, 15, 49, 196, 4096, 50000])
@pytest.mark.parametrize("channels", [1, 17, 512, 2048, 16500])
def test_tiles_of_feature_maps(channels: int, positions: int, channels_last: bool) -> None:
    """Powers of two that fit registers, and cover short maps without a second step."""
    for device, (_, warp_size, *_) in DEVICES.items():
        s = module.map_settings(channels, positions, channels_last, capability(device))
        sizes = (
            s.pool_c,
            s.pool_p,
            s.pool_warps,
            s.list_c,
            s.combine_m,
            s.combine_p,
            s.combine_warps,
        )
        assert all(is_power_of_two(n) for n in sizes)
        assert s.pool_c * s.pool_p <= 64 * 32 * s.pool_warps
        assert s.combine_m * s.combine_p == 8 * 32 * 4
        assert s.list_c <= 1024
        assert s.combine_p >= min(positions, 256)
        assert s.combine_warps * warp_size == 128
