"""The layout of the paper's Table 1: AUROC and AUPRC of Q-Score, a model a row, in per cent."""

from __future__ import annotations

from collections.abc import Mapping

from qscore_fast.errors import SettingsError
from qscore_fast.evaluation.failure.failure_table import Estimate, FailureTable, aligned

HEADING = [
    "model",
    "AUROC",
    "AUPRC",
    "base accuracy",
    "AUPRC less base",
    "AUPRC-error",
    "base error",
]


def paper_table(tables: Mapping[str, FailureTable], score: str = "q_score") -> str:
    """AUROC and AUPRC (positives = correct) as in the paper, beside what a constant score would have.

    Args:
        tables: of each model, by the name that its row shall have.
        score: whose numbers to show.

    Returns:
        Markdown; all numbers in per cent.

    Raises:
        SettingsError: a table lacks the score, or AUROC, AUPRC-success or AUPRC-error.
    """
    rows = [HEADING]
    for model, table in tables.items():
        try:
            auroc, success, error = (
                table.value(score, metric) for metric in ("auroc", "auprc_success", "auprc_error")
            )
        except KeyError as missing:
            raise SettingsError(
                f"the table of {model} lacks {score} or one of auroc, auprc_success and auprc_error: "
                "evaluate with these"
            ) from missing
        base = table.accuracy
        gain = "undefined" if success.value is None else f"{100 * (success.value - base):+.2f}"
        rows.append(
            [
                model, _percent(auroc), _percent(success), f"{100 * base:.2f}", gain, _percent(error),
                f"{100 * (1 - base):.2f}",
            ]
        )  # fmt: skip
    return "\n".join(aligned(rows)) + "\n"


def _percent(estimate: Estimate) -> str:
    return "undefined" if estimate.value is None else f"{100 * estimate.value:.2f}"
