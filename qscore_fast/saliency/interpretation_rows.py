"""The rows of an interpretation: one an image, the measures of each encoder in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from qscore_fast.errors import ImageError
from qscore_fast.saliency.masked_images import MaskedImage
from qscore_fast.saliency.overlap import MEASURES, REASONS, Overlap
from qscore_fast.saliency.salient_imagenet import SalientImageNet

BASE, COMPARED = "", "compare_"
"""What the columns of the first and of the second encoder begin with."""

KINDS = ("core", "spurious")
NO_MASK = "no mask"


def prefixes(num_encoders: int) -> tuple[str, ...]:
    """Of the columns of one or two encoders."""
    return (BASE, COMPARED)[:num_encoders]


def measure_column(prefix: str, kind: str, measure: str) -> str:
    """The name of a measure's column."""
    return f"{prefix}{kind}_{measure}"


def part_schema(num_encoders: int) -> pa.Schema:
    """The columns of a part: those of interpretation.parquet, and stage and error of bad images."""
    fields = [(name, pa.string()) for name in ("sample_id", "name", "wnid", "label")]
    for prefix in prefixes(num_encoders):
        fields += [(f"{prefix}q_score", pa.float32()), (f"{prefix}num_features", pa.int32())]
        for kind in KINDS:
            fields += [(measure_column(prefix, kind, m), pa.float32()) for m in MEASURES]
            fields.append((f"{prefix}{kind}_undefined", pa.string()))
    return pa.schema([*fields, ("stage", pa.string()), ("error", pa.string())])


class PartRows:
    """The rows of one part while they are filled."""

    def __init__(self, salient: SalientImageNet, num_encoders: int) -> None:
        self._salient = salient
        self._schema = part_schema(num_encoders)
        self._rows: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add_error(self, image: MaskedImage, error: ImageError) -> None:
        """An image without measures."""
        self._rows.append({**self._start(image), "stage": error.stage, "error": str(error)})

    def add(
        self,
        images: Sequence[MaskedImage],
        q_scores: Sequence[np.ndarray],
        num_features: Sequence[Sequence[int]],
        overlaps: Sequence[Sequence[Overlap]],
    ) -> None:
        """A batch.

        Args:
            q_scores, num_features: by encoder, then image.
            overlaps: by encoder, then kind; of images without a mask of that kind they are ignored.
        """
        found = [
            [(o.values.cpu().numpy(), o.undefined.cpu().numpy()) for o in kinds]
            for kinds in overlaps
        ]
        for row, image in enumerate(images):
            content = self._start(image)
            assert image.masks is not None
            masks = (image.masks.core, image.masks.spurious)
            for encoder, prefix in enumerate(prefixes(len(found))):
                content[f"{prefix}q_score"] = _number(q_scores[encoder][row])
                content[f"{prefix}num_features"] = num_features[encoder][row]
                for kind, mask, (values, undefined) in zip(
                    KINDS, masks, found[encoder], strict=True
                ):
                    content[f"{prefix}{kind}_undefined"] = (
                        NO_MASK if mask is None else _words(undefined[row])
                    )
                    for measure, value in zip(MEASURES, values[row], strict=True):
                        name = measure_column(prefix, kind, measure)
                        content[name] = None if mask is None else _number(value)
            self._rows.append(content)

    def table(self) -> pa.Table:
        """All rows, in the order in which they were added."""
        return pa.Table.from_pylist(self._rows, self._schema)

    def _start(self, image: MaskedImage) -> dict[str, Any]:
        return {
            "sample_id": image.sample_id,
            "name": self._salient.name(image.place),
            "wnid": self._salient.wnid(image.place),
            "label": image.label,
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _words(reasons: np.ndarray) -> str | None:
    """Why measures of an image are undefined: one reason for all, or which one for what."""
    if not reasons.any():
        return None
    if (reasons == reasons[0]).all():
        return REASONS[reasons[0]]
    return "; ".join(
        f"{measure}: {REASONS[reason]}"
        for measure, reason in zip(MEASURES, reasons, strict=True)
        if reason
    )
