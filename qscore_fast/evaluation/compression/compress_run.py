"""compress_run: the reduced representations of a run as files, beside the list of what was kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.compression.kept_features import KeptFeatures
from qscore_fast.evaluation.compression.selection import (
    Strategy,
    column_variances,
    dead_note,
    kept_indices,
)
from qscore_fast.evaluation.feature_rows import FeatureRows
from qscore_fast.evaluation.finite_rows import FiniteRows
from qscore_fast.evaluation.knn.index import faiss_module
from qscore_fast.evaluation.knn.search import unit_blocks
from qscore_fast.evaluation.sample_file import ID
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.atomic import made_folder, replacing

FileFormat = Literal["npy", "parquet"]
IndexKind = Literal["none", "flat", "fp16"]
BLOCK = 8192


@dataclass(frozen=True)
class CompressedRun:
    """What was written.

    Attributes:
        kept: the features.
        num_rows: N.
        bytes_before: of N rows of r features, as the run holds them.
        bytes_after: of the reduced representations' file.
        index_bytes: of the FAISS index's file; None without one.
        full_index_bytes: of the same index of all r features: its entries alone, without the file's header.
        files: in the order in which they were written.
        num_dead: of the kept features, those that are never active in the run's census.
        notes: what a user should know, one sentence each.
    """

    kept: KeptFeatures
    num_rows: int
    bytes_before: int
    bytes_after: int
    index_bytes: int | None
    full_index_bytes: int | None
    files: tuple[Path, ...]
    num_dead: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "num_features": self.kept.num_features,
            "num_kept": len(self.kept),
            "num_dead": self.num_dead,
            "strategy": self.kept.strategy,
            "num_rows": self.num_rows,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "index_bytes": self.index_bytes,
            "full_index_bytes": self.full_index_bytes,
            "notes": list(self.notes),
            "files": [str(path) for path in self.files],
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        kept, r = len(self.kept), self.kept.num_features
        found = [
            f"kept {kept:,} of {r:,} features ({100 * kept / r:.1f} %) by {self.kept.strategy}, "
            f"{self.num_rows:,} images",
            f"representations {_mib(self.bytes_before)} -> {_mib(self.bytes_after)} MiB",
        ]
        if self.index_bytes is not None and self.full_index_bytes is not None:
            found.append(f"index {_mib(self.full_index_bytes)} -> {_mib(self.index_bytes)} MiB")
        return [*found, *(f"note: {note}" for note in self.notes)]


def compress_run(
    run: str | os.PathLike[str] | ScoreRun,
    out: str | os.PathLike[str],
    *,
    keep: float | None = None,
    strategy: Strategy = "discriminative",
    file_format: FileFormat = "npy",
    index: IndexKind = "none",
    seed: int = 0,
    finite_only: bool = False,
) -> CompressedRun:
    """Write the kept features of every representation of a run, part by part.

    Writes ``kept.json`` (:class:`KeptFeatures`), and ``embeddings.npy`` (N, k) float16 with
    ``sample_ids.parquet`` in the same order, or ``embeddings.parquet`` with both. ``index.faiss`` holds the
    rows at length 1 for inner products, that is cosines: in float32 (``flat``) or float16 (``fp16``); row i
    is image i.

    Args:
        run: a finished run with embeddings, or its folder.
        out: the folder to write to; made if missing.
        keep: the share of the features to keep, above 0, at most 1; None keeps the run's discriminative
            features D as they are.
        strategy: see ``kept_indices``.
        file_format: of the representations.
        index: the FAISS index, if any.
        seed: of ``random``.
        finite_only: leave images with NaN or Inf out instead of refusing the run.

    Raises:
        SettingsError: a setting out of range, a strategy without a share, an empty D, a strategy by activity
            where no feature is ever active, or NaN or Inf.
        StoreError: no complete run, no embeddings, or a folder that cannot be written.
        MissingExtraError: an index without FAISS.
    """
    if file_format not in get_args(FileFormat) or index not in get_args(IndexKind):
        raise SettingsError(
            f"format is {file_format!r} and index {index!r}: give one of {', '.join(get_args(FileFormat))} "
            f"and one of {', '.join(get_args(IndexKind))}"
        )
    faiss = None if index == "none" else faiss_module()
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    finite = FiniteRows.of(run, finite_only=finite_only)
    rows = finite.rows
    kept = _kept(run, rows, keep, strategy, seed)
    reduced = rows.select(kept.indices)
    folder = made_folder(out)

    counts = run.features.counts.numpy()
    note = dead_note(kept.strategy, kept.indices, counts)
    ids = finite.take(run.scores()[ID].combine_chunks())
    data = folder / f"embeddings.{file_format}"
    with replacing(data) as temporary:
        if file_format == "npy":
            _write_npy(reduced, temporary)
        else:
            _write_parquet(reduced, ids, temporary)
    files = [data]
    if file_format == "npy":
        files.append(folder / "sample_ids.parquet")
        with replacing(files[-1]) as temporary:
            pq.write_table(pa.table({ID: ids}), temporary, compression="zstd")
    index_bytes = full_index_bytes = None
    if faiss is not None:
        files.append(folder / "index.faiss")
        with replacing(files[-1]) as temporary:
            _write_index(faiss, index, reduced, temporary)
        index_bytes = files[-1].stat().st_size
        full_index_bytes = len(rows) * rows.num_features * (4 if index == "flat" else 2)
    # Last: where the list is, everything that it describes is.
    files.append(folder / "kept.json")
    kept.save(files[-1])
    return CompressedRun(
        kept, len(rows), rows.num_bytes, data.stat().st_size, index_bytes, full_index_bytes,
        tuple(files), int((counts[kept.indices] == 0).sum()),
        (*finite.notes, *([note] if note else [])),
    )  # fmt: skip


def _kept(
    run: ScoreRun, rows: FeatureRows, keep: float | None, strategy: Strategy, seed: int
) -> KeptFeatures:
    features = run.features
    if keep is None:
        if strategy != "discriminative":
            raise SettingsError(f"strategy {strategy} keeps no set of its own size: give keep")
        if not len(features):
            raise SettingsError(
                "the run has no discriminative features: give keep, or discover them at another eps"
            )
        chosen = features.indices.numpy()
    else:
        variances = column_variances(rows) if strategy == "variance" else None
        counts = features.counts.numpy()
        chosen = kept_indices(strategy, keep, counts, variances=variances, seed=seed)
    return KeptFeatures(chosen, features.num_features, strategy, features.fingerprint)


def _write_npy(rows: FeatureRows, path: Path) -> None:
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(rows), rows.num_features)}
        np.lib.format.write_array_header_1_0(file, header)
        for block in rows.blocks(BLOCK):
            file.write(np.ascontiguousarray(block, "<f2").data)


def _write_parquet(rows: FeatureRows, ids: pa.Array, path: Path) -> None:
    kind = pa.list_(pa.float16(), rows.num_features)
    schema = pa.schema([(ID, pa.string()), ("embedding", kind)])
    start = 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False) as writer:
        for block in rows.blocks(BLOCK):
            flat = pa.array(np.ascontiguousarray(block, np.float16).reshape(-1))
            vectors = pa.FixedSizeListArray.from_arrays(flat, rows.num_features)
            names = ids.slice(start, len(block))
            writer.write_table(pa.table([names, vectors], schema=schema))
            start += len(block)


def _write_index(faiss: Any, kind: IndexKind, rows: FeatureRows, path: Path) -> None:
    r = rows.num_features
    if kind == "flat":
        index = faiss.IndexFlatIP(r)
    else:
        index = faiss.IndexScalarQuantizer(
            r, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    for block in unit_blocks(rows, BLOCK):
        index.add(block)
    faiss.write_index(index, str(path))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"
