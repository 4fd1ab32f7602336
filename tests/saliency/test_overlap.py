"""The measures against loops in float64, scikit-learn, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from qscore_fast.errors import SettingsError
from qscore_fast.saliency.overlap import (
    MEASURES,
    REASONS,
    Overlap,
    OverlapSettings,
    overlap,
    overlaps,
)


def transcription(
    heat: np.ndarray, mask: np.ndarray, t: float, cut: float, hard: bool, reach: int
) -> dict[str, float]:
    """One image, pixel by pixel, from the definitions."""
    height, width = heat.shape
    peak = max(float(x) for x in heat.ravel())
    heat_in = heat_of_union = low = high = inside = total = 0.0
    hits = hottest = 0
    for y in range(height):
        for x in range(width):
            a, m = float(heat[y, x]), float(mask[y, x])
            b = m >= cut
            if hard:
                m = float(b)
            area = 1.0 if a > t * peak else 0.0
            heat_in += a * min(area, m)
            heat_of_union += a * max(area, m)
            low += min(a / peak, m)
            high += max(a / peak, m)
            inside += a * m
            total += a
            if a == peak:
                hottest += 1
                hits += any(
                    mask[v, u] >= cut and (v - y) ** 2 + (u - x) ** 2 <= reach**2
                    for v in range(height)
                    for u in range(width)
                )
    return {
        "heat_iou": heat_in / heat_of_union,
        "soft_iou": low / high,
        "pointing": hits / hottest,
        "energy": inside / total,
        "auroc": float(roc_auc_score((mask >= cut).ravel(), heat.ravel())),
    }


def drawn(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat with many ties and exact zeros, soft masks with zeros and ones."""
    generator = np.random.default_rng(seed)
    heat = np.maximum(generator.integers(-3, 6, (n, 9, 11)), 0) / 4
    mask = np.clip(generator.normal(0.5, 0.5, (n, 9, 11)), 0, 1)
    return torch.from_numpy(heat.astype(np.float32)), torch.from_numpy(mask)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(("t", "cut", "reach"), [(0.5, 0.5, 0), (0.0, 0.25, 1), (0.8, 0.9, 3)])
def test_like_the_loops_and_scikit_learn(t: float, cut: float, reach: int, hard: bool) -> None:
    heat, mask = drawn(12, seed=reach)
    found = overlap(heat, mask, OverlapSettings(t, cut, hard, reach))
    assert not found.undefined.any()
    for row in range(len(heat)):
        expected = transcription(heat[row].numpy(), mask[row].numpy(), t, cut, hard, reach)
        for measure, value in expected.items():
            assert float(found.of(measure)[row]) == pytest.approx(value, rel=1e-12), measure


def test_masks_of_bytes_are_shares_of_255() -> None:
    heat, mask = drawn(4, 1)
    levels = (mask * 255).round().to(torch.uint8)
    assert torch.equal(overlap(heat, levels).values, overlap(heat, levels.double() / 255).values)
    # 128 of 255 covers a pixel, 127 does not.
    edge = torch.tensor([[[127, 128]]], dtype=torch.uint8)
    assert float(overlap(torch.tensor([[[0.0, 1.0]]]), edge).of("auroc")) == 1


@pytest.mark.parametrize("scale", [2.0**-140, 0.125, 1024.0, 2.0**120])
def test_the_scale_of_the_heat_changes_nothing(scale: float) -> None:
    heat, mask = drawn(6, 2)
    assert torch.equal(overlap(heat * scale, mask).values, overlap(heat, mask).values)


def test_several_masks_at_once_are_the_same_as_one_by_one() -> None:
    heat, mask = drawn(5, 7)
    others = [mask, 1 - mask, (mask > 0.5).to(torch.uint8) * 255]
    for found, one in zip(overlaps(heat, others), others, strict=True):
        assert torch.equal(found.values, overlap(heat, one).values)


def test_the_rows_of_a_batch_do_not_touch_each_other() -> None:
    heat, mask = drawn(5, 3)
    whole = overlap(heat, mask).values
    for row in range(5):
        assert torch.equal(overlap(heat[row : row + 1], mask[row : row + 1]).values[0], whole[row])


def test_with_the_whole_support_the_mass_iou_is_the_energy() -> None:
    heat, mask = drawn(20, 4)
    for hard in (False, True):
        found = overlap(heat, mask, OverlapSettings(heat_threshold=0, hard_masks=hard))
        torch.testing.assert_close(found.of("heat_iou"), found.of("energy"), rtol=1e-14, atol=0)


def test_the_mask_outside_the_heat_weighs_nothing_in_the_mass_iou_and_something_in_the_soft_one() -> (
    None
):
    heat = torch.zeros(2, 8, 8)
    heat[:, :2, :2] = 1
    mask = torch.zeros(2, 8, 8)
    mask[:, :2, :2] = 1
    mask[1, 4:, 4:] = 1  # sixteen pixels without heat
    found = overlap(heat, mask)
    assert found.of("heat_iou").tolist() == [1, 1]
    assert found.of("soft_iou").tolist() == [1, 4 / 20]


def test_only_pixels_that_count_count() -> None:
    heat, mask = drawn(3, 5)
    seen = torch.zeros(heat.shape, dtype=torch.bool)
    seen[:, 2:8, 1:9] = True
    within = overlap(heat[:, 2:8, 1:9], mask[:, 2:8, 1:9])
    # Whatever stands where nobody looked, also what has no number.
    elsewhere = torch.where(seen, heat, torch.full_like(heat, 7.0))
    torch.testing.assert_close(overlap(elsewhere, mask, None, seen).values, within.values)
    assert torch.equal(
        overlap(heat, mask, None, torch.ones_like(seen)).values, overlap(heat, mask).values
    )


def reasons(found: Overlap, row: int) -> list[str]:
    """Of each measure."""
    return [REASONS[int(number)] for number in found.undefined[row]]


def test_what_is_undefined_says_why_and_nothing_else_is_not_a_number() -> None:
    ramp = torch.arange(16.0).reshape(4, 4)
    none, every = torch.zeros(4, 4), torch.ones(4, 4)
    corner = torch.zeros(4, 4)
    corner[3, 3] = 1
    broken = torch.full((4, 4), math.nan)
    faint = 0.25 * every
    cases = [
        (ramp, corner), (none, corner), (ramp, none), (ramp, every), (none, none), (broken, corner),
        (ramp / 0, corner), (every, corner), (ramp, faint),
    ]  # fmt: skip
    found = overlap(torch.stack([a for a, _ in cases]), torch.stack([m for _, m in cases]))
    assert torch.equal(found.values.isnan(), found.undefined > 0)
    last = len(MEASURES) - 1
    for row, everything, auroc in [
        (0, "", ""), (1, "no heat", "no heat"), (2, "", "empty mask"), (3, "", "full mask"),
        (4, "no heat", "no heat"), (5, "heat not finite", "heat not finite"),
        (6, "heat not finite", "heat not finite"), (7, "", ""), (8, "", "empty mask"),
    ]:  # fmt: skip
        assert reasons(found, row) == [everything] * last + [auroc], row
    assert found.values[2, :last].tolist() == [0, 0, 0, 0]
    # Of 0 + 1 + ... + 15, what is above half of 15.
    assert found.values[3, [0, 2, 3]].tolist() == [92 / 120, 1, 1]
    # A map that is equally hot everywhere points nowhere: it has the mask's share, and ranks nothing.
    assert found.values[7].tolist() == [1 / 16, 1 / 16, 1 / 16, 1 / 16, 0.5]
    assert found.values[8, 2] == 0


def test_one_pixel_and_no_image() -> None:
    found = overlap(torch.ones(1, 1, 1), torch.ones(1, 1, 1))
    assert found.values[0, :4].tolist() == [1, 1, 1, 1] and reasons(found, 0)[4] == "full mask"
    assert overlap(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).values.shape == (0, 5)


def test_low_precision_heat_is_measured_in_double() -> None:
    heat, mask = drawn(3, 6)
    for dtype in (torch.bfloat16, torch.float16):
        low = heat.to(dtype)
        assert torch.equal(overlap(low, mask).values, overlap(low.double(), mask).values)


@pytest.mark.parametrize(
    ("heat", "mask", "words"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4, 5), "as many masks of that size"),
        (torch.zeros(4, 4), torch.zeros(4, 4), r"\(N, H, W\)"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4), "floating-point"),
        (-torch.ones(1, 4, 4), torch.zeros(1, 4, 4), "below 0"),
        (torch.ones(1, 4, 4), torch.full((1, 4, 4), 255.0), "between 0 and 1"),
        (torch.ones(1, 4, 4), torch.full((1, 4, 4), math.nan), "between 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    heat: torch.Tensor, mask: torch.Tensor, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        overlap(heat, mask)


@pytest.mark.parametrize(
    "wrong",
    [{"heat_threshold": 1.0}, {"heat_threshold": math.nan}, {"mask_threshold": 0.0},
     {"mask_threshold": 1.5}, {"pointing_tolerance": -1}, {"pointing_tolerance": 1000}],
)  # fmt: skip
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        OverlapSettings(**wrong)  # type: ignore[arg-type]


def test_seen_is_bool_of_the_same_shape() -> None:
    with pytest.raises(SettingsError, match="seen"):
        overlap(torch.ones(1, 4, 4), torch.zeros(1, 4, 4), None, torch.ones(1, 4, 4))
