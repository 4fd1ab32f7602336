"""k nearest neighbours on cached features: exact and approximate search, weighted votes, the graph."""

from qscore_fast.evaluation.knn.graph import neighbour_graph
from qscore_fast.evaluation.knn.index import INDEXES, IndexName, searched
from qscore_fast.evaluation.knn.search import Neighbours, nearest, nearest_to
from qscore_fast.evaluation.knn.vote import Weighting, votes

__all__ = [
    "INDEXES",
    "IndexName",
    "Neighbours",
    "Weighting",
    "nearest",
    "nearest_to",
    "neighbour_graph",
    "searched",
    "votes",
]
