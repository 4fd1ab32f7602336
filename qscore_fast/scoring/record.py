"""run.json: what a run was asked for, and whether a second run asks for the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qscore_fast.errors import StoreError
from qscore_fast.images import Decoder, Source, Unit
from qscore_fast.images.sources.listing import ListedHash
from qscore_fast.images.sources.source import runs
from qscore_fast.scoring.atomic import write_text

if TYPE_CHECKING:
    from qscore_fast.encoders import Encoder

FORMAT = "qscore-fast.run"
FORMAT_VERSION = 1
LIBRARIES = (
    "qscore-fast",
    "torch",
    "torchvision",
    "timm",
    "pillow",
    "torchcodec",
    "numpy",
    "pyarrow",
)


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json.

    Attributes:
        asked: all that the parts depend on; a run is continued only if every field is the same.
        about: what may differ when a run is continued (the folder's path, the encoder's name), as
            it was when the run began.
        listing: the source's manifest, where it can tell; see ``describe_change``. Not in run.json.
    """

    asked: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    listing: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """SHA-256 (hex) of ``asked``; every part carries it."""
        # A one-sided run has the key of a record without the field: parts that carry that one stay valid.
        asked = {k: v for k, v in self.asked.items() if k != "two_sided" or v}
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def num_images(self) -> int | None:
        """How many images the source lists; None where only reading it tells."""
        return self.asked["source"]["num_images"]

    @property
    def num_units(self) -> int:
        """How many parts a complete run has."""
        source = self.asked["source"]
        if "num_units" in source:
            return source["num_units"]
        return -(-source["num_images"] // self.asked["unit_size"])

    def unit_rows(self, index: int) -> int | None:
        """How many images a unit has; None where only reading it tells."""
        source, size = self.asked["source"], self.asked["unit_size"]
        if "num_units" in source:
            return None
        return min(size, source["num_images"] - index * size)

    def write(self, path: Path) -> None:
        """Write run.json atomically."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **self.about}
        write_text(path, json.dumps({**content, "asked": self.asked}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> RunRecord:
        """Read run.json; one without ``two_sided`` is of a one-sided run.

        Raises:
            StoreError: missing, damaged, or of another version.
        """
        remedy = "give another folder, or start over with overwrite (--overwrite)"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{path.parent} holds no run of qscore (no run.json)") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}): {remedy}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise StoreError(f"{path} was not written by qscore: {remedy}")
        if content.get("format_version") != FORMAT_VERSION or "asked" not in content:
            raise StoreError(
                f"{path} has format version {content.get('format_version')!r}, "
                f"this qscore-fast reads {FORMAT_VERSION}: {remedy}"
            )
        about = {k: v for k, v in content.items() if k not in ("format", "format_version", "asked")}
        return cls({"two_sided": False, **content["asked"]}, about)


def describe_run(
    source: Source,
    units: Sequence[Unit],
    encoder: Encoder,
    *,
    unit_size: int,
    activation_eps: float,
    two_sided: bool,
    embeddings: str,
    decoder: Decoder,
) -> RunRecord:
    """The record of a run over the ``units`` of ``source`` that is about to start."""
    listed: dict[str, Any] = {
        "kind": source.kind,
        "num_images": source.num_samples,
        "manifest_hash": str(source.manifest_hash),
    }
    if not _is_regular(source, units, unit_size):
        listed["num_units"] = len(units)
    asked = {
        "source": listed,
        "encoder": {
            "fingerprint": encoder.fingerprint,
            "num_features": encoder.num_features,
            "dtype": encoder.precision,
        },
        "preprocess": encoder.preprocess.to_json(),
        **({} if encoder.view is None else {"view": encoder.view}),
        "decoder": decoder.to_json(),
        "unit_size": unit_size,
        "activation_eps": activation_eps,
        "two_sided": two_sided,
        "embeddings": embeddings,
    }
    about = {
        "source_root": source.location,
        "has_labels": source.has_labels,
        "source_notes": source.notes,
        "encoder_name": encoder.name,
        "encoder_system": encoder.system,
        "decoder_version": f"{decoder.name} {decoder.version}",
        "versions": library_versions(),
    }
    manifest = source.manifest_hash
    return RunRecord(asked, about, manifest.listing if isinstance(manifest, ListedHash) else None)


def _is_regular(source: Source, units: Sequence[Unit], unit_size: int) -> bool:
    """Whether the units are runs of ``unit_size`` images, so that a record need not say how many."""
    if source.num_samples is None:
        return False
    sizes = [len(run) for run in runs(source.num_samples, unit_size)]
    return [unit.num_samples for unit in units] == sizes


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One "field: old value -> new value" for each field in which two records differ."""
    found = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return found


def library_versions() -> dict[str, str]:
    """The versions of the libraries that the numbers depend on, where they are installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
