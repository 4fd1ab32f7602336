"""The paper's claims against a chain's figures: each holds, fails, or is left open by its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
NO_RIVALS = ("q_score", "constant", "shuffled")
# Points that the paper's own systems lose at 60 % kept, at most.
LARGE_LOSS = 3.1
# What the discriminative features are compared with, and what the paper says of it.
COMPARED = {
    "top_tail": "The most active features alone (top tail) keep less accuracy than discriminative ones.",
    "bottom_tail": "The least active features alone (bottom tail) keep less accuracy than those, too.",
    "variance": "Discriminative features keep more accuracy than those of the highest variance (the paper "
    "does not compare them).",
    "pca": "Discriminative features keep more accuracy than as many principal components (the paper does not "
    "compare them).",
}


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
        if score["uses_labels"] is False and score["name"] not in NO_RIVALS
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
    paired, found = curve["paired"], []
    if "0.6" in paired["loss"]:
        lost, low, high = (100 * value for value in paired["loss"]["0.6"])
        found.append(
            Verdict(
                "40 % of the features can go without a large loss (the paper's figure: 1.3 to "
                f"{LARGE_LOSS} points).",
                by_interval(LARGE_LOSS - high, LARGE_LOSS - low),
                f"{_points(lost, low, high, '')} points are lost",
            )
        )
    against_random = paired["less"].get("random")
    if against_random is not None:
        each = [by_interval(low, high) for _, low, high in against_random["by_share"].values()]
        found.append(
            Verdict(
                "Discriminative features keep more accuracy than random ones, at every share.",
                HOLDS if set(each) == {HOLDS} else FAILS if FAILS in each else OPEN,
                _along(against_random),
            )
        )
    found += [
        Verdict(claim, by_interval(*paired["less"][name]["mean"][1:]), _along(paired["less"][name]))
        for name, claim in COMPARED.items()
        if name in paired["less"]
    ]
    return found


def _along(compared: dict[str, Any]) -> str:
    """The mean over all shares, by which all but the random features are judged; and each share."""
    mean, low, high = (100 * value for value in compared["mean"])
    by_share = compared["by_share"]
    each = [by_interval(low, high) for _, low, high in by_share.values()]
    points = ", ".join(
        f"{100 * value:+.2f} at {100 * float(share):g} %"
        for share, (value, _, _) in by_share.items()
    )
    return (
        f"discriminative less these, mean over {len(each)} shares {_points(mean, low, high)} points; "
        f"{each.count(HOLDS)} of {len(each)} intervals lie above 0, {each.count(FAILS)} below; {points}"
    )


def _points(value: float, low: float, high: float, sign: str = "+") -> str:
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def _discovery(found: dict[str, Any]) -> list[Verdict]:
    beyond = found["purity_beyond_chance"]
    if beyond["difference"] is None:
        return []
    difference, low, high = beyond["difference"]
    excess = ", ".join(
        f"{beyond['excess'][band]:.3f} {where}"
        for band, where in (("in_d", "in D"), ("above", "above the band"), ("below", "below it"))
        if beyond["excess"][band] is not None
    )
    return [
        Verdict(
            "Features of D fire for fewer classes than those above the band, which are general.",
            by_interval(low, high),
            f"mean purity beyond that of as many images by chance: {excess}; in D less above the band "
            f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]",
        )
    ]


def _names(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
