"""Checkpoints of this project's own kind. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qscore_fast.encoders.architectures import build_on_meta
from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.fingerprint import fingerprint_of_module
from qscore_fast.errors import EncoderError, SettingsError
from qscore_fast.images.preprocess import Preprocess

FORMAT = "qscore-fast.encoder"
FORMAT_VERSION = 1
MAX_BYTES = 4 * 2**30


def load_checkpoint(path: str | os.PathLike[str], name: str | None = None) -> Encoder:
    """Load an encoder from a file of this project's kind, on the CPU, in float32.

    The file is what ``torch.save`` writes for a dict with "format" ("qscore-fast.encoder"),
    "format_version" (1), "system" (str or None), "architecture" ({"name", "arguments"}),
    "num_features", "preprocess" (the fields of Preprocess) and "state_dict" (float16 or float32);
    other entries are left alone.

    It is read with ``torch.load(weights_only=True)`` after its size, and the size of what it
    unpacks to, were checked; the network is built only after its arguments were checked against
    bounds and its tensors against the file's.

    Args:
        path: the file.
        name: what to call the encoder; the path by default.

    Raises:
        EncoderError: anything about the file is not as it must be; the text says what.
    """
    name = name or os.fspath(path)
    try:
        content = _read(Path(path))
        return _encoder(content, name)
    except (EncoderError, SettingsError) as error:
        raise EncoderError(f"cannot load the checkpoint {name}: {error}") from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise EncoderError("it is not a file")
        if size == 0:
            raise EncoderError("the file is empty")
        if not zipfile.is_zipfile(path):
            raise EncoderError("it is not a checkpoint written by torch.save")
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if max(size, unpacked) > MAX_BYTES:
            raise EncoderError(f"{max(size, unpacked):,} bytes is above the limit of {MAX_BYTES:,}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EncoderError(error.strerror or str(error)) from error
    except pickle.UnpicklingError as error:
        raise EncoderError(
            "it holds objects other than tensors and plain values; refused, nothing was executed"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        if isinstance(error, EncoderError):
            raise
        reason = str(error).strip().split("\n")[0]
        raise EncoderError(f"it is not a readable checkpoint ({reason})") from error
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise EncoderError(f'it is not of the kind "{FORMAT}" (its "format" says otherwise)')
    if content.get("format_version") != FORMAT_VERSION:
        raise EncoderError(
            f"its format_version is {content.get('format_version')!r}; "
            f"this version of qscore-fast reads {FORMAT_VERSION}"
        )
    return content


def _encoder(content: Mapping[str, Any], name: str) -> Encoder:
    module = build_on_meta(content.get("architecture"))
    state = _checked_state(content.get("state_dict"), module)
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False)
    num_features = content.get("num_features")
    if num_features != module.num_features:
        raise EncoderError(
            f"num_features is {num_features!r}, but the architecture has {module.num_features}"
        )
    system = content.get("system")
    if system is not None and not isinstance(system, str):
        raise EncoderError(f"system must be a name, got {system!r:.80}")
    fingerprint = fingerprint_of_module(module, json.dumps(content["architecture"], sort_keys=True))
    return Encoder(
        module=module.eval(),
        preprocess=Preprocess.from_json(content.get("preprocess", {})),
        name=name,
        system=system,
        fingerprint=fingerprint,
    )


def _checked_state(state: object, module: nn.Module) -> dict[str, Tensor]:
    """The checkpoint's tensors in float32, once names, shapes and values are known to fit."""
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise EncoderError("its state_dict must map names to tensors")
    expected = module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(map(str, state.keys() - expected.keys()))
    if missing or unknown:
        raise EncoderError(
            f"its weights do not fit the architecture: missing {_few(missing)}; "
            f"not known {_few(unknown)}"
        )
    checked = {}
    for key, wanted in expected.items():
        value = state[key]
        if value.shape != wanted.shape or value.is_floating_point() != wanted.is_floating_point():
            raise EncoderError(
                f"{key} is {value.dtype} {tuple(value.shape)}, "
                f"the architecture needs {wanted.dtype} {tuple(wanted.shape)}"
            )
        checked[key] = value.to(wanted.dtype)
        if not checked[key].isfinite().all():
            raise EncoderError(f"{key} holds NaN or infinite weights")
    return checked


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
