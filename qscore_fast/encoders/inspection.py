"""What a checkpoint is: system, source, backbone, heads, preprocessing, and what was left out."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from qscore_fast.encoders.encoder import Encoder
from qscore_fast.encoders.load import Pool, read_checkpoint
from qscore_fast.encoders.training_state import Tower, TrainingState
from qscore_fast.encoders.weights import few
from qscore_fast.errors import EncoderError

_CONTAINERS = {
    "torch-zip": "PyTorch file",
    "torch-legacy": "PyTorch file, written before 1.6",
    "torch-tar": "PyTorch file, written before 0.2",
    "safetensors": "safetensors file",
    "pickle": "pickle",
    "tensorflow": "TensorFlow checkpoint",
}


@dataclass(frozen=True)
class Inspection:
    """A checkpoint, as ``load_encoder`` understands it.

    Attributes:
        path: the file.
        container: how it is written.
        system: the SSL system; None where the file does not tell.
        fits: the systems that it may be, where it does not.
        source: the repository or library whose layout it has.
        layout: that layout's key in docs/encoders.md.
        architecture: the backbone in words.
        num_features: r.
        tower: the one in use; ``towers`` are all that are there.
        heads: part -> its layers' widths, or its shape.
        preprocess: the images' transform, as JSON; ``preprocessing`` in words.
        ignored: reason -> the entries that were left out for it.
        stubs: objects in the file that were read as inert names: nothing of them was imported or run.
        notes: what a user should know.
        fingerprint: SHA-256 (hex) of architecture and weights.
    """

    path: str
    container: str
    system: str | None
    fits: tuple[str, ...]
    source: str
    layout: str
    architecture: str
    num_features: int
    tower: str | None
    towers: tuple[str, ...]
    heads: dict[str, str]
    preprocess: dict[str, Any]
    preprocessing: str
    ignored: dict[str, list[str]]
    stubs: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The fields for a person, one a line."""
        system = self.system or f"not told by the file; fits {', '.join(self.fits)}"
        tower = self.tower or "online"
        others = [other for other in self.towers if other != tower]
        also = f" (also there: {', '.join(others)})" if others else ""
        lines = [
            f"system      {system}",
            f"source      {self.source} ({self.container}, layout {self.layout})",
            f"backbone    {self.architecture}, r = {self.num_features:,}",
            f"tower       {tower}{also}",
            *_listed("heads", [f"{name}: {what}" for name, what in self.heads.items()], "none"),
            f"images      {self.preprocessing}",
            *_listed(
                "left out",
                [f"{few(names)} ({reason})" for reason, names in self.ignored.items()],
                "nothing",
            ),
        ]
        if self.stubs:
            lines.append(f"not run     {', '.join(self.stubs)}")
        lines += [f"note        {note}" for note in self.notes]
        lines.append(f"fingerprint {self.fingerprint}")
        return lines


def inspect_checkpoint(
    path: str | os.PathLike[str],
    system: str | None = None,
    *,
    tower: Tower | None = None,
    pool: Pool | None = None,
) -> Inspection:
    """Read and check a checkpoint as ``load_encoder`` does, and say what it is.

    Args:
        path, system, tower, pool: as ``load_encoder``.

    Raises:
        EncoderError, SettingsError, MissingExtraError: as ``load_encoder``.
    """
    name = os.fspath(path)
    if name.partition(":")[0] in ("demo", "timm", "torchvision") and not os.path.exists(path):
        raise EncoderError(
            f"{name} is no file to inspect: it can be loaded, scored with and measured"
        )
    encoder, container, found = read_checkpoint(path, name, system, tower, pool)
    return Inspection(
        path=name,
        container=_CONTAINERS.get(container.format, container.format),
        system=encoder.system,
        fits=found.fits if found else (),
        source=encoder.source or "unknown",
        layout=found.layout.key if found else "qscore-fast",
        architecture=encoder.architecture,
        num_features=encoder.num_features,
        tower=encoder.tower,
        towers=tuple(found.towers) if found else (),
        heads=_heads(encoder),
        preprocess=encoder.preprocess.to_json(),
        preprocessing=encoder.preprocess.describe(),
        ignored=_by_reason(found.ignored) if found else {},
        stubs=container.stubs,
        notes=encoder.notes,
        fingerprint=encoder.fingerprint,
    )


def _by_reason(ignored: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in ignored.items():
        reasons.setdefault(reason, []).append(name)
    return reasons


def _heads(encoder: Encoder) -> dict[str, str]:
    state = encoder.training_state
    if state is None:
        return {}
    return {part: _described(state, part) for part in state.parts if not part.endswith(".backbone")}


def _described(state: TrainingState, part: str) -> str:
    if part in state.tensors:
        return " x ".join(f"{side:,}" for side in state.tensors[part].shape)
    tensors = state.part(part)
    matrices = [
        t for name, t in sorted(tensors.items()) if name.startswith("linear") and t.ndim == 2
    ]
    if matrices:
        widths = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
        return " - ".join(map(str, widths)) + (" with batch norm" if _has_norm(tensors) else "")
    weight = tensors.get("weight_v", tensors.get("weight"))
    return "no tensors" if weight is None else " x ".join(f"{side:,}" for side in weight.shape)


def _has_norm(tensors: dict[str, Any]) -> bool:
    return any(name.startswith("norm") for name in tensors)


def _listed(title: str, items: list[str], nothing: str) -> list[str]:
    first, *rest = items or [nothing]
    return [f"{title:<12}{first}", *(f"{'':<12}{item}" for item in rest)]
