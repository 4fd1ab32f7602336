"""Every published layout: the loaded encoder against a plain forward over the file's own tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from published import ROWS, Published, Row
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

from qscore_fast.encoders import load_encoder
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.inspection import Inspection, inspect_checkpoint
from qscore_fast.encoders.layouts import members
from qscore_fast.encoders.networks import build_network, infer_architecture
from qscore_fast.errors import EncoderError
from qscore_fast.images import IMAGENET

ROW = {row.id: row for row in ROWS}
ENCODERS = [row for row in ROWS if row.encoder]
NO_ENCODERS = [row for row in ROWS if not row.encoder]


class Case:
    """One written file, what it should give, and what was loaded."""

    def __init__(self, row: Row, published: Published) -> None:
        self.row, self.published = row, published
        self.encoder = load_encoder(published.path, device="cpu")
        convolutional = "ResNet" in self.encoder.architecture
        height, width = (64, 64) if convolutional else self.encoder.preprocess.output_size
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(2, 3, height, width, generator=generator)
        self.features = published.features(self.images)

    def load(self, **settings: str) -> Encoder:
        return load_encoder(self.published.path, device="cpu", **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=ENCODERS, ids=lambda row: row.id)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    row: Row = request.param
    return Case(row, row.write(tmp_path_factory.mktemp("published")))


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest entry."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * scale)


def differ(found: Tensor, expected: Tensor) -> bool:
    """By far more than rounding."""
    return float((found - expected).abs().max()) > 1e-3 * float(expected.abs().max())


def test_features(case: Case) -> None:
    h = case.encoder(case.images)
    assert case.encoder.num_features == case.published.num_features
    assert differ(case.features[:1], case.features[1:]), "the images must not all look the same"
    close(h, case.features)


def test_what_it_says(case: Case) -> None:
    row, published = case.row, case.published
    said: Inspection = inspect_checkpoint(published.path)
    if row.system is None:
        assert row.fits[0] in (said.system, *said.fits)
    else:
        assert said.system == row.system
    assert row.source in said.source or said.source == "unknown"
    assert said.num_features == published.num_features
    assert said.tower == published.default_tower
    assert set(said.towers) == set(published.towers)
    recipe = case.encoder.preprocess
    expected = published.preprocess
    assert recipe.mean == pytest.approx(expected["mean"], abs=1e-3)
    assert recipe.std == pytest.approx(expected["std"], abs=1e-4)
    assert recipe.interpolation == expected["interpolation"]
    assert recipe.crop_fraction == pytest.approx(expected["crop_fraction"])
    if recipe.crop_fraction is None and expected["resize"] is not None:
        assert recipe.resize == expected["resize"]
    height, width = recipe.output_size
    assert height == width == (expected["crop"] or height)
    assert said.system is None or published.heads == canonical_heads(case.encoder)
    assert said.lines()


def canonical_heads(encoder: Encoder) -> set[str]:
    """The parts beside the tower in use, by the generator's names."""
    assert encoder.training_state is not None
    heads = set()
    for part in {*encoder.training_state.parts} - {"ema.predictor", "ema.classifier"}:
        tower, _, name = part.rpartition(".")
        if name in ("queue", "center"):
            heads.add(name)
        elif name in ("projector", "predictor", "prototypes", "classifier", "backbone"):
            heads.add(f"ema_{name}" if tower == "ema" else name)
    # The generator names what is beside the default tower from the online one's side.
    if encoder.tower == "ema":
        heads = (heads - {"backbone"}) | ({"ema_backbone"} if "backbone" in heads else set())
    return heads


def test_the_other_tower(case: Case) -> None:
    others = [tower for tower in case.published.towers if tower != case.encoder.tower]
    if not others:
        missing = "ema" if case.encoder.tower == "online" else "online"
        with pytest.raises(EncoderError, match=f"no {missing} tower"):
            case.load(tower=missing)
        return
    (other,) = others
    h = case.load(tower=other)(case.images)
    close(h, case.published.features(case.images, tower=other))
    assert differ(h, case.features)


def test_heads(case: Case) -> None:
    published, state = case.published, case.encoder.training_state
    assert state is not None
    with torch.inference_mode():
        for tower in published.towers:
            expected = published.projection(case.images, tower=tower)
            if expected is None:
                continue
            h = published.features(case.images, tower=tower)
            z = state.head("projector", tower).eval()(h)  # type: ignore[arg-type]
            close(z, expected)
            others = {"online", "ema"} & {*published.towers} - {tower}
            if others and f"{(other := others.pop())}.projector" in state.parts:
                swapped = state.head("projector", other).eval()(h)  # type: ignore[arg-type]
                assert differ(swapped, expected), "swapped heads must not go unnoticed"
            if tower == "online" and published.predictor is not None:
                close(state.head("predictor").eval()(z), published.predictor(expected))
        if published.prototypes_weight is not None:
            tower = case.encoder.tower or "online"
            prototypes = state.head("prototypes", tower).eval()  # type: ignore[arg-type]
            close(prototypes.weight, published.prototypes_weight)
            weight = published.prototypes_weight
            z = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(2))
            logits = F.normalize(z, dim=1) @ weight.T
            close(prototypes(z) - (prototypes.bias if prototypes.bias is not None else 0), logits)
    if published.queue is not None:
        queue = state.tensors["queue"]
        rows = published.queue.reshape(-1, *published.queue.shape[-2:])
        rows = rows if rows.shape == queue.shape else rows.transpose(-1, -2)
        assert torch.equal(queue, rows)
    if published.center is not None:
        assert torch.equal(state.tensors["center"], published.center.flatten())


def test_a_wrong_system_is_refused(case: Case) -> None:
    fits = set(case.row.fits) | {case.row.system}
    wrong = next(s for s in ("simsiam", "swav", "byol", "dino") if s not in fits)
    try:
        encoder = case.load(system=wrong)
    except EncoderError as error:
        assert wrong in str(error)
    else:
        # A bare backbone can be of more systems than its own file's; it must then follow what was said.
        assert case.row.system is None
        assert encoder.system == wrong


@pytest.mark.parametrize("row", NO_ENCODERS, ids=lambda row: row.id)
def test_files_without_an_encoder(row: Row, tmp_path_factory: pytest.TempPathFactory) -> None:
    published = row.write(tmp_path_factory.mktemp("published"))
    with pytest.raises(EncoderError, match="cannot load the checkpoint .*: "):
        load_encoder(published.path, device="cpu")


@pytest.mark.parametrize("row", ENCODERS, ids=lambda row: row.id)
def test_the_recognised_system_can_be_given(
    row: Row, tmp_path_factory: pytest.TempPathFactory
) -> None:
    system = row.system or row.fits[0]
    published = row.write(tmp_path_factory.mktemp("published"))
    encoder = load_encoder(published.path, system, device="cpu")
    assert encoder.system in members(system)


SAME_PADDED = (
    "simclr-v1-official",
    "simclr-v2-sk0-official",
    "simclr-v1-converted",
    "simclr-v1-converted-2x",
    "simclr-v2-sk0-converted",
    "byol-official",
    "byol-official-200x2",
    "byol-converted",
    "byol-ssl-transfer",
)


@pytest.mark.parametrize("row_id", SAME_PADDED)
def test_a_wrong_padding_would_show(row_id: str, tmp_path: Path) -> None:
    case = Case(ROW[row_id], ROW[row_id].write(tmp_path))
    assert "SAME" in case.encoder.architecture
    state = case.encoder.module.state_dict()
    wrong = build_network(infer_architecture(state, padding="torch"))
    wrong.load_state_dict(state, assign=True)
    assert differ(replace(case.encoder, module=wrong.eval())(case.images), case.features)


def test_a_wrong_number_of_attention_heads_would_show(tmp_path: Path) -> None:
    case = Case(ROW["moco-v3-vit-s-official"], ROW["moco-v3-vit-s-official"].write(tmp_path))
    state = case.encoder.module.state_dict()
    wrong = build_network(infer_architecture(state, num_heads=6))
    wrong.load_state_dict(state, assign=True)
    assert differ(replace(case.encoder, module=wrong.eval())(case.images), case.features)


@pytest.mark.parametrize("row_id", ["simclr-v1-official", "swav-official", "byol-official"])
def test_a_wrong_normalisation_would_show(row_id: str, tmp_path: Path) -> None:
    encoder = load_encoder(ROW[row_id].write(tmp_path).path, device="cpu")
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    right, wrong = (recipe(photograph)[None] for recipe in (encoder.preprocess, IMAGENET))
    difference = float((encoder(wrong) - encoder(right)).abs().max())
    # Ten times what test_features lets pass; SwAV's differs by .001 in one standard deviation only.
    assert difference > 1e-4 * float(encoder(right).abs().max())
