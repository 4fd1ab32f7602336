"""Contents that no training wrote: an encoder or one of our own errors, soon, whatever was done to them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from published import ROWS

from qscore_fast.encoders.containers import Container, read_container
from qscore_fast.encoders.layouts.unwrap import MAX_NAMES
from qscore_fast.encoders.published import published_encoder
from qscore_fast.errors import EncoderError, MissingExtraError, SettingsError

EXAMPLES = 20
SAMPLE = (
    "simclr-v1-official", "simclr-v2-sk0-official", "simclr-v2-sk1-converted", "moco-v2-official",
    "byol-official", "dino-vit-s16-official-full", "dinov2-registers-official", "dinov3-official",
    "dino-xcit-p16-official", "barlow-official-full", "dino-vissl", "swav-mmpretrain",
    "barlow-twins-solo-learn-cifar", "simclr-lightly-zoo",
)  # fmt: skip
KEYS: tuple[Any, ...] = (3, None, (1, 2), b"x", "", ".", "..", "fc", "fc.weight", "9" * 5000)
VALUES: tuple[Callable[[], Any], ...] = (
    lambda: torch.zeros(()),
    lambda: torch.zeros(0, 3, 7, 7),
    lambda: torch.zeros(2, 2, dtype=torch.complex64),
    lambda: torch.zeros(3, dtype=torch.bool),
    lambda: torch.ones(1, 1, 1, 1),
    lambda: torch.zeros(1).expand(10**9),
    lambda: None,
    lambda: "text",
    list,
    dict,
    lambda: {"a": torch.zeros(2)},
)


def mappings(tree: Any) -> list[dict[Any, Any]]:
    if not isinstance(tree, dict):
        return []
    return [tree, *(found for value in tree.values() for found in mappings(value))]


def copied(tree: Any) -> Any:
    return {key: copied(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def damaged(content: Any, generator: random.Random) -> Any:
    content = copied(content)
    for _ in range(generator.randint(1, 3)):
        place = generator.choice([mapping for mapping in mappings(content) if mapping] or [{0: 0}])
        key = generator.choice(list(place))
        match generator.randrange(7):
            case 0:
                del place[key]
            case 1:
                place[generator.choice([*KEYS, f"module.{key}", f"{key}.weight"])] = place.pop(key)
            case 2:
                place[key] = generator.choice(VALUES)()
            case 3:
                place[str(key).replace("0", "9").replace("conv", "bn")] = place[key]
            case 4:
                place[key] = {key: place[key]}
            case 5:
                place[key] = place[generator.choice(list(place))]
            case _:
                for name in generator.sample(list(place), len(place) // 2):
                    place[name] = generator.choice(VALUES)()
    return content


@pytest.mark.parametrize("row_id", SAMPLE)
def test_damaged_contents(row_id: str, tmp_path: Path) -> None:
    (row,) = (row for row in ROWS if row.id == row_id)
    container = read_container(row.write(tmp_path).path)
    generator = random.Random(row_id)
    refused = 0
    for _ in range(EXAMPLES):
        content = damaged(container.content, generator)
        try:
            encoder, _ = published_encoder(
                replace(container, content=content), "it", generator.choice([None, None, "byol"])
            )
            state = encoder.training_state
            assert state is not None
            for part in state.parts:
                tower, _, head = part.rpartition(".")
                if head in ("projector", "predictor", "prototypes", "classifier"):
                    state.head(head, tower)  # type: ignore[arg-type]
        except (EncoderError, SettingsError, MissingExtraError) as error:
            assert len(str(error)) < 3000
            refused += 1
    assert refused > EXAMPLES // 5, "the damage must not go unnoticed"


@pytest.mark.parametrize(
    "name",
    [
        lambda i: f"module.encoder_q.layer1.{i}.conv1.weight",
        lambda i: f"a.{i}.weight",
        lambda i: "a." * 10_000 + str(i),
    ],
)
@pytest.mark.parametrize("count", [MAX_NAMES // 10, MAX_NAMES + 1])
def test_many_names_are_refused_in_few_words(
    name: Callable[[int], str], count: int, tmp_path: Path
) -> None:
    if len(name(0)) > 10_000:
        count = 50
    tensor = torch.zeros(1)
    content = {"state_dict": {name(i): tensor for i in range(count)}}
    with pytest.raises(EncoderError) as raised:
        published_encoder(Container(tmp_path / "x.pth", "torch-zip", content), "x")
    assert len(str(raised.value)) < 3000
