"""Text files of a data set, which may be anything: regular, not too large, UTF-8, or an error."""

from __future__ import annotations

from pathlib import Path

from qscore_fast.errors import ImageError, SourceError
from qscore_fast.images.decode import opened_file


def bounded_text(path: Path, most: int) -> str:
    """All of a file of at most ``most`` bytes; a byte order mark is dropped.

    Raises:
        SourceError: missing, no regular file, empty, larger, or not UTF-8.
    """
    try:
        with opened_file(path) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise SourceError(f"{path} is larger than {most:,} bytes, which no published file is")
        return content.decode("utf-8-sig")
    except ImageError as error:
        raise SourceError(f"{path} {error}") from None
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is no UTF-8 text: {error.reason} at byte {error.start}"
        ) from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from error
