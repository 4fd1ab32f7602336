"""What changes over the training, as pure functions of the step.

``step`` is the number of steps made before this one, from 0, and ``steps`` that of the whole schedule;
systems that go by epochs pass epochs for both. From ``steps`` on a schedule keeps its last value. Nothing
here has a state, so a resumed training continues where it was.

| system | learning rate | EMA momentum |
|---|---|---|
| SimCLR, VICReg, Barlow Twins, BYOL, MoCo v3 | ``warmup_cosine`` | BYOL, MoCo v3: ``ema_momentum`` |
| SwAV, DINO | ``warmup_cosine(through_peak=True)`` | DINO: ``ema_momentum`` |
| MoCo v1 | ``step_decay`` at epochs 120 and 160 | constant |
| MoCo v2, SimSiam | ``cosine`` of the epoch | MoCo v2: constant |

Sources: the official training code of each system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qscore_fast.errors import SettingsError


def constant(step: int, value: float) -> float:
    """``value`` at every step."""
    return value


def linear(step: int, steps: int, start: float, end: float) -> float:
    """From ``start`` at step 0 in equal parts to ``end`` at step ``steps``."""
    return end if step >= steps else start + (end - start) * step / steps


def cosine(step: int, steps: int, start: float, end: float = 0.0) -> float:
    """From ``start`` at step 0 along half a cosine to ``end`` at step ``steps``."""
    if step >= steps:
        return end
    return end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2


def warmup_cosine(
    step: int,
    steps: int,
    peak: float,
    warmup_steps: int = 0,
    start: float = 0.0,
    end: float = 0.0,
    through_peak: bool = False,
) -> float:
    """Linear from ``start`` to ``peak`` over ``warmup_steps``, then half a cosine to ``end``.

    Args:
        step, steps: see the module; ``steps`` includes the warm-up.
        peak: the highest value, at step ``warmup_steps``.
        warmup_steps: 0 for none.
        start: value at step 0.
        end: value at step ``steps``.
        through_peak: the last step of the warm-up has ``peak`` already, as ``numpy.linspace`` gives it
            and SwAV and DINO have it.
    """
    if step < warmup_steps:
        parts = max(warmup_steps - 1, 1) if through_peak else warmup_steps
        return start + (peak - start) * step / parts
    return cosine(step - warmup_steps, steps - warmup_steps, peak, end)


def step_decay(step: int, milestones: Sequence[int], base: float, factor: float = 0.1) -> float:
    """``base`` times ``factor`` for every milestone that ``step`` has reached."""
    return base * factor ** sum(step >= milestone for milestone in milestones)


def warmup_anneal(
    step: int, steps: int, peak: float, warmup_steps: int, anneal_from: int, end: float = 0.0
) -> float:
    """Linear from 0 to ``peak``, level, then half a cosine down to ``end``: a weight lambda.

    Args:
        step, steps: see the module.
        peak: value from step ``warmup_steps`` to step ``anneal_from``.
        warmup_steps: 0 for none.
        anneal_from: the step that is the last with ``peak``; not before ``warmup_steps``.
        end: value from step ``steps`` on, if that is after ``anneal_from``.

    Raises:
        SettingsError: not ``0 <= warmup_steps <= anneal_from <= steps``.

    The paper names "warm-up then anneal" without lengths.
    """
    if not 0 <= warmup_steps <= anneal_from <= steps:
        raise SettingsError(
            f"warmup_anneal: warmup_steps is {warmup_steps}, anneal_from {anneal_from} and steps {steps}; "
            "they must be in this order and not below 0"
        )
    if step < warmup_steps:
        return linear(step, warmup_steps, 0.0, peak)
    if step <= anneal_from:
        return peak
    return cosine(step - anneal_from, steps - anneal_from, peak, end)


def ema_momentum(step: int, steps: int, base: float) -> float:
    """From ``base`` along half a cosine to 1: the average's own share in BYOL, MoCo v3 and DINO.

    MoCo v3 goes by fractions of an epoch and BYOL and DINO by steps, which is the same.
    """
    return cosine(step, steps, base, 1.0)


def teacher_temperature(
    epoch: int, warmup_epochs: int = 30, start: float = 0.04, end: float = 0.07
) -> float:
    """DINO's: linear over the warm-up, whose last epoch has ``end`` already, then level."""
    if epoch >= warmup_epochs:
        return end
    return start + (end - start) * epoch / max(warmup_epochs - 1, 1)


def weight_decay(step: int, steps: int, start: float = 0.04, end: float = 0.4) -> float:
    """DINO's for vision transformers: half a cosine from ``start`` up to ``end``."""
    return cosine(step, steps, start, end)
