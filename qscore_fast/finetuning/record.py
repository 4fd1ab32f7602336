"""finetune.json: what a training was asked for, and whether a second call asks for the same."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from qscore_fast.encoders import Encoder
from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.finetuning.plan import Plan
from qscore_fast.finetuning.settings import Settings
from qscore_fast.images import Source
from qscore_fast.scoring.atomic import made_folder, write_text
from qscore_fast.scoring.record import differences, library_versions

NAME = "finetune.json"
FORMAT = "qscore-fast.finetune"
WRITTEN = (
    "checkpoints",
    "features",
    "tensorboard",
    "bad_images.jsonl",
    "curves.png",
    "curves.svg",
    "log.jsonl",
    "num_images.json",
)
"""What a training leaves in its folder besides the record."""


def describe(
    settings: Settings,
    plan: Plan,
    encoder: Encoder,
    system: str,
    source: Source,
    features: DiscriminativeFeatures | None,
) -> dict[str, Any]:
    """Everything that the numbers of a training depend on, but for the number of processes."""
    asked = {
        "system": system,
        "encoder": {"fingerprint": encoder.fingerprint, "num_features": encoder.num_features},
        "preprocess": encoder.preprocess.to_json(),
        "source": {"kind": source.kind, "manifest_hash": source.manifest_hash},
        "features": None if features is None else _digest(features),
        "settings": settings.asked(),
        "plan": plan.to_json(),
    }
    return dict(json.loads(json.dumps(asked)))


def agree(folder: Path, asked: dict[str, Any], about: dict[str, Any], *, write: bool) -> None:
    """Write the record of a new training, or compare with that of the one in the folder.

    Args:
        about: what may differ. write: whether this process may write.

    Raises:
        SettingsError: the training in the folder was asked for something else; the text names it.
        StoreError: the folder cannot be read or written.
    """
    path = folder / NAME
    found = read(folder)
    if found is not None:
        changed = differences(found["asked"], asked)
        if changed:
            raise SettingsError(
                f"{folder} holds a training with other settings ({'; '.join(changed[:4])}): give the same, "
                "another folder (--out), or start over with overwrite (--overwrite)"
            )
        return
    if write:
        made_folder(folder)
        content = {"format": FORMAT, **about, "versions": library_versions(), "asked": asked}
        write_text(path, json.dumps(content, indent=1) + "\n")


def clear(folder: Path) -> None:
    """Delete the training in a folder, and nothing else that lies there; the record last.

    Raises:
        StoreError: something cannot be deleted.
    """
    if not (folder / NAME).exists():
        return
    try:
        for name in WRITTEN:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (folder / NAME).unlink()
    except OSError as error:
        raise StoreError(f"cannot delete {error.filename}: {error.strerror}") from error


def read(folder: Path) -> dict[str, Any] | None:
    """The record in a folder, or None.

    Raises:
        StoreError: it is damaged.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}): give another folder (--out)") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "asked" not in content:
        raise StoreError(f"{path} was not written by qscore finetune: give another folder (--out)")
    return content


def _digest(features: DiscriminativeFeatures) -> dict[str, Any]:
    mask = features.mask.cpu().numpy().tobytes()
    return {
        "mask": hashlib.sha256(mask).hexdigest(),
        "eps": features.eps,
        "two_sided": features.two_sided,
    }
