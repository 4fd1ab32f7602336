"""scores.parquet and errors.parquet: what a run's parts and its D say about every image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import StoreError
from qscore_fast.features import DiscriminativeFeatures
from qscore_fast.scoring.atomic import replacing
from qscore_fast.scoring.part import STATS, Part
from qscore_fast.scoring.record import library_versions
from qscore_fast.scoring.store import Store

SCORES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("q_score", pa.float32(), nullable=False),
        pa.field("num_active", pa.int32(), nullable=False),
        pa.field("num_highly_active", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32()) for name in STATS),
    ]
)
ERRORS = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("sample_id", "stage", "error")]
)


def features_hash(features: DiscriminativeFeatures) -> str:
    """SHA-256 (hex) of D, its eps and sides, and its encoder."""
    sides = " two-sided" if features.two_sided else ""
    digest = hashlib.sha256(f"{features.eps!r} {features.fingerprint}{sides}\n".encode())
    digest.update(np.packbits(features.mask.cpu().numpy()).data)
    return digest.hexdigest()


def scores_of_part(part: Part, mask: np.ndarray, eps: float) -> pa.Table:
    """The scores of a part's OK rows.

    Q is the mean of the distances in L (z > eps, strictly) and D, and 0 where there are none.

    Args:
        mask: D, bool (r,).
        eps: at least the part's activation_eps.
    """
    num_rows = len(part.ok)
    highly_active = part.z > eps
    active = highly_active & mask[part.feature]
    num_active = np.bincount(part.row[active], minlength=num_rows)
    total = np.bincount(part.row[active], part.distance[active], minlength=num_rows)
    return pa.Table.from_arrays(
        [
            part.ok["sample_id"].combine_chunks(),
            part.ok["label"].combine_chunks(),
            pa.array((total / np.maximum(num_active, 1)).astype(np.float32)),
            pa.array(num_active.astype(np.int32)),
            pa.array(np.bincount(part.row[highly_active], minlength=num_rows).astype(np.int32)),
            *(part.ok[name].combine_chunks() for name in STATS),
        ],
        schema=SCORES,
    )


@dataclass(frozen=True)
class ScoresHeader:
    """What scores.parquet says about itself, as key-value metadata under ``qscore_fast.``.

    Attributes:
        run: the key of the run's record.
        request: how eps and D were asked for, so that the same request need not be answered twice.
        eps: the one in use.
        features_hash, encoder_fingerprint: which D, which encoder.
        notes: what the user was told.
        version: of qscore-fast.
    """

    run: str
    request: dict[str, Any]
    eps: float
    features_hash: str
    encoder_fingerprint: str
    notes: list[str]
    version: str = field(default_factory=lambda: library_versions().get("qscore-fast", "unknown"))

    @classmethod
    def read(cls, path: Path) -> ScoresHeader | None:
        """The header of a scores.parquet; None if it is missing, damaged or of another kind."""
        try:
            found = pq.read_schema(path).metadata or {}
            return cls(**{f.name: json.loads(found[_header_key(f.name)]) for f in fields(cls)})
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None

    def metadata(self) -> dict[bytes, bytes]:
        """Each field as JSON."""
        return {_header_key(key): json.dumps(value).encode() for key, value in asdict(self).items()}


def _header_key(name: str) -> bytes:
    return f"qscore_fast.{name}".encode()


def write_scores(store: Store, features: DiscriminativeFeatures, header: ScoresHeader) -> None:
    """Write scores.parquet, one part in memory at a time."""
    mask = features.mask.cpu().numpy()
    schema = SCORES.with_metadata(header.metadata())
    with (
        replacing(store.path / "scores.parquet") as temporary,
        pq.ParquetWriter(
            temporary, schema, use_dictionary=["label"], write_page_checksum=True
        ) as writer,
    ):
        for part in store.parts():
            table = scores_of_part(part, mask, features.eps)
            writer.write_table(table.replace_schema_metadata(schema.metadata))


def write_errors(store: Store) -> None:
    """Write errors.parquet: one row for each image without a score."""
    with (
        replacing(store.path / "errors.parquet") as temporary,
        pq.ParquetWriter(temporary, ERRORS, write_page_checksum=True) as writer,
    ):
        for notes in store.part_notes():
            if notes["errors"]:
                writer.write_table(pa.Table.from_pylist(notes["errors"], schema=ERRORS))


def read_result(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A finished table, or some of its columns.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise StoreError(
            f"{path} is missing or damaged ({reason}): run the same qscore score again"
        ) from error
