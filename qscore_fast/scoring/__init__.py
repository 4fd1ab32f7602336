"""Scoring: images through an encoder into a store of parts, and the scores that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qscore_fast.lazy_imports import lazy_names

if TYPE_CHECKING:
    from qscore_fast.scoring.discovery import Discovery
    from qscore_fast.scoring.engine import Progress
    from qscore_fast.scoring.run_discovery import discover
    from qscore_fast.scoring.run_rescoring import rescore
    from qscore_fast.scoring.run_scoring import score
    from qscore_fast.scoring.score_run import ScoreRun
    from qscore_fast.scoring.session import Session

_MODULE_OF = {
    "Discovery": "discovery",
    "Progress": "engine",
    "ScoreRun": "score_run",
    "Session": "session",
    "discover": "run_discovery",
    "rescore": "run_rescoring",
    "score": "run_scoring",
}

__all__ = ["Discovery", "Progress", "ScoreRun", "Session", "discover", "rescore", "score"]


# Encoders and torchvision take seconds to import, and finished runs do without them.
__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted(__all__)
