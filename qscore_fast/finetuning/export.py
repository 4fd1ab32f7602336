"""A trained objective as a checkpoint in the layout of its system's official code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.encoders import Encoder
from qscore_fast.encoders.containers import Container
from qscore_fast.encoders.published import published_encoder
from qscore_fast.errors import EncoderError
from qscore_fast.finetuning.objective import Objective
from qscore_fast.finetuning.objectives.crops import represent
from qscore_fast.finetuning.official_keys import WRITERS, Content
from qscore_fast.finetuning.solo_learn_keys import solo_learn
from qscore_fast.scoring.atomic import made_folder, replacing

_TOLERANCE = 1e-5
_FILE = "checkpoint.pth"


def export(
    objective: Objective, encoder: Encoder, path: str | os.PathLike[str], **beside: Any
) -> Path:
    """Write a checkpoint that ``load_encoder`` and the system's own tools read; whole or not at all.

    Args:
        objective: what was trained.
        encoder: what it was built from.
        path: a torch file, written over if it is there.
        beside: further entries of plain values, such as ``epoch=50``.

    Returns:
        The path.

    Raises:
        EncoderError: see ``official_state``.
        StoreError: the file cannot be written.
    """
    path = Path(path)
    content = {**beside, **official_state(objective, encoder, path.name)}
    made_folder(path.parent)
    with replacing(path) as temporary:
        torch.save(content, temporary)
    return path


def official_state(objective: Objective, encoder: Encoder, file_name: str = _FILE) -> Content:
    """The content of such a checkpoint, once it was read back and gave the same features and parts.

    Backbones, heads, queue and centre are under the keys of the system's official code (for SimCLR those
    of its PyTorch form; for SimCLR and BYOL those of mmpretrain where the network pads as PyTorch does,
    which the official one does not; those of solo-learn for what came from it and fits neither). Beside
    them, "qscore_fast" holds the transform of the images, which ``load_encoder`` takes from there.

    Args:
        objective: what was trained.
        encoder: what it was built from.
        file_name: the name that the file will have, for recognition may depend on it.

    Raises:
        EncoderError: no layout of the system holds this network or these heads; the text says why.
    """
    reasons = []
    official = (partial(writer, objective) for writer in WRITERS[objective.system])
    for write in (*official, partial(solo_learn, objective, encoder)):
        try:
            content = write()
            content["qscore_fast"] = {"preprocess": encoder.preprocess.to_json()}
            _read_back(content, objective, encoder, file_name)
            return content
        except EncoderError as error:
            reasons.append(f"{write.func.__name__}: {error}")
    raise EncoderError(
        f"no checkpoint layout of {objective.system} holds what was trained from {encoder.name} "
        f"({'; '.join(reasons)}): the layouts take ResNets and ViTs under torchvision's and timm's names, "
        "and the official heads"
    )


def _read_back(content: Content, objective: Objective, encoder: Encoder, file_name: str) -> None:
    container = Container(Path(file_name), "torch-zip", content)
    pool = getattr(objective.evaluated_backbone, "representation", None)
    read, _ = published_encoder(container, file_name, pool=None if pool == "cls" else pool)
    if read.system != objective.system:
        raise EncoderError(f"it would be taken for a checkpoint of {read.system or 'any system'}")
    assert read.training_state is not None
    tensors = read.training_state.tensors
    lost = [name for name in _expected(objective) if name not in tensors]
    if lost:
        raise EncoderError(f"it would lack {lost[0]}")
    images = torch.randn(
        2,
        encoder.preprocess.channels,
        *encoder.preprocess.output_size,
        generator=torch.Generator().manual_seed(0),
    )
    expected, found = _features(objective.evaluated_backbone, images), read(images)
    if not torch.allclose(
        found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())
    ):
        raise EncoderError(
            "the network that it describes computes other features, by its padding or its heads"
        )


def _expected(objective: Objective) -> Iterator[str]:
    """Names of TrainingState that must be there again: heads, and what goes with them."""
    for module, part in (
        ("projector", "online.projector"),
        ("predictor", "online.predictor"),
        ("ema_projector", "ema.projector"),
    ):
        head = getattr(objective, module, None)
        if isinstance(head, nn.Module):
            counters = "num_batches_tracked"
            yield from (f"{part}.{k}" for k in head.state_dict() if not k.endswith(counters))
    for name in ("queue", "center"):
        if isinstance(getattr(objective, name, None), Tensor) and objective.system != "swav":
            yield name


@torch.no_grad()
def _features(backbone: nn.Module, images: Tensor) -> Tensor:
    """In evaluation mode, on the CPU; the backbone is handed back as it was."""
    training = [module for module in backbone.modules() if module.training]
    device = next(backbone.parameters()).device
    backbone.eval()
    try:
        return represent(backbone, images.to(device)).float().cpu()
    finally:
        for module in training:
            module.training = True
