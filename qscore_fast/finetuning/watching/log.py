"""TrainingLog: one JSON line a logged step, and TensorBoard's files beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qscore_fast.errors import MissingExtraError
from qscore_fast.scoring.atomic import made_folder, write_text

LOG = "log.jsonl"
BAD_IMAGES = "bad_images.jsonl"
_MOST_BAD = 10_000


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training's log, in order; a last one that was cut off is left out."""
    path = folder / LOG
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines if line.strip()]


class TrainingLog:
    """Writes ``log.jsonl``, ``bad_images.jsonl`` and, if asked, TensorBoard's event files.

    A training that goes on from a step drops the lines that came after it, so that the log reads as if it
    had never stopped.

    Args:
        folder: of the training. step: that it goes on from.
        tensorboard: whether to write event files.

    Raises:
        MissingExtraError: TensorBoard was asked for and is not installed.
    """

    def __init__(self, folder: Path, step: int = 0, *, tensorboard: bool = True) -> None:
        made_folder(folder)
        kept = [line for line in read_log(folder) if line["step"] <= step]
        write_text(folder / LOG, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._bad_path = folder / BAD_IMAGES
        self._bad_ids: set[str] = set()
        if step == 0:
            self._bad_path.unlink(missing_ok=True)
        elif self._bad_path.exists():
            found = self._bad_path.read_bytes().split(b"\n")[:-1]
            self._bad_ids = {json.loads(line)["sample_id"] for line in found}
        self._board: Any = None
        if tensorboard:
            self._board = _board(folder / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(_tag(name), value, step)

    def bad(self, sample_id: str, reason: str) -> None:
        """Name an image that others took the place of; each once, and no more than 10,000."""
        if sample_id in self._bad_ids or len(self._bad_ids) >= _MOST_BAD:
            return
        self._bad_ids.add(sample_id)
        with self._bad_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"sample_id": sample_id, "error": reason}) + "\n")

    def sync(self) -> None:
        """What was written is on the disk when this returns."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Finish the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _tag(name: str) -> str:
    group = {
        **dict.fromkeys(("loss", "ssl", "q_term", "column_term", "lasso_term"), "loss"),
        **dict.fromkeys(("lr", "lambda1", "lambda2"), "schedule"),
        **dict.fromkeys(("images_per_second", "waiting_share"), "speed"),
    }
    return f"{group.get(name, 'representation')}/{name}"


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "finetune") from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
