"""Checkpoints of this project's own kind, such as the bundled encoder's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.encoders.networks import build_network, words
from qscore_fast.encoders.weights import checked_state
from qscore_fast.errors import EncoderError
from qscore_fast.images.preprocess import Preprocess

FORMAT = "qscore-fast.encoder"
FORMAT_VERSION = 1


def is_own(content: object) -> bool:
    """Whether a container's content is of this kind."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def own_encoder(content: Mapping[str, Any], name: str) -> Encoder:
    """The encoder, on the CPU, in float32.

    ``content`` has "format" ("qscore-fast.encoder"), "format_version" (1), "system" (str or None),
    "architecture" ({"name", "arguments"}), "num_features", "preprocess" (the fields of Preprocess) and
    "state_dict" (float16 or float32); other entries are left alone. The network is built only after
    its arguments were checked against bounds and its tensors against the file's.

    Raises:
        EncoderError: anything about it is not as it must be; the text says what.
    """
    if content.get("format_version") != FORMAT_VERSION:
        raise EncoderError(
            f"its format_version is {content.get('format_version')!r}; "
            f"this version of qscore-fast reads {FORMAT_VERSION}"
        )
    architecture = content.get("architecture")
    if not isinstance(architecture, Mapping):
        raise EncoderError(f"architecture must be a mapping, got {type(architecture).__name__}")
    module = build_network(architecture)
    module.load_state_dict(checked_state(content.get("state_dict"), module), assign=True)
    module.requires_grad_(False)
    num_features = content.get("num_features")
    if num_features != module.num_features:
        raise EncoderError(
            f"num_features is {num_features!r}, but the architecture has {module.num_features}"
        )
    system = content.get("system")
    if system is not None and not isinstance(system, str):
        raise EncoderError(f"system must be a name, got {system!r:.80}")
    fingerprint = fingerprint_of_module(module, json.dumps(architecture, sort_keys=True))
    return Encoder(
        module=module.eval(),
        preprocess=Preprocess.from_json(content.get("preprocess", {})),
        name=name,
        system=system,
        source="qscore-fast",
        architecture=words(architecture),
        fingerprint=fingerprint,
    )
