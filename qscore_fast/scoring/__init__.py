"""Scoring: images through an encoder into a store of parts, and the scores that follow from them."""

from qscore_fast.scoring.discovery import Discovery
from qscore_fast.scoring.engine import Progress
from qscore_fast.scoring.run_discovery import discover
from qscore_fast.scoring.run_rescoring import rescore
from qscore_fast.scoring.run_scoring import score
from qscore_fast.scoring.score_run import ScoreRun
from qscore_fast.scoring.session import Session

__all__ = ["Discovery", "Progress", "ScoreRun", "Session", "discover", "rescore", "score"]
