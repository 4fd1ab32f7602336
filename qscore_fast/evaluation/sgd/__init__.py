"""Linear probes by SGD on cached features: the protocols of published systems, many rates in one reading."""

from qscore_fast.evaluation.sgd.choice import ProtocolFit, accuracies, fit_protocol
from qscore_fast.evaluation.sgd.fit import SGDFit, fit_sgd
from qscore_fast.evaluation.sgd.presets import PROTOCOLS
from qscore_fast.evaluation.sgd.protocol import SGDProtocol

__all__ = [
    "PROTOCOLS",
    "ProtocolFit",
    "SGDFit",
    "SGDProtocol",
    "accuracies",
    "fit_protocol",
    "fit_sgd",
]
