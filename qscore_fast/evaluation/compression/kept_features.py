"""KeptFeatures: the index list of a compressed representation, and its file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qscore_fast.errors import SettingsError, StoreError
from qscore_fast.scoring.atomic import write_text

_FORMAT = "qscore-fast.kept-features.1"
_MAX_FILE_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class KeptFeatures:
    """Some features of an encoder.

    Attributes:
        indices: (k,) int64 ascending, no two the same.
        num_features: r of the encoder.
        strategy: how they were chosen.
        fingerprint: of the encoder; None where it is not known.
    """

    indices: np.ndarray
    num_features: int
    strategy: str
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        indices = self.indices
        if (
            indices.ndim != 1
            or not len(indices)
            or indices.dtype != np.int64
            or (np.diff(indices) <= 0).any()
            or not 0 <= indices[0] <= indices[-1] < self.num_features
        ):
            raise SettingsError(
                f"features to keep are no ascending list of different indices below r = {self.num_features}"
            )

    def __len__(self) -> int:
        return len(self.indices)

    def apply(self, h: Any, fingerprint: str | None = None) -> Any:
        """``h[..., indices]`` of an array or tensor (..., r).

        Args:
            fingerprint: of the encoder that h is of (``run.features.fingerprint``, ``encoder.fingerprint``);
                needed where these features know theirs, for the r of two encoders is often the same.

        Raises:
            SettingsError: the last dimension is not r, or h is of another encoder, or of an unnamed one.
        """
        if h.shape[-1:] != (self.num_features,):
            raise SettingsError(
                f"h has shape {tuple(h.shape)}: these are features of an encoder with r = "
                f"{self.num_features}"
            )
        if fingerprint is None and self.fingerprint is not None:
            raise SettingsError(
                f"these are features of the encoder with fingerprint {self.fingerprint:.12}...: say that h "
                "is of the same one (fingerprint=run.features.fingerprint)"
            )
        if fingerprint is not None and self.fingerprint not in (None, fingerprint):
            raise SettingsError(
                f"these are features of another encoder (fingerprint {self.fingerprint:.12}..., that of h is "
                f"{fingerprint:.12}...): choose them again with qscore compress"
            )
        return h[..., self.indices]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, whole or not at all: format, num_features, strategy, fingerprint, indices."""
        content = {
            "format": _FORMAT,
            "num_features": self.num_features,
            "num_kept": len(self),
            "strategy": self.strategy,
            "fingerprint": self.fingerprint,
            "indices": self.indices.tolist(),
        }
        write_text(Path(path), json.dumps(content) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeptFeatures:
        """Read what ``save`` wrote.

        Raises:
            StoreError: no such file, or not one of these.
        """
        try:
            size = os.stat(path).st_size
            if size > _MAX_FILE_BYTES:
                raise ValueError(f"it has {size} bytes")
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}")
            fingerprint, indices = content["fingerprint"], content["indices"]
            if not (fingerprint is None or isinstance(fingerprint, str)):
                raise ValueError("its fingerprint is no string")
            if not isinstance(indices, list) or not all(type(i) is int for i in indices):
                raise ValueError("its indices are no whole numbers")
            return cls(
                np.array(indices, dtype=np.int64),
                int(content["num_features"]),
                str(content["strategy"]),
                fingerprint,
            )
        except FileNotFoundError:
            raise StoreError(f"{path} does not exist: write it with qscore compress") from None
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise StoreError(f"{path} is no list of kept features ({error})") from error
