"""safetensors files, by the library of that name."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from qscore_fast.errors import EncoderError


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, as views of the mapped file, and the header's texts.

    The library bounds the header (100 MB) and checks that the tensors' places in the file fit
    their shapes, do not overlap and fill it.

    Raises:
        EncoderError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise EncoderError(f"it is not a sound safetensors file ({str(error)[:120]})") from error
