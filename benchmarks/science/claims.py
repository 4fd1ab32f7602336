"""The paper's claims against a chain's figures: each holds, fails, or is left open by its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
# The probe's own confidence was trained on labels.
NO_RIVALS = ("q_score", "constant", "shuffled", "confidence")


@dataclass(frozen=True)
class Verdict:
    """One claim.

    Attributes:
        claim: what the paper says.
        verdict: holds, does not hold, or open.
        because: the figures that decide.
    """

    claim: str
    verdict: str
    because: str


def verdicts(result: dict[str, Any]) -> list[Verdict]:
    """All that the figures of a chain (see ``chain.py``) can decide."""
    return [
        *_prediction(result["failure"]),
        *_compression(result["compression"]),
        *_discovery(result["discovery"]),
    ]


def by_interval(low: float, high: float, limit: float = 0.0) -> str:
    """Holds above the limit, fails below it, open where the interval holds it."""
    return HOLDS if low > limit else FAILS if high < limit else OPEN


def _prediction(table: dict[str, Any]) -> list[Verdict]:
    scores = {score["name"]: score for score in table["scores"]}
    own = scores["q_score"]["estimates"]["auroc"]
    if own["value"] is None or own["interval"] is None:
        return [Verdict("The score is high where the probe is right.", OPEN, str(own["undefined"]))]
    low, high = own["interval"]["low"], own["interval"]["high"]
    found = [
        Verdict(
            "The score is high where the probe is right (AUROC above that of chance).",
            by_interval(low, high, 0.5),
            f"AUROC {own['value']:.3f} [{low:.3f}, {high:.3f}]; the paper's lie between 0.623 and 0.733",
        )
    ]
    rivals = [
        score
        for score in table["scores"]
        if not score["uses_labels"] and score["name"] not in NO_RIVALS
    ]
    better, worse, same = [], [], []
    for score in rivals:
        interval = score["estimates"]["auroc"]["difference_interval"]
        if interval is None:
            continue
        # The difference is Q-Score less the rival.
        verdict = by_interval(interval["low"], interval["high"])
        {HOLDS: better, FAILS: worse, OPEN: same}[verdict].append(score["title"])
    found.append(
        Verdict(
            "It predicts this better than what needs no labels either (the paper compares it with none).",
            HOLDS if better and not worse and not same else FAILS if worse else OPEN,
            f"AUROC above {_names(better)}; below {_names(worse)}; not to be told from {_names(same)}",
        )
    )
    return found


def _compression(curve: dict[str, Any]) -> list[Verdict]:
    points = {(point["strategy"], point["share"]): point for point in curve["points"]}
    full, found = curve["full_accuracy"], []
    kept = points.get(("discriminative", 0.6))
    if kept is not None:
        lost = 100 * (full - kept["mean"])
        found.append(
            Verdict(
                "40 % of the features can go without a large loss (the paper's figure: 1.3 to 3.1 points).",
                HOLDS if lost <= 3.1 else FAILS,
                f"{lost:.2f} points are lost: {100 * full:.2f} to {100 * kept['mean']:.2f} %",
            )
        )
    compared = [p for (name, _), p in points.items() if name == "discriminative" and p["interval"]]
    if compared:
        each = [by_interval(*point["interval"]) for point in compared]
        differences = ", ".join(
            f"{100 * p['difference_to_random']:+.2f} at {100 * p['share']:g} %" for p in compared
        )
        found.append(
            Verdict(
                "Discriminative features keep more accuracy than random ones, at every share.",
                HOLDS if set(each) == {HOLDS} else FAILS if FAILS in each else OPEN,
                f"{each.count(HOLDS)} of {len(each)} intervals lie above 0, {each.count(FAILS)} below; "
                "points: " + differences,
            )
        )
    return found


def _discovery(found: dict[str, Any]) -> list[Verdict]:
    inside, above, below = (found["purity"].get(band) for band in ("in_d", "above", "below"))
    if inside is None or above is None:
        return []
    text = f"mean purity {inside:.3f} in D, {above:.3f} above the band"
    if below is not None:
        text += f", {below:.3f} below it"
    return [
        Verdict(
            "Features of D fire for fewer classes than those above the band, which are general.",
            HOLDS if inside > above else FAILS,
            text,
        )
    ]


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
