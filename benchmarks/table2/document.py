"""docs/table2.md from a file of results: no figure there is typed by hand."""

from __future__ import annotations

import statistics
import textwrap
from pathlib import Path
from typing import Any

from qscore_fast.finetuning.comparison import Interval
from qscore_fast.finetuning.comparison.result import BASE, CONTROL
from qscore_fast.finetuning.comparison.table import WORDS
from qscore_fast.scoring.atomic import made_folder, write_text

from .figure import save_gains
from .gains import System, arms_of, gain, mean, values
from .published import NAMES, of_system
from .reading import chance, facts, shown, verdicts

FIGURE = "table2-gains.svg"


def publish(result: dict[str, Any], folder: Path) -> None:
    """Write table2.md and its figure."""
    made_folder(folder / "images")
    write_text(folder / "table2.md", document(result))
    save_gains(result["systems"], folder / "images" / FIGURE)


def document(result: dict[str, Any]) -> str:
    """The whole text, from what ``python -m benchmarks.table2`` wrote and the name of that ``file``."""
    parts = [
        _opening(result),
        _reading(result),
        _table_2(result),
        _neighbours(result["systems"]),
        _representations(result["systems"]),
        _starts(result),
        _settings(result),
        _again(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _opening(result: dict[str, Any]) -> str:
    environment, data, plan = result["environment"], result["data"], result["plan"]
    origin = (
        "pre-trained by this project's own loop from random weights, exported in the layouts of the official "
        "repositories and loaded again like published ones"
        if plan["pretraining"] is not None
        else "published or given ones"
    )
    text = f"""
Does an encoder get better when it is trained further with Q-Score, or only when it is trained further?
Written by `python -m benchmarks.table2`; every figure is from `{result["file"]}`, made on
{environment["device"]} ({environment["cores"]} cores) with torch {environment["torch"]}, Python
{environment["python"]}.

{data["name"]}: {data["images"]} to train on; for D and the probes {data["probes"]}. The checkpoints are
{origin}. From each, every arm was trained with {len(plan["seeds"])} seeds; the arms of one seed see the same
images, augmentations and fresh parts in every step and differ in the regulariser alone.

± is half of a 95 % interval of Student's t over the seeds, * says that the interval leaves 0 out. The seeds
are those of the further training: each system has one checkpoint, so an interval says nothing about another
one.
"""
    return "# Table 2\n\n" + _filled(text)


def _reading(result: dict[str, Any]) -> str:
    systems = result["systems"]
    rows = [f"| {v.claim} | **{v.verdict}** | {v.because} |" for v in verdicts(systems)]
    count, expected = chance(systems)
    text = (
        "A verdict is that of the interval over the systems' mean gains; a system counts as one sample. "
        f"*Open* means that the interval does not decide. Of the {count} intervals of single systems, about "
        f"{expected:.0f} would leave 0 out by chance. Gains in points of top-1 and of AUROC; mean Q as it is."
    )
    return "\n".join(
        ["## What is significant, and what is not", "", _filled(text), "",
         "| claim | here | because |", "|---|---|---|", *rows, "",
         _filled(" ".join(facts(result)))]
    )  # fmt: skip


def _table_2(result: dict[str, Any]) -> str:
    systems = result["systems"]
    arms = arms_of(systems)
    head = ["system", *(WORDS[arm] for arm in (BASE, *arms))]
    gains = [arm for arm in arms if arm != CONTROL]
    head += [f"{WORDS[arm]} over control" for arm in gains]
    head += ["paper, IN-100", "paper, IN-1K"]
    rows = []
    for system in systems:
        row = [NAMES[system["system"]]]
        row += [_cell(mean(system, arm, "linear")) for arm in (BASE, *arms)]
        row += [_gain(gain(system, arm, "linear")) for arm in gains]
        paper = of_system(system["system"])
        for pair in paper or (None, None):
            row.append(
                "" if pair is None else f"{pair[0]:.2f} → {pair[1]:.2f} ({pair[1] - pair[0]:+.2f})"
            )
        rows.append(row)
    text = (
        "Top-1 of the linear probe in per cent. The paper prints one base and not whether it was trained "
        "further; *control* is what separates the regulariser from more training."
    )
    return "\n".join(
        ["## Linear probe", "", _filled(text), "", *_lines(head, rows), "",
         f"![Gains of the linear probe](images/{FIGURE})"]
    )  # fmt: skip


def _neighbours(systems: list[System]) -> str:
    arms = arms_of(systems)
    gains = [arm for arm in arms if arm != CONTROL]
    head = ["system", *(WORDS[arm] for arm in (BASE, *arms))]
    head += [f"{WORDS[arm]} over control" for arm in gains]
    rows = [
        [NAMES[system["system"]]]
        + [_cell(mean(system, arm, "knn")) for arm in (BASE, *arms)]
        + [_gain(gain(system, arm, "knn")) for arm in gains]
        for system in systems
    ]
    return "\n".join(["## kNN", "", "Top-1 of 20 neighbours in per cent.", "", *_lines(head, rows)])


def _representations(systems: list[System]) -> str:
    head = ["system", "arm", "mean Q", "AUROC of Q", "over control", "RankMe", "normalised std"]
    rows = []
    for system in systems:
        for arm in (BASE, *arms_of([system])):
            name = NAMES[system["system"]] if arm == BASE else ""
            rows.append(
                [
                    name,
                    WORDS[arm],
                    _cell(mean(system, arm, "mean_q"), 1, ".4f"),
                    _cell(mean(system, arm, "auroc")),
                    "" if arm in (BASE, CONTROL) else _gain(gain(system, arm, "auroc")),
                    _cell(mean(system, arm, "rankme"), 1, ".0f"),
                    _cell(mean(system, arm, "normalised_std"), 1, ".3f")
                    + (" **collapsed**" if any(values(system, arm, "collapsed")) else ""),
                ]
            )
    text = (
        "Of the test images. Mean Q is under the D of the start; the AUROC, in per cent, is that of Q "
        "against the linear probe's being right, under a D made anew from the training images of the trained "
        "encoder; 50 is chance. A representation counts as collapsed below a tenth of the base's normalised "
        "standard deviation ([finetuning.md](finetuning.md))."
    )
    return "\n".join(["## Representations", "", _filled(text), "", *_lines(head, rows)])


def _starts(result: dict[str, Any]) -> str:
    made = result["plan"]["pretraining"] is not None
    head = ["system", "checkpoint", "network", "eps", "D", "empty"]
    head += ["untrained", "pre-training", "first loss", "last loss"] if made else []
    head += ["loss after further training", "Q term", "column term"]
    rows = []
    for system in result["systems"]:
        discovery = system["discovery"]
        row = [
            NAMES[system["system"]],
            f"`{system['checkpoint']}`",
            system["encoder"],
            f"{discovery['eps']:g}",
            f"{discovery['num_discriminative']} of {system['num_features']}",
            f"{100 * discovery['empty_fraction']:.1f} %",
        ]
        if made:
            about = system["pretraining"]
            row += [
                f"{100 * system['untrained']['linear']:.2f}",
                f"{about['steps']:,} steps",
                f"{about['first_ssl']:.3f}",
                f"{about['last_ssl']:.3f}",
            ]
        logs = [row_["log"] for row_ in system["rows"] if row_["arm"] == "qscore"]
        for name, digits in (("ssl", ".3f"), ("q_term", ".1e"), ("column_term", ".1e")):
            row.append(format(sum(log[name] for log in logs) / len(logs), digits) if logs else "")
        rows.append(row)
    text = (
        "eps is the largest at which at most 1 % of the training images have no active feature of D, chosen "
        "without labels ([discovery.md](discovery.md)). "
    )
    if made:
        text += "*Untrained* is the linear probe of the network before pre-training. "
    text += (
        "The last columns are of the Q-Score arm's last logged step, mean over the seeds: the system's own "
        "loss, and what the two terms add to it."
    )
    logs = [row["log"] for s in result["systems"] for row in s["rows"] if row["arm"] == "qscore"]
    ratios = [abs(log["column_term"] / log["q_term"]) for log in logs if log["q_term"]]
    if ratios:
        text += f" The column term is {min(ratios):,.0f} to {max(ratios):,.0f} times the Q term."
    return "\n".join(
        ["## Checkpoints, D, and the size of the terms", "", _filled(text), "", *_lines(head, rows)]
    )


def _settings(result: dict[str, Any]) -> str:
    plan = result["plan"]
    tuning, before = plan["tuning"], plan["pretraining"]
    length = f"{tuning['steps']:,} steps" if tuning["steps"] else f"{tuning['epochs'] or 50} epochs"
    lines = [
        f"- Further training: {_optimiser(tuning)}, {length} of {tuning['batch_size'] or 256} images, "
        f"lambda1 = {tuning['lambda1']:g}, lambda2 = {tuning['lambda2']:g} ({tuning['reduction']}), "
        "warm-up and cosine."
    ]
    if before is not None:
        lines.append(
            f"- Pre-training: {_optimiser(before)}, {before['steps']:,} steps of {before['batch_size']} "
            "images, lambda = 0; the same small ResNet for all, padded as each system pads."
        )
        changed = [
            f"{NAMES[system]} {', '.join(f'{k} {v}' for k, v in values_.items())}"
            for system, values_ in plan["objectives"].items()
            if values_
        ]
        lines.append(
            f"- Objectives as official ([objectives.md](objectives.md)) but for: {'; '.join(changed)}."
        )
    moved = [system["moved"] for system in result["systems"] if system["moved"]]
    if moved:
        paper, here = (statistics.median(one[n] for one in moved) for n in ("paper", "here"))
        lines.append(
            "- The rate is not the paper's (1e-5 with LARS, 50 epochs of ImageNet): in a training as short "
            f"as this one that moves the weights by {paper:.1e} of their length, and the rate here by "
            f"{here:.1e} (medians of the systems, first seed of Q-Score)."
        )
    lines.append(
        "- Linear probe: multinomial logistic regression; its penalty is chosen on held-out training images "
        "of the base and is the same for all arms relative to their features' variance."
    )
    return "\n".join(["## Settings", "", *(_filled(line, "  ") for line in lines)])


def _optimiser(settings: dict[str, Any]) -> str:
    name = {"adamw": "AdamW", "sgd": "SGD", None: "LARS", "lars": "LARS"}[settings["optimiser"]]
    return f"{name} at a peak rate of {settings['lr'] or 1e-5:g}"


def _again() -> str:
    return """
## Again

```bash
python -m benchmarks.table2 --out work                       # Fashion-MNIST (Debian's dataset-fashion-mnist)
python -m benchmarks.table2 --out work --imagenet PATH --checkpoints simclr=FILE swav=FILE moco_v2=FILE ...
python -m benchmarks.table2 --out work --imagenet PATH --classes imagenet100 --checkpoints ...
```

The first one pre-trains all eight systems, too; their checkpoints are `work/SYSTEM/SYSTEM.pth`. The second
and third make the paper's own table from published checkpoints with the paper's own settings. The time is
estimated first, from a few steps of every system. What is stopped goes on with the same command: trainings at
their last checkpoint, the rest by steps. Several processes can share the work, each with `--systems` of its
own and the same `--out`; the command without `--systems` then puts everything together. `--document docs`
writes this page.
"""


def _cell(interval: Interval | None, scale: float = 100, form: str = ".2f") -> str:
    if interval is None:
        return ""
    text = format(scale * interval.mean, form)
    if interval.half_width is None:
        return text
    return f"{text} ± {scale * interval.half_width:{form}}"


def _gain(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return shown(interval, 100, ".2f") + ("*" if interval.excludes_zero else "")


def _lines(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _filled(text: str, indent: str = "") -> str:
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(
        textwrap.fill(
            part, 108, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
        )
        for part in paragraphs
    )
