"""``qscore evaluate``: is the score high where a probe is right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser

from qscore_fast.cli.new_parser import add_finite_only, add_json, new_parser
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from qscore_fast.evaluation.failure import FittedProbe

OWN = "own"


def evaluate_parser() -> ArgumentParser:
    """The grammar and help of ``qscore evaluate``."""
    parser = new_parser(
        """\
Failure prediction: does the score say which images a probe gets right? Q-Score and every rival that
needs no labels, a constant and a shuffled score, with bootstrap intervals and the conventions named.

No image is touched. kNN, Gini sparsity, Mahalanobis and PCA need a run with --embeddings.""",
        """\
examples:
  qscore evaluate runs/val --labels --train runs/train
  qscore evaluate runs/val --labels labels.csv --probe knn
  qscore evaluate runs/val --correct correct.csv
  qscore evaluate runs/val --correct probe.parquet --reference runs/train --columns confidence
  qscore evaluate runs/val --correct probe.parquet --logits logits.npy --out results --json

Which images are right comes from a probe that is trained here on cached embeddings (--labels, with or
without --train), or from a file (--correct).

FILE of --labels: .parquet or .csv with sample_id and label
FILE of --correct: .parquet or .csv with the columns sample_id and correct (true or 1, false or 0), or
sample_id, label and prediction
written to the folder of --out:
  failure.json     every number with its interval, conventions and notes
  failure.md       the paper's Table 1 of this run, and the table of all scores
  failure.parquet  sample_id, correct, and every score of every image""",
    )
    add = parser.add_argument
    add("run", metavar="OUT", type=str, help="the folder of a finished run")
    add("--correct", metavar="FILE", type=str | None, help="which images a probe got right")
    add(
        "--labels",
        metavar="FILE",
        nargs="?",
        const=OWN,
        type=str | None,
        help="train a probe and take what it gets right: the classes of OUT's images, from a file or, "
        "without one, those of the run",
    )
    add(
        "--train",
        metavar="RUN",
        type=str | None,
        help="train the probe on this run, same encoder (default: on OUT itself, cross-fitted in 5 folds)",
    )
    add("--train-labels", metavar="FILE", type=str | None, help="of RUN, if it has no labels")
    add(
        "--probe",
        type=Literal["logistic", "knn"] | None,
        help="logistic regression, or the vote of the 20 nearest neighbours (default: logistic)",
    )
    add(
        "--reference",
        type=str | None,
        help="the run of the reference set, same encoder, for kNN, Mahalanobis and PCA, such as that of the "
        "training images (default: that of --train, else OUT itself)",
    )
    add(
        "--views",
        type=str,
        nargs="+",
        default=[],
        help="runs of other views of the same images, for perturbation consistency",
    )
    add(
        "--columns",
        type=str,
        nargs="+",
        default=[],
        help="numeric columns of --correct to evaluate, too; higher means more trusted",
    )
    add(
        "--logits",
        type=str | None,
        help="an .npy file with the probe's logits, a row for each row of --correct: adds MSP, margin, max "
        "logit, energy and entropy, which use labels",
    )
    add("--subset", action="store_true", help="evaluate the images that OUT and --correct share")
    add("--neighbours", type=int, default=10, help="k of kNN distance and density")
    add("--coverage", type=float, default=0.8, help="of accuracy at coverage")
    add("--risk", type=float, default=0.05, help="of coverage at risk")
    add("--resamples", type=int, default=10_000, help="of the bootstrap; 0: no intervals")
    add("--level", type=float, default=0.95, help="the share that an interval holds")
    add("--seed", type=int, default=0, help="of resamples, shuffled score, folds, held-out images")
    add("--device", type=str, default="cpu", help="of distances, covariances and the probe")
    add("--out", type=str | None, help="write the results to this folder, too")
    add_finite_only(parser)
    return add_json(parser)


def evaluate(options: Namespace) -> None:
    """Print the table of all scores."""
    from qscore_fast.evaluation.failure import RivalSettings, default_metrics, evaluate_run

    found = evaluate_run(
        options.run,
        _correct(options),
        reference=options.reference or options.train,
        views=options.views,
        columns=options.columns,
        logits=options.logits,
        subset=options.subset,
        finite_only=options.finite_only,
        settings=RivalSettings(k=options.neighbours, device=options.device),
        metrics=default_metrics(options.coverage, options.risk),
        num_resamples=options.resamples,
        level=options.level,
        seed=options.seed,
    )
    written = [] if options.out is None else found.write(options.out)
    print_result(
        {"model": found.model, **found.table.to_json(), "files": [str(path) for path in written]},
        found.to_markdown().splitlines(),
        options.json,
    )
    for path in written:
        say(f"written {path}")


def _correct(options: Namespace) -> str | FittedProbe:
    """The file of correctness, or the probe that was asked for instead."""
    from qscore_fast.errors import SettingsError
    from qscore_fast.evaluation.failure import fitted_probe

    fits = options.labels is not None or options.train is not None
    if options.correct is not None:
        if fits or options.train_labels is not None or options.probe is not None:
            raise SettingsError(
                "--correct says which images are right; --labels, --train, --train-labels and --probe have a "
                "probe find out: give one or the other"
            )
        return str(options.correct)
    if not fits:
        raise SettingsError(
            "nothing says which images are right: give --labels (the run's own, or --labels FILE) to train a "
            "probe here, with --train RUN where there are training images; or --correct FILE"
        )
    if options.subset:
        raise SettingsError(
            "--subset is for a file of correctness (--correct), which may lack images of OUT; a probe that "
            "is trained here is asked about all of them: leave it out"
        )
    return fitted_probe(
        options.run,
        None if options.labels in (None, OWN) else options.labels,
        probe=options.probe or "logistic",
        train=options.train,
        train_labels=options.train_labels,
        seed=options.seed,
        device=options.device,
        finite_only=options.finite_only,
    )
