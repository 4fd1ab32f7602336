"""Embeddings of a finished part with other content, as if the encoder had given it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np


def save_embeddings(part: Path, rows: np.ndarray) -> None:
    """Put rows in the place of a part's ``.npy``, with the checksum in its notes."""
    np.save(part, rows)
    notes = part.with_suffix(".json")
    content = json.loads(notes.read_text())
    assert "embeddings_crc32" in content
    content["embeddings_crc32"] = zlib.crc32(part.read_bytes())
    notes.write_text(json.dumps(content, indent=2) + "\n")
