"""The launch settings of the Triton kernels are a pure function: no GPU and no compilation here."""

from __future__ import annotations

import importlib

import pytest
import torch

module = importlib.import_module("qscore_fast.kernels.triton.settings")
settings = module.settings

FEATURES = (1, 2, 16, 17, 128, 129, 768, 1023, 2048, 4096, 8193, 16384, 16385, 65536, 10**6)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def is_power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@pytest.mark.parametrize("processors", [None, 1, 132])
@pytest.mark.parametrize("features", FEATURES)
def test_valid_for_triton(features: int, processors: int | None) -> None:
    for dtype in DTYPES:
        for heavy, values in (False, 16), (True, 8):
            s = settings(1000, features, dtype, processors, heavy)
            assert is_power_of_two(s.block_m)
            assert is_power_of_two(s.block_d)
            assert is_power_of_two(s.num_warps)
            assert 4 <= s.num_warps <= 32
            assert s.block_m * s.block_d <= values * 32 * s.num_warps
            wide = settings(1000, features, dtype, processors, heavy, warp_size=64)
            assert wide.num_warps == s.num_warps // 2
            assert is_power_of_two(module.entries_block(s))


@pytest.mark.parametrize("features", FEATURES)
def test_one_tile_holds_rows_up_to_16384(features: int) -> None:
    s = settings(1000, features, torch.float32)
    assert (s.block_d >= features) == (features <= 16384)
    if features > 16384:
        assert s.block_m == 1


def test_short_rows_share_a_program() -> None:
    block_m = [settings(1000, r, torch.float32).block_m for r in (16, 128, 512, 1024, 2048, 4096)]
    assert block_m == [128, 16, 4, 2, 1, 1]


@pytest.mark.parametrize("processors", [None, 132])
@pytest.mark.parametrize("features", FEATURES)
def test_nothing_compiled_depends_on_the_number_of_rows(
    features: int, processors: int | None
) -> None:
    compiled = {
        (s.block_m, s.block_d, s.num_warps, s.num_stages)
        for rows in (0, 1, 3, 1000, 10**9)
        for s in [settings(rows, features, torch.bfloat16, processors)]
    }
    assert len(compiled) == 1


def test_programs_cover_every_row() -> None:
    for rows in (0, 1, 15, 16, 17, 10**6):
        s = settings(rows, 128, torch.float32)
        assert (s.programs - 1) * s.block_m < max(rows, 1) or rows == 0
        assert s.programs * s.block_m >= rows


def test_persistent_grid_is_bounded_by_the_processors() -> None:
    assert settings(10**6, 2048, torch.float32, 132).programs == 132
    assert settings(8, 2048, torch.float32, 132).programs == 2
    assert settings(0, 2048, torch.float32, 132).programs == 0


@pytest.mark.parametrize("features", FEATURES)
def test_pipeline_fits_shared_memory(features: int) -> None:
    for dtype in DTYPES:
        s = settings(10**6, features, dtype, 132)
        used = s.num_stages * s.block_m * s.block_d * dtype.itemsize
        assert s.num_stages == 1 or used <= module.PIPELINE_BYTES


def test_settings_are_immutable() -> None:
    s = settings(1, 1, torch.float32)
    assert s == settings(1, 1, torch.float32)
    with pytest.raises(AttributeError):
        s.block_m = 2
