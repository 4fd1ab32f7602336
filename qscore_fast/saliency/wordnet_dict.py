"""wordnet_dict.py of Salient ImageNet: a Python literal {class index: wnid}, parsed and never run."""

from __future__ import annotations

import ast
from pathlib import Path

from qscore_fast.errors import SourceError
from qscore_fast.saliency.bounded_text import bounded_text
from qscore_fast.saliency.worker_answers import WNID

MAX_BYTES = 2**20  # the published file has about 20 kB


def read_wordnet_dict(path: Path) -> dict[int, str]:
    """The mapping, where the file is one dict literal of whole numbers and wnids and nothing else.

    Raises:
        SourceError: missing, too large, anything but such a literal.
    """
    text = bounded_text(path, MAX_BYTES)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if not isinstance(tree, ast.Dict) or not all(
            isinstance(node, ast.Constant) for node in (*tree.keys, *tree.values)
        ):
            raise ValueError("it is no dict of plain constants")
        found = ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SourceError(
            f"{path} is no literal {{class index: wnid}} ({reason}): take the published file"
        ) from None
    for index, wnid in found.items():
        if type(index) is not int or not isinstance(wnid, str) or not WNID.fullmatch(wnid):
            raise SourceError(
                f"{path}: {index!r}: {str(wnid)[:60]!r} is no class index and wnid: take the published file"
            )
    return dict(found)
