"""How long the experiment will take: a few real steps of every system, times what there is to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qscore_fast.encoders import Encoder
from qscore_fast.images import Source

from ..science.estimate import PROBE_PASSES, Estimate, Rates, lines
from ..science.listing import Listing
from ..science.step_time import num_steps, step_seconds
from .plan import Plan

# Of one probe whose C is given, against one that looks for it.
GIVEN_C = 1 / 8


def estimate(
    plan: Plan,
    encoders: dict[str, Encoder],
    images: Source,
    listed: Listing,
    work: Path,
    device: str,
) -> dict[str, float]:
    """Seconds by what is done; the rates are those of this machine at this moment.

    Args:
        encoders: by system, trained or not. listed: the images of the probes.
    """
    pretraining = tuning = probes = 0.0
    for system in plan.systems:
        encoder = encoders[system]
        settings = plan.tuning_of(system)
        seconds = step_seconds(encoder, images, settings, device)
        tuning += seconds * num_steps(encoder, images, settings, work) * plan.num_trainings
        if plan.pretraining is not None:
            wanted = plan.pretraining_of(system)
            pretraining += seconds * num_steps(encoder, images, wanted, work)
        rates = Rates.measured(encoder, images, device)
        scoring = rates.scoring(listed.num_train + listed.num_test)
        probe = rates.probe(
            listed.num_train, encoder.num_features, listed.num_classes, PROBE_PASSES
        )
        probes += 2 * scoring + probe + plan.num_trainings * (scoring + GIVEN_C * probe)
    found = {"pre-training": pretraining, "further training": tuning, "probes": probes}
    return {name: value for name, value in found.items() if value}


def told(seconds: dict[str, float], say: Callable[[str], None]) -> None:
    """Say it."""
    for line in lines([Estimate(name, value) for name, value in seconds.items()]):
        say(line)
