"""What the committed TensorFlow checkpoint holds: names, types, shapes, and values by a formula."""

from __future__ import annotations

import numpy as np

VARIABLES: dict[str, tuple[str, tuple[int, ...]]] = {
    "base_model/conv2d/kernel": ("float32", (3, 3, 4, 5)),
    "base_model/conv2d_1/kernel": ("float32", (1, 1, 5, 7)),
    "base_model/batch_normalization/gamma": ("float32", (5,)),
    "base_model/batch_normalization/moving_variance": ("float32", (5,)),
    "head/half": ("float16", (2, 3)),
    "head/brain": ("bfloat16", (3, 2)),
    "head/double": ("float64", (4,)),
    "head/bytes": ("uint8", (6,)),
    "head/small": ("int8", (6,)),
    "head/short": ("int16", (3,)),
    "head/mask": ("bool", (3, 3)),
    "head/count": ("int32", (2, 2)),
    "head/empty": ("float32", (0, 4)),
    "embedding/rows": ("float32", (200, 2)),
    "embedding/columns": ("float32", (3, 10)),
    "global_step": ("int64", ()),
    **{f"many/layer_{i:02d}/kernel": ("float32", (2, i)) for i in range(1, 40)},
}
PARTITIONED = {"embedding/rows": (3, 1), "embedding/columns": (1, 4)}


def value(name: str) -> np.ndarray:
    """The variable's values in float64; all are exact in every type that is used."""
    dtype, shape = VARIABLES[name]
    steps = np.arange(np.prod(shape, dtype=int)) * 37 + 11 * len(name)
    if dtype == "bool":
        return (steps % 3 == 0).reshape(shape).astype("float64")
    if np.dtype("float64" if dtype == "bfloat16" else dtype).kind in "iu":
        return (steps % 101).reshape(shape).astype("float64")
    return ((steps % 101 - 50) / 8).reshape(shape)
