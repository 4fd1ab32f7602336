"""The recipes of views: their odds, their operations, and that they depend on nothing but the seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from qscore_fast.encoders.layouts.systems import SYSTEMS
from qscore_fast.errors import ImageError, SettingsError
from qscore_fast.finetuning.photometric import blur_radius
from qscore_fast.finetuning.view_batch import photometric_batch
from qscore_fast.finetuning.view_draws import NUMBERS, ViewDraw, draw_view
from qscore_fast.finetuning.view_recipes import RECIPES, View, views_of, with_larger_crops
from qscore_fast.finetuning.views import ViewTransform

DRAWS = 3000

# As published: crop, jitter (p, brightness, contrast, saturation, hue), grey, blur, solarised.
STRONG, V1, V2, WEAK = (
    (0.8, 0.8, 0.8, 0.8, 0.2),
    (1.0, 0.4, 0.4, 0.4, 0.4),
    (0.8, 0.4, 0.4, 0.4, 0.1),
    (0.8, 0.4, 0.4, 0.2, 0.1),
)
FIRST, SECOND = (0.2, 1.0, 0.0), (0.2, 0.1, 0.2)
PUBLISHED = {
    "simclr": 2 * [((0.08, 1), STRONG, (0.2, 0.5, 0))],
    "swav": 2 * [((0.14, 1), STRONG, (0.2, 0.5, 0))] + 6 * [((0.05, 0.14), STRONG, (0.2, 0.5, 0))],
    "moco": 2 * [((0.2, 1), V1, (0.2, 0, 0))],
    "moco_v2": 2 * [((0.2, 1), V2, (0.2, 0.5, 0))],
    "simsiam": 2 * [((0.2, 1), V2, (0.2, 0.5, 0))],
    "moco_v3": [((0.2, 1), WEAK, FIRST), ((0.2, 1), WEAK, SECOND)],
    "moco_v3_vit": [((0.08, 1), WEAK, FIRST), ((0.08, 1), WEAK, SECOND)],
    "byol": [((0.08, 1), WEAK, FIRST), ((0.08, 1), WEAK, SECOND)],
    "vicreg": [((0.08, 1), WEAK, FIRST), ((0.08, 1), WEAK, SECOND)],
    "barlow_twins": [((0.08, 1), WEAK, FIRST), ((0.08, 1), WEAK, SECOND)],
    "dino": [((0.4, 1), WEAK, FIRST), ((0.4, 1), WEAK, SECOND)]
    + 8 * [((0.05, 0.4), WEAK, (0.2, 0.5, 0))],
    "dino_resnet": [((0.14, 1), WEAK, FIRST), ((0.14, 1), WEAK, SECOND)]
    + 8 * [((0.05, 0.14), WEAK, (0.2, 0.5, 0))],
}
BICUBIC = {"simclr", "byol", "vicreg", "barlow_twins", "dino", "dino_resnet"}


def photograph(height: int = 60, width: int = 80, channels: int = 3) -> Tensor:
    """uint8, with structure of every size."""
    random = np.random.default_rng(5)
    total = np.zeros((channels, height, width))
    for cells in (3, 10, 40):
        total += np.stack(
            [
                np.asarray(
                    Image.fromarray(random.random((cells, cells)).astype("f")).resize(
                        (width, height)
                    )
                )
                for _ in range(channels)
            ]
        )
    return torch.from_numpy((total / total.max() * 255).astype("uint8"))


def draws(view: View, height: int = 500, width: int = 500, count: int = DRAWS) -> list[ViewDraw]:
    numbers = np.random.default_rng(11).random((count, NUMBERS)).tolist()
    return [draw_view(view, height, width, row) for row in numbers]


def assert_share(outcomes: Iterable[bool], probability: float) -> None:
    """Within five standard deviations of the binomial; exact for 0 and 1."""
    outcomes = list(outcomes)
    spread = math.sqrt(probability * (1 - probability) / len(outcomes))
    assert abs(np.mean(outcomes) - probability) <= 5 * spread


def assert_uniform(values: list[float], low: float, high: float) -> None:
    assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4


def test_every_system_has_its_recipe() -> None:
    trained_by_views = set(SYSTEMS) - {"dinov2", "dinov3", "supervised"}
    assert trained_by_views <= set(RECIPES) == set(PUBLISHED)
    for system in trained_by_views:
        assert views_of(system) in RECIPES.values()
    assert views_of("dino", transformer=True) is RECIPES["dino"]
    assert views_of("dino") is RECIPES["dino_resnet"]
    assert views_of("moco_v3", transformer=True) is RECIPES["moco_v3_vit"]
    with pytest.raises(SettingsError, match="'mae'.*simclr"):
        views_of("mae")


@pytest.mark.parametrize("name", RECIPES)
def test_drawn_as_often_as_published(name: str) -> None:
    assert len(RECIPES[name]) == len(PUBLISHED[name])
    seen = set()
    for number, (crop, jitter, (gray, blur, solarize)) in enumerate(PUBLISHED[name]):
        view = RECIPES[name][number]
        assert view.bicubic == (name in BICUBIC)
        assert view.side == (1 if number < 2 else 96 / 224)
        if view in seen:
            continue
        seen.add(view)
        found = draws(view)
        assert_share((d.flip for d in found), 0.5)
        assert_share((bool(d.jitter) for d in found), jitter[0])
        assert_share((d.gray for d in found), gray)
        assert_share((d.sigma is not None for d in found), blur)
        assert_share((d.solarize for d in found), solarize)
        if blur:
            assert_uniform([d.sigma for d in found if d.sigma is not None], 0.1, 2)
        areas = [d.box[2] * d.box[3] / 500**2 for d in found]
        assert crop[0] - 0.01 <= min(areas) and max(areas) <= crop[1] + 0.01
        by_place = [[d.jitter[place] for d in found if d.jitter] for place in range(4)]
        for place in by_place:  # every order is as likely
            for operation in {name for name, _ in place}:
                assert_share((name == operation for name, _ in place), 0.25)
        factors: dict[str, list[float]] = {}
        for operation, factor in (pair for place in by_place for pair in place):
            factors.setdefault(operation, []).append(factor)
        brightness, contrast, saturation, hue = jitter[1:]
        of_tensorflow = name in {"simclr", "byol"}
        assert_uniform(factors["channel_contrast" if of_tensorflow else "contrast"],
                       1 - contrast, 1 + contrast)  # fmt: skip
        assert_uniform(factors["saturation"], 1 - saturation, 1 + saturation)
        assert_uniform(factors["hue"], -hue, hue)
        if name == "byol":
            assert_uniform(factors["add"], -brightness, brightness)
        else:
            assert_uniform(factors["brightness"], 1 - brightness, 1 + brightness)


@pytest.mark.parametrize(("height", "width"), [(400, 500), (28, 28), (40, 300)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Area, shape and place; an extreme image falls back to the centre now and then."""
    theirs = v2.RandomResizedCrop(8, (0.08, 1), antialias=True)
    image = torch.zeros(1, height, width)
    torch.manual_seed(0)
    expected = [theirs.make_params([image]) for _ in range(1500)]
    found = [d.box for d in draws(View((0.08, 1), RECIPES["byol"][0].jitter), height, width, 1500)]
    for place, key in enumerate(("top", "left", "height", "width")):
        result = scipy.stats.ks_2samp([b[place] for b in found], [p[key] for p in expected])
        assert result.pvalue > 1e-4, key
    for top, left, h, w in found:
        assert top >= 0 and left >= 0 and top + h <= height and left + w <= width


def by_torchvision(image: Tensor, view: View, draw: ViewDraw, side: int) -> Tensor:
    """The view made of torchvision's functional operations, on floats after the crop."""
    mode = F.InterpolationMode.BICUBIC if view.bicubic else F.InterpolationMode.BILINEAR
    x = F.resized_crop(image, *draw.box, [side, side], mode, antialias=True)
    x = F.horizontal_flip(x) if draw.flip else x
    x = F.to_dtype(x, torch.float32, scale=True)

    def channel_contrast(x: Tensor, factor: float) -> Tensor:
        return torch.cat([F.adjust_contrast(channel, factor) for channel in x.split(1)])

    jitter = {
        "brightness": F.adjust_brightness,
        "add": lambda x, shift: (x + shift).clamp(0, 1),
        "contrast": F.adjust_contrast,
        "channel_contrast": channel_contrast,
        "saturation": F.adjust_saturation,
        "hue": F.adjust_hue,
    }

    def grey(x: Tensor) -> Tensor:
        return F.rgb_to_grayscale(x, 3) if draw.gray else x

    if view.gray_first:
        x = grey(x)
    for name, factor in draw.jitter:
        x = jitter[name](x, factor)
    if not view.gray_first:
        x = grey(x)
    if draw.sigma is not None:
        x = F.gaussian_blur(x, [2 * blur_radius(side) + 1] * 2, [draw.sigma] * 2)
    return F.solarize(x, 128 / 255) if draw.solarize else x


@pytest.mark.parametrize("name", RECIPES)
def test_views_are_made_of_torchvisions_operations(name: str) -> None:
    """And a batch on one device gives the same, as does the plain range without normalisation."""
    image = photograph()
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    transform = ViewTransform(name, 32, mean, std)
    plain = ViewTransform(name, 32, (0.0,) * 3, (1.0,) * 3)
    seeds = range(12)
    views = [transform(image, seed) for seed in seeds]
    crops = [transform.crops(image, seed) for seed in seeds]
    for number, (view, side) in enumerate(zip(RECIPES[name], transform.sides, strict=True)):
        found = torch.stack([of_seed[number] for of_seed in views])
        assert found.shape == (12, 3, side, side)
        of_view = [crop.draws[number] for crop in crops]
        expected = torch.stack([by_torchvision(image, view, draw, side) for draw in of_view])
        expected = F.normalize(expected, list(mean), list(std))
        # A value at the threshold of the solarisation may fall on either side of it.
        off = (found - expected).abs() > 1e-4
        assert off.float().mean() < 1e-3
        pixels = torch.stack([crop.pixels[number] for crop in crops])
        batch = transform.normalise(photometric_batch(pixels, view, of_view))
        assert ((batch - found).abs() > 1e-4).float().mean() < 1e-3
        unit = torch.stack([plain(image, seed)[number] for seed in seeds])
        assert unit.min() >= 0 and unit.max() <= 1


def test_the_two_views_of_an_asymmetric_recipe_differ() -> None:
    """The second view of BYOL is sharp nine times in ten, the first never."""
    for name in ("byol", "moco_v3", "vicreg", "barlow_twins", "dino"):
        transform = ViewTransform(name, 32, (0.5,), (0.5,))
        drawn = [transform.draw(60, 80, seed) for seed in range(400)]
        assert all(pair[0].sigma is not None and not pair[0].solarize for pair in drawn)
        assert_share((pair[1].sigma is not None for pair in drawn), 0.1)
        assert_share((pair[1].solarize for pair in drawn), 0.2)


def test_the_views_of_an_image_are_drawn_independently() -> None:
    transform = ViewTransform("simclr", 16, (0.5,), (0.5,))
    drawn = [transform.draw(200, 200, seed) for seed in range(2000)]
    columns = [[pair[view].box[2] for pair in drawn] for view in range(2)]
    assert abs(np.corrcoef(columns)[0, 1]) < 5 / math.sqrt(2000)
    assert_share((pair[0].flip == pair[1].flip for pair in drawn), 0.5)


def seeded_views(image: Tensor, transform: ViewTransform, seed: int) -> list[Tensor]:
    return transform(image, seed)


class Images(torch.utils.data.Dataset[list[Tensor]]):
    def __init__(self, transform: ViewTransform) -> None:
        self.make = partial(seeded_views, photograph(), transform)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> list[Tensor]:
        torch.rand(index)  # whatever others draw
        return self.make(index)


def test_equal_seeds_give_equal_views_in_any_process() -> None:
    transform = ViewTransform("dino", 32, (0.5,) * 3, (0.5,) * 3)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    here = [transform(photograph(), seed) for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = [transform(photograph(), seed) for seed in range(6)]
    loaded = DataLoader(Images(transform), batch_size=6, num_workers=1, collate_fn=default_collate)
    for view, (one, two) in enumerate(
        zip(zip(*here, strict=True), zip(*again, strict=True), strict=True)
    ):
        assert torch.equal(torch.stack(one), torch.stack(two))
        assert torch.equal(torch.stack(one), next(iter(loaded))[view])
        assert len({tensor.sum().item() for tensor in one}) == 6  # other seeds, other views


def test_images_of_every_kind_become_the_same_views() -> None:
    """Pillow and tensors, colour and grey, brought to the channels of the encoder."""
    pixels = photograph()
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    grey = image.convert("L")
    grey_pixels = torch.from_numpy(np.asarray(grey).copy())[None]
    colour = ViewTransform("moco_v2", 28, (0.5,) * 3, (0.5,) * 3)
    single = ViewTransform("moco_v2", 28, (0.5,), (0.5,))
    for transform, same in (
        (colour, (image, pixels)),
        (colour, (grey, grey_pixels)),
        (single, (grey, grey_pixels)),
        (single, (image, grey)),
    ):
        first, second = (transform(kind, 3) for kind in same)
        for one, two in zip(first, second, strict=True):
            assert one.shape == (transform.channels, 28, 28)
            assert torch.equal(one, two)
    torch.testing.assert_close(single(pixels, 3), single(grey, 3), rtol=0, atol=0.02)


def test_crops_can_be_larger() -> None:
    larger = with_larger_crops(RECIPES["dino"], 2.5)
    assert [view.crop for view in larger[:3]] == [(1, 1), (1, 1), (0.125, 1)]
    transform = ViewTransform("simclr", 28, (0.5,), (0.5,), crop_scale=2.5)
    assert transform.recipe[0].crop == (pytest.approx(0.2), 1)
    assert min(d.box[2] * d.box[3] for s in range(300) for d in transform.draw(100, 100, s)) >= 1900


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ViewTransform("mae", 224, (0,), (1,)), SettingsError, "'mae'.*barlow_twins"),
        (lambda: ViewTransform("dino", 16, (0,), (1,)), SettingsError, "size is 16.*at least 8"),
        (lambda: ViewTransform([], 16, (0,), (1,)), SettingsError, "size is 16"),
        (lambda: ViewTransform("byol", 32, (0, 0), (1, 1)), SettingsError, "3 numbers or 1"),
        (lambda: ViewTransform("byol", 32, (0,), (0,)), SettingsError, "std above 0"),
        (lambda: ViewTransform("byol", 32, (0,), (1,), crop_scale=0), SettingsError, "0 times"),
        (lambda: View((0.5, 0.2), RECIPES["byol"][0].jitter), SettingsError, "crop is"),
        (lambda: View((0.5, 1), RECIPES["byol"][0].jitter, blur=2), SettingsError, "from 0 to 1"),
        (lambda: View((0.5, 1), RECIPES["byol"][0].jitter, side=0), SettingsError, "side is 0"),
        (
            lambda: ViewTransform("byol", 32, (0,), (1,))(torch.zeros(3, 9, 9), 0),
            ImageError,
            "float32.*uint8",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
