"""The name that ImageNet gave an image, from what any copy of ImageNet calls it."""

from __future__ import annotations

import re

from qscore_fast.images import Sample

NAME = re.compile(r"n[0-9]{8}_[0-9]{1,10}")
"""An image of ImageNet's training set, without extension: n01440764_10026."""

# Hugging Face's Parquet files repeat the wnid at the end.
_FILE = re.compile(rf"(?:.*/)?({NAME.pattern})(?:_n[0-9]{{8}})?\.[A-Za-z]{{3,5}}", re.DOTALL)


def published_name(text: str | None) -> str | None:
    """``n01440764_10026`` of a path, file name or sample id; None if it holds no such name.

    ``train/n01440764/n01440764_10026.JPEG`` and ``n01440764_10026_n01440764.JPEG`` are the same image.
    """
    match = _FILE.fullmatch(text or "")
    return None if match is None else match[1]


def name_of(sample: Sample) -> str | None:
    """That of a sample, by its file's name where the source knows one, otherwise by its id."""
    return published_name(sample.file_name) or published_name(sample.sample_id)
