"""What is significant and what is not, decided by the intervals."""

from __future__ import annotations

import statistics
from typing import Any

from qscore_fast.finetuning.comparison import Interval, mean_interval
from qscore_fast.finetuning.comparison.result import BASE, CONTROL

from ..science.claims import FAILS, HOLDS, OPEN, Verdict, by_interval
from .gains import System, arms_of, gain, over_systems, values
from .published import NAMES, TABLE_2, of_system

QSCORE, LASSO = "qscore", "lasso"
WEAK_BELOW = 5.0
"""Points of top-1 over the untrained network."""

AS_IN_THE_PAPER = "It gains as much as in the paper."

QUESTIONS = (
    ("Q-Score raises the linear probe's accuracy over the control, the same training without it.",
     QSCORE, "linear", CONTROL),
    ("It raises that of kNN.", QSCORE, "knn", CONTROL),
    ("It raises the linear probe's accuracy over lasso.", QSCORE, "linear", LASSO),
    ("It raises mean Q of the test images, under the D of the start.", QSCORE, "mean_q", CONTROL),
    ("It raises mean Q more than lasso does.", QSCORE, "mean_q", LASSO),
    ("Q-Score then predicts better where the probe is right (AUROC, D made anew).",
     QSCORE, "auroc", CONTROL),
    ("Further training alone raises the linear probe's accuracy over the base.",
     CONTROL, "linear", BASE),
)  # fmt: skip
"""Claims, each with an arm, a measure, and the arm that it is compared with."""


def verdicts(systems: list[System]) -> list[Verdict]:
    """Every claim that the arms at hand can decide. Over several systems a system counts as one sample."""
    arms = {BASE, *arms_of(systems)}
    found = [_predicts(systems)]
    for claim, arm, measure, over in QUESTIONS:
        if {arm, over} <= arms:
            found.append(_difference(claim, systems, arm, measure, over))
            if (arm, measure, over) == (QSCORE, "linear", CONTROL):
                found.append(_as_in_the_paper(systems))
    return found


def chance(systems: list[System]) -> tuple[int, float]:
    """How many intervals of single systems the verdicts rest on, and how many leave 0 out by chance."""
    intervals = [
        gain(s, arm, measure, over) for s in systems for _, arm, measure, over in QUESTIONS
    ]
    count = sum(one is not None and one.half_width is not None for one in intervals)
    return count, 0.05 * count


def collapsed(systems: list[System]) -> list[str]:
    """Whose representations collapsed: "VICReg, lasso, seed 1"."""
    return [
        f"{NAMES[system['system']]}, {row['arm']}, seed {row['seed']}"
        for system in systems
        for row in system["rows"]
        if row["collapsed"]
    ]


def _predicts(systems: list[System]) -> Verdict:
    """Of the base; its interval is that of the systems."""
    claim = "Q is high where the probe of the base is right (AUROC above that of chance, 50)."
    found = {
        s["system"]: 100 * values(s, BASE, "auroc")[0] for s in systems if values(s, BASE, "auroc")
    }
    if not found:
        return Verdict(claim, OPEN, "it could not be measured")
    whole = mean_interval([value - 50 for value in found.values()])
    each = ", ".join(f"{NAMES[name]} {value:.1f}" for name, value in found.items())
    return Verdict(claim, _of(whole), f"{shown(whole, 1, '.2f')} from 50 on average; {each}")


def _difference(claim: str, systems: list[System], arm: str, measure: str, over: str) -> Verdict:
    each = {s["system"]: one for s in systems if (one := gain(s, arm, measure, over)) is not None}
    above, below, same = [], [], []
    for system, one in each.items():
        verdict = _of(one)
        {HOLDS: above, FAILS: below, OPEN: same}[verdict].append(NAMES[system])
    whole = over_systems(systems, arm, measure, over)
    if whole is None:
        return Verdict(claim, OPEN, "it could not be measured")
    scale, digits = (1, ".4f") if measure == "mean_q" else (100, ".2f")
    text = f"{shown(whole, scale, digits)} on average; by system: {_names(above)} significantly above, " \
           f"{_names(below)} significantly below, {_names(same)} neither"  # fmt: skip
    return Verdict(claim, _of(whole), text)


def _as_in_the_paper(systems: list[System]) -> Verdict:
    known = [found for s in systems if (found := of_system(s["system"])) is not None]
    whole = over_systems(systems, QSCORE, "linear")
    if whole is None or not known:
        return Verdict(AS_IN_THE_PAPER, OPEN, "it could not be measured")
    means = [
        statistics.fmean(after - before for before, after in (one[n] for one in known))
        for n in (0, 1)
    ]
    if whole.half_width is None:
        verdict = OPEN
    else:
        low, high = 100 * (whole.mean - whole.half_width), 100 * (whole.mean + whole.half_width)
        verdict = FAILS if high < min(means) else HOLDS if low > min(means) else OPEN
    return Verdict(
        AS_IN_THE_PAPER,
        verdict,
        f"{shown(whole, 100, '.2f')} points here; in the paper {means[0]:+.2f} (ImageNet-100) and "
        f"{means[1]:+.2f} (ImageNet-1K) for the same systems, over a base whose further training is not said",
    )


def _of(interval: Interval) -> str:
    if interval.half_width is None:
        return OPEN
    return by_interval(interval.mean - interval.half_width, interval.mean + interval.half_width)


def shown(interval: Interval, scale: float, digits: str) -> str:
    """A difference with its sign: "+0.12 ± 0.30"."""
    text = format(scale * interval.mean, "+" + digits)
    if interval.half_width is None:
        return text
    return f"{text} ± {scale * interval.half_width:{digits}}"


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def facts(result: dict[str, Any]) -> list[str]:
    """What else a reader must know to judge the verdicts; only what the figures say."""
    systems = result["systems"]
    found = []
    stopped = [*result["stopped"].items()]
    missing = [name for name in TABLE_2 if not any(_is(s["system"], name) for s in systems)]
    if missing:
        found.append(
            f"Missing here: {', '.join('MoCo' if name == 'moco' else NAMES[name] for name in missing)}."
        )
    found += [f"{NAMES[system]} stopped: {reason}." for system, reason in stopped]
    made = {
        NAMES[s["system"]]: 100 * (values(s, BASE, "linear")[0] - s["untrained"]["linear"])
        for s in systems
        if s["untrained"]
    }
    if made:
        least, most = min(made, key=made.__getitem__), max(made, key=made.__getitem__)
        weak = ": these encoders are weak ones" if made[most] < WEAK_BELOW else ""
        found.append(
            f"Pre-training itself moved the linear probe by {made[least]:+.2f} ({least}) to "
            f"{made[most]:+.2f} points ({most}) from that of the untrained network{weak}."
        )
    fallen = collapsed(systems)
    found.append(
        f"Collapsed: {'; '.join(fallen)}." if fallen else "No representation collapsed in any arm."
    )
    return found


def _is(system: str, name: str) -> bool:
    return system == name or (name == "moco" and system.startswith("moco"))
