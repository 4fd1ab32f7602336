"""docs/science.md from a file of results: no figure there is typed by hand."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from .beside import beside
from .claims import verdicts
from .published import FIG_2, FIG_2_SHARES, TABLE_1

METRICS = ("auroc", "auprc_success", "auprc_error", "fpr95", "aurc", "augrc")


def stem_of(run: dict[str, Any]) -> str:
    """What the names of a run's document and figures begin with: "science", or with its label."""
    return "-".join(filter(None, ("science", run.get("label"))))


def document(run: dict[str, Any], others: Sequence[dict[str, Any]] = ()) -> str:
    """The whole text, from what ``python -m benchmarks.science`` wrote.

    Args:
        others: of other encoders, to stand beside this one.
    """
    chain, environment = run["chain"], run["environment"]
    parts = [
        _opening(run, chain, environment),
        _pretraining(run.get("pretraining")),
        _claims(chain),
        beside(run, list(others)),
        _table_1(chain),
        _rivals(chain["failure"]),
        _features(chain, stem_of(run)),
        _compression(chain, stem_of(run)),
        _measures(chain["measures"]),
        _planted(run["planted"]),
        _again(),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _opening(run: dict[str, Any], chain: dict[str, Any], environment: dict[str, Any]) -> str:
    data, probe = chain["data"], chain["probe"]
    text = f"""
Do the paper's claims hold outside the paper? The whole chain, on real images and on a population whose truth
is planted. Written by `python -m benchmarks.science`; every figure is from `{run["file"]}`, made on
{environment["device"]} ({environment["cores"]} cores) with torch {environment["torch"]}, Python
{environment["python"]}.

{run["name"]}: {data["train"]["num_scored"]:,} training and {data["test"]["num_scored"]:,} test images,
{probe["num_classes"]} classes. Encoder: {data["encoder"]} ({data["system"]}), r = {data["num_features"]}. D:
{data["num_discriminative"]} features between the {data["lower"]:g}th and {data["upper"]:g}th percentile at
eps = {data["eps"]:g}, discovered on the training images; {100 * data["test_empty_fraction"]:.2f} % of the
test images have none active and score 0. The linear probe (multinomial logistic regression on all features, C
chosen on held-out training images) reaches {100 * probe["top1"]:.2f} % top-1.

One encoder on one data set is one case. The paper's are eight systems on ImageNet. Further training with
Q-Score is the other half of the paper: [table2.md](table2.md).
"""
    return "# The experiment\n\n" + _filled(text)


def _pretraining(found: dict[str, Any] | None) -> str:
    """How the encoder came about where the experiment trained it, and whether that made it sparse."""
    if found is None:
        return ""
    rounds = found["rounds"]
    epochs = [one["epochs"] for one in rounds]
    length = "1 epoch" if sum(epochs) == 1 else f"{sum(epochs):,} epochs"
    if len(rounds) > 1:
        length += f" with warm restarts ({', '.join(map(str, epochs))})"
    shares = ", ".join(f"{100 * one['active']:.1f} %" for one in rounds)
    after = " each round" if len(rounds) > 1 else ""
    verdict = "sparse" if found["sparse"] else "not sparse"
    return _filled(
        f"""
The experiment trained this encoder itself, a {found["architecture"]}, without labels on the training images:
{length}, NT-Xent from {rounds[0]["first_loss"]:.2f} to {rounds[-1]["last_loss"]:.2f}. Of the entries of its
representations {100 * found["first_active"]:.1f} % are not 0 before training and {shares} after{after}.
Sparse is {100 * found["sparse_below"]:g} % or less: **it is {verdict}**.
"""
    )


def _filled(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    return "\n\n".join(
        textwrap.fill(part, 108, break_on_hyphens=False, break_long_words=False)
        for part in paragraphs
    )


def _claims(chain: dict[str, Any]) -> str:
    rows = [f"| {v.claim} | **{v.verdict}** | {v.because} |" for v in verdicts(chain)]
    return "\n".join(
        ["## The claims", "",
         _filled(
             "*Open* means that the 95 % interval does not decide. Intervals are paired: both sides are "
             "judged by the same images (purity: by features, each band resampled). Nine shares are nine "
             "comparisons, so tails, variance and PCA are judged by the mean over all shares; one of the "
             "rivals that does better is enough for a claim over all of them not to hold. Intervals are not "
             "corrected for their number, and cover other test images, not another training: what holds here "
             "may not hold for another encoder (the next section, where one was tried)."
         ), "",
         "| claim | here | because |", "|---|---|---|", *rows]
    )  # fmt: skip


def _table_1(chain: dict[str, Any]) -> str:
    table = chain["failure"]
    own = {s["name"]: s for s in table["scores"]}["q_score"]["estimates"]
    here = (own["auroc"]["value"], own["auprc_success"]["value"], table["accuracy"])
    rows = [
        f"| {name} | {auroc:.2f} | {auprc:.2f} | {base:.2f} | {auprc - base:+.2f} |"
        for name, (auroc, auprc, base) in TABLE_1.items()
    ]
    ours = " | ".join("-" if value is None else f"{100 * value:.2f}" for value in here)
    gain = "-" if here[1] is None else f"{100 * (here[1] - here[2]):+.2f}"
    return "\n".join(
        ["## Failure prediction (Table 1)", "",
         _filled(
             "AUPRC counts correct images as positives: a constant score has the probe's accuracy. The last "
             "column is what the score adds. The paper's rows are ImageNet-100, ResNet-18."
         ), "",
         "| | AUROC | AUPRC | accuracy | AUPRC less accuracy |", "|---|---|---|---|---|",
         f"| **here** | {ours} | {gain} |", *rows]
    )  # fmt: skip


def _rivals(table: dict[str, Any]) -> str:
    metrics = [m for m in table["metrics"] if m["name"] in METRICS]
    head = " | ".join(m["title"] + (" ↑" if m["higher_is_better"] else " ↓") for m in metrics)
    rows = []
    for score in table["scores"]:
        cells = [_estimate(score["estimates"][m["name"]]) for m in metrics]
        rows.append(
            f"| {score['title']}{' (labels)' * bool(score['uses_labels'])} | {' | '.join(cells)} |"
        )
    return "\n".join(
        ["## Every rival", "",
         _filled(
             f"{table['num_samples']:,} test images, {table['num_wrong']:,} of them wrong; "
             f"{100 * table['level']:g} % intervals of {table['num_resamples']:,} resamples. Conventions: "
             "[failure-prediction.md](failure-prediction.md). Perturbation consistency compares each image "
             "with its mirrored and its shifted view. Rows marked (labels) are of the probe's logits: the "
             "bound."
         ), "",
         f"| score | {head} |", "|---|" + "---|" * len(metrics), *rows]
    )  # fmt: skip


def _estimate(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "undefined"
    interval = found["interval"]
    text = f"{found['value']:.3f}"
    return text if interval is None else f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _features(chain: dict[str, Any], stem: str) -> str:
    found = chain["discovery"]
    names = {"below": "below the band (rare)", "in_d": "in D", "above": "above the band (general)"}
    beyond = found["purity_beyond_chance"]
    columns = (found["purity"], beyond["chance"], beyond["excess"])
    rows = [
        f"| {title} | {found['num_features'][band]} | "
        + " | ".join("-" if of[band] is None else f"{of[band]:.3f}" for of in columns)
        + " |"
        for band, title in names.items()
    ]
    # Of a split whose halves both have an empty D there is none.
    jaccard, chance = (
        [value for value in found[name] if value is not None]
        for name in ("jaccard", "jaccard_by_chance")
    )
    stability = (
        f"Jaccard {sum(jaccard) / len(jaccard):.3f} (lowest of {len(jaccard)} splits {min(jaccard):.3f}; "
        f"random sets of these sizes: {sum(chance) / len(chance):.3f})."
        if jaccard and chance
        else "no Jaccard, since D of both is empty in every split."
    )
    return "\n".join(
        ["## Discovery (Fig. 1)", "",
         f"![How often each feature fires](images/{stem}-activations.svg)", "",
         _filled(
             "Purity is the largest class's share of a feature's activations among the training images. Of "
             "few images some class always has a large share; chance is what it would have of as many images "
             "with permuted labels."
         ), "",
         "| live features | number | mean purity | by chance | beyond chance |", "|---|---|---|---|---|",
         *rows, "",
         _filled(
             f"{found['num_dead']} features never fire. D of one random half of the images against D of the "
             f"other: {stability}"
             + (
                 ""
                 if beyond["difference"] is None
                 else " Purity beyond chance in D less above the band: {:+.3f} [{:+.3f}, {:+.3f}], a 95 % "
                 "interval of {:,} resamples of the features.".format(
                     *beyond["difference"], beyond["num_resamples"]
                 )
             )
         )]
    )  # fmt: skip


def _compression(chain: dict[str, Any], stem: str) -> str:
    curve = chain["compression"]
    points = {(p["strategy"], p["share"]): p for p in curve["points"]}
    rows = []
    for name, (full, discriminative, random) in FIG_2.items():
        cells = [
            f"{d - full:+.1f} / {r - full:+.1f}"
            for d, r in zip(discriminative, random, strict=True)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    own = []
    for share in FIG_2_SHARES:
        pair = [points.get((name, share)) for name in ("discriminative", "random")]
        own.append(
            " / ".join(
                "-" if p is None else f"{100 * (p['mean'] - curve['full_accuracy']):+.1f}"
                for p in pair
            )
        )
    return "\n".join(
        ["## Compression (Fig. 2)", "",
         f"![Accuracy against the share of features left out](images/{stem}-compression.svg)", "",
         f"Top-1 in per cent by share kept; {curve['probe']}, the same for all.", "",
         curve["markdown"].strip(), "",
         "Points lost against all features, discriminative / random; the paper's are read off its figure "
         "(ImageNet-1K, ResNet-50, to 0.4).", "",
         "| | " + " | ".join(f"{100 * share:g} % kept" for share in FIG_2_SHARES) + " |",
         "|---|" + "---|" * len(FIG_2_SHARES),
         f"| **here** | {' | '.join(own)} |", *rows]
    )  # fmt: skip


def _measures(report: dict[str, Any]) -> str:
    rows = [_measure(name, found) for name, found in report["measures"].items()]
    of_views = [_measure(name, found) for name, found in report["of_views"].items()]
    return "\n".join(
        ["## Dataset-level measures", "",
         _filled(
             "What each is: [measures.md](measures.md). Of the training images; the last three of these and "
             "uniformity of a sample where there are many. LiDAR and alignment compare the test images with "
             "their mirrored and shifted views."
         ), "",
         "| measure | value |", "|---|---|", *rows, *of_views, "",
         *(f"* Training images: {note}." for note in report["notes"]),
         *(f"* Test images and views: {note}." for note in report["view_notes"])]
    )  # fmt: skip


def _measure(name: str, found: dict[str, Any]) -> str:
    value = "undefined" if found["value"] is None else f"{found['value']:.5g}"
    return f"| {name} | {value} |"


def _planted(rows: list[dict[str, Any]]) -> str:
    scores = [key.removeprefix("AUROC of ") for key in rows[0] if key.startswith("AUROC of ")]
    table = [
        f"| {row['case']} | {_mean(row['f1'])} | "
        + " | ".join(_mean(row[f"AUROC of {name}"]) for name in scores)
        + " |"
        for row in rows
    ]
    return "\n".join(
        ["## A planted population", "",
         _filled(
             "Features are rare, class-specific or ubiquitous; samples good or poor. F1 is that of D against "
             "the class-specific features, the others are AUROC against the planted quality; mean of "
             f"{len(rows[0]['seeds'])} seeds."
         ), "",
         "| case | F1 of D | " + " | ".join(scores) + " |", "|---|" + "---|" * (len(scores) + 1), *table, "",
         _filled(
             "The band keeps 45 % of the features, whatever there is: where the class-specific are fewer or "
             "more, or more than 5 % are ubiquitous, D holds others or lacks some. That is a property of the "
             "method."
         )]
    )  # fmt: skip


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}"


def _again() -> str:
    return """
## Again

```bash
python -m benchmarks.science --out work                      # Fashion-MNIST (Debian's dataset-fashion-mnist)
python -m benchmarks.science --out work --encoder resnet18   # trains one first, until it is sparse
python -m benchmarks.science --out other --encoder FILE --eps auto --label NAME
python -m benchmarks.science --out work --imagenet PATH --encoder CKPT
python -m benchmarks.science --out work --imagenet PATH --encoder CKPT --classes imagenet100
python -m benchmarks.science --from FILE --beside OTHER --document docs     # this page again, from results
```

On a GPU the first does what the second does, too; `--pretraining-epochs` and `--pretraining-rounds` make the
training shorter or longer. The third takes any checkpoint. The fourth and fifth make the paper's own tables,
for ImageNet-1K and ImageNet-100: PATH holds the original tars, Kaggle's tree, or `train` and `val`. The
estimated time is printed first. A run that is stopped goes on with the same command: scoring by units,
trainings at their last checkpoint, the rest by steps.
"""
