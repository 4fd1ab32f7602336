"""``class_list``: the classes that a file names."""

from __future__ import annotations

import importlib.resources
import os
import re

from qscore_fast.errors import SettingsError

BUILT_IN = ("imagenet100",)

MAX_BYTES = 1 << 24
_WNID = re.compile(r"(n\d{8})\s")


def class_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes of a file, in its order, each once.

    One class a line, as the labels show it; blank lines and lines that begin with ``#`` are passed over.
    Of a line that begins with a WordNet id, such as ``n02869837 bonnet``, only the id counts.

    Args:
        path: a text file in UTF-8, or "imagenet100": the 100 WordNet ids of ImageNet-100.

    Raises:
        SettingsError: the file is missing, unreadable, too large for a list of classes, or names none.
    """
    name = os.fspath(path)
    if name in BUILT_IN:
        bundled = importlib.resources.files("qscore_fast.images.sources") / "data" / f"{name}.txt"
        content = bundled.read_bytes()
    else:
        content = _read(name)
    text = content.decode("utf-8-sig", "backslashreplace")
    lines = (line.strip() for line in re.split(r"\r\n|\r|\n", text))
    classes = dict.fromkeys(
        match[1] if (match := _WNID.match(line)) else line
        for line in lines
        if line and not line.startswith("#")
    )
    if not classes:
        raise SettingsError(f"{name} names no class: write one a line")
    return tuple(classes)


def _read(name: str) -> bytes:
    try:
        if os.path.getsize(name) > MAX_BYTES:
            raise SettingsError(
                f"{name} is no list of classes: it is larger than {MAX_BYTES} bytes"
            )
        with open(name, "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise SettingsError(
            f"there is no list of classes {name}: give a file, or {' or '.join(BUILT_IN)}"
        ) from None
    except OSError as error:
        raise SettingsError(f"cannot read the list of classes {name}: {error.strerror}") from error
