"""Sample ids of one archive, each given out once."""

from __future__ import annotations

from qscore_fast.errors import ImageError
from qscore_fast.images.sources.source import Sample


class UniqueIds:
    """Remembers the ids of one unit's samples; a second use of an id becomes an error of its own."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._used)

    def sample(
        self,
        sample_id: str,
        label: str | None = None,
        content: bytes | None = None,
        error: ImageError | None = None,
    ) -> Sample:
        """A sample of this id; if it was used before, one with an error and ``#2``, ``#3``... added."""
        unique = sample_id
        while unique in self._used:
            self._used[sample_id] += 1
            unique = f"{sample_id}#{self._used[sample_id]}"
        self._used[unique] = 1
        if unique != sample_id and error is None:
            error = ImageError(f"a second sample of the id {sample_id}", "read")
        return Sample(unique, label, content=None if error else content, error=error)
