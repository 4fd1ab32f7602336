"""Sample ids: relative paths as valid UTF-8 text, from which the path's bytes can be had back."""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\(\\|x[0-9a-f]{2})")


def sample_id_of_path(path: bytes) -> str:
    r"""The id of a relative path with ``/`` separators.

    Bytes that are not UTF-8 become ``\xNN`` and a backslash becomes ``\\``, so two paths never share
    an id, and every id can be stored, joined on and turned back by :func:`path_of_sample_id`.
    """
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_of_sample_id(sample_id: str) -> bytes:
    """The relative path's bytes: the inverse of :func:`sample_id_of_path`."""

    def unescape(match: re.Match[bytes]) -> bytes:
        text = match[1]
        return text if text == b"\\" else bytes([int(text[1:], 16)])

    return _ESCAPE.sub(unescape, sample_id.encode("utf-8"))
