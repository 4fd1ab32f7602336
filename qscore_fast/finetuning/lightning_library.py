"""Lightning, where it is installed."""

from __future__ import annotations

from qscore_fast.errors import MissingExtraError

try:
    import lightning.pytorch as lightning
except ImportError as error:
    raise MissingExtraError("lightning", "finetune") from error

__all__ = ["lightning"]
