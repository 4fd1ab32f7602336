"""Several encoders side by side: what the same chain found of each."""

from __future__ import annotations

from typing import Any

from .claims import NO_RIVALS


def beside(run: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """A table with a column an encoder, this one first; nothing without others.

    Args:
        run, others: files of results; ``file`` and, where it has one, the ``document`` of each.
    """
    if not others:
        return ""
    columns = [_column(one["chain"]) for one in (run, *others)]
    names = ["this encoder", *(_name(one) for one in others)]
    rows = [
        f"| {label} | {' | '.join(column[label] for column in columns)} |" for label in columns[0]
    ]
    files = ", ".join(f"`{one['file']}`" for one in others)
    return "\n".join(
        ["## Beside another encoder" if len(others) == 1 else "## Beside other encoders", "",
         f"The same images and the same chain; from {files}.", "",
         f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names), *rows]
    )  # fmt: skip


def _name(run: dict[str, Any]) -> str:
    name = run["chain"]["data"]["encoder"]
    document = run.get("document")
    return f"[{name}]({document})" if document else str(name)


def _column(chain: dict[str, Any]) -> dict[str, str]:
    data, measures, table = chain["data"], chain["measures"]["measures"], chain["failure"]
    scores = {score["name"]: score for score in table["scores"]}
    rivals = [
        score
        for score in table["scores"]
        if score["uses_labels"] is False
        and score["name"] not in NO_RIVALS
        and score["estimates"]["auroc"]["value"] is not None
    ]
    best = max(rivals, key=lambda score: score["estimates"]["auroc"]["value"])
    curve = chain["compression"]
    points = {(p["strategy"], p["share"]): p["mean"] for p in curve["points"]}

    def lost(share: float) -> str:
        means = [points.get((strategy, share)) for strategy in ("discriminative", "random")]
        full = curve["full_accuracy"]
        return " / ".join("-" if mean is None else f"{100 * (mean - full):+.2f}" for mean in means)

    def measure(name: str, form: str) -> str:
        value = measures.get(name, {}).get("value")
        return "undefined" if value is None else format(value, form)

    return {
        "system": str(data["system"]),
        "r": f"{data['num_features']:,}",
        "linear probe, top-1 %": f"{100 * chain['probe']['top1']:.2f}",
        "share of entries that are not 0 (sparsity_l0)": measure("sparsity_l0", ".3f"),
        "RankMe of the training images": measure("rankme", ".0f"),
        "eps, features in D": f"{data['eps']:g}, {data['num_discriminative']}",
        "AUROC of Q-Score": _estimate(scores["q_score"]),
        "best label-free rival": f"{best['title']}: {_estimate(best)}",
        "points lost at 60 % kept, discriminative / random": lost(0.6),
        "points lost at 20 % kept, discriminative / random": lost(0.2),
    }


def _estimate(score: dict[str, Any]) -> str:
    found = score["estimates"]["auroc"]
    if found["value"] is None:
        return "undefined"
    interval = found["interval"]
    text = f"{found['value']:.3f}"
    return text if interval is None else f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"
