"""An encoder from a published checkpoint, once its layout is recognised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from qscore_fast.encoders.containers import Container
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.layouts import Recognised, recognise
from qscore_fast.encoders.networks import build_network, infer_architecture, timm_state, words
from qscore_fast.encoders.training_state import Tower, TrainingState
from qscore_fast.encoders.weights import checked_state
from qscore_fast.errors import EncoderError
from qscore_fast.images import Preprocess

TOWERS = ("online", "ema")
_NON_NEGATIVE = ("resnet", "simclr_v2_resnet")
SIGNED = (
    "its features have both signs, which the paper does not treat: score them two-sided "
    "(two_sided=True, --two-sided)"
)


def published_encoder(
    container: Container,
    name: str,
    system: str | None = None,
    tower: Tower | None = None,
    pool: str | None = None,
) -> tuple[Encoder, Recognised]:
    """Recognise, build, check and load, on the CPU in float32.

    Raises:
        EncoderError: see ``load_encoder``.
        MissingExtraError: a ViT, and timm is not installed.
    """
    recognised = recognise(container, system)
    layout = recognised.layout
    chosen = tower or layout.tower
    if chosen not in recognised.towers:
        there = " and ".join(recognised.towers)
        if tower is not None:
            raise EncoderError(f"it has no {tower} tower, only {there}: leave tower (--tower) out")
        raise EncoderError(
            f"its {chosen} tower, which {layout.system} evaluates, is missing: take tower={there}"
        )
    architecture, state = _network_of(recognised, chosen, pool)
    module = build_network(architecture)
    module.load_state_dict(checked_state(state, module), assign=True)
    module.requires_grad_(False)
    others = {
        f"{other}.backbone.{key}": value
        for other, tensors in recognised.towers.items()
        if other != chosen
        for key, value in tensors.items()
    }
    encoder = Encoder(
        module=module.eval(),
        preprocess=_own_preprocess(container.content) or layout.preprocess,
        name=name,
        system=recognised.system,
        num_features=int(module.num_features),  # type: ignore[arg-type]
        fingerprint=fingerprint_of_module(module, json.dumps(architecture, sort_keys=True)),
        tower=chosen,
        source=layout.source,
        architecture=words(architecture),
        training_state=TrainingState({**recognised.tensors, **others}, layout.activation),
        notes=_notes(recognised, architecture),
    )
    return encoder, recognised


def _own_preprocess(content: Any) -> Preprocess | None:
    """The transform that ``qscore_fast.finetuning.export`` puts beside the official keys."""
    own = content.get("qscore_fast") if isinstance(content, Mapping) else None
    if not isinstance(own, Mapping) or "preprocess" not in own:
        return None
    return Preprocess.from_json(own["preprocess"])


def _network_of(
    recognised: Recognised, tower: str, pool: str | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    layout, state = recognised.layout, timm_state(recognised.towers[tower])
    if pool is not None and any(key.startswith("layer1.") for key in state):
        raise EncoderError(
            f"pool={pool} is for transformers, a ResNet averages its map: leave it out"
        )
    num_heads = None
    if layout.num_heads is not None and "cls_token" in state and state["cls_token"].ndim:
        num_heads = layout.num_heads(state["cls_token"].shape[-1])
    architecture = infer_architecture(
        state,
        padding=layout.padding,
        stem_padding=layout.stem_padding,
        num_heads=num_heads,
        pool=pool or "cls",
    )
    return architecture, state


def _notes(recognised: Recognised, architecture: dict[str, Any]) -> tuple[str, ...]:
    notes = list(recognised.notes)
    if recognised.system is None:
        notes.insert(
            0,
            f"the file does not tell its system; its layout is that of {', '.join(recognised.fits)}",
        )
    if architecture["name"] not in _NON_NEGATIVE:
        notes.append(SIGNED)
    return tuple(notes)
