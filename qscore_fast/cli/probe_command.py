"""``qscore probe``: a linear probe on one run's embeddings, asked about another run's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.new_parser import add_finite_only, add_json, new_parser
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# As in evaluation.sgd.PROTOCOLS; help imports no torch.
Protocol = Literal[
    "logistic", "moco", "moco_v3", "moco_v3_vit", "simsiam", "swav", "vicreg", "barlow", "dino",
    "dinov2", "byol", "simclr", "solo-learn",
]  # fmt: skip


def probe_parser() -> ArgumentParser:
    """The grammar and help of ``qscore probe``."""
    parser = new_parser(
        """\
Train a linear probe on the embeddings of one run and ask it about the images of another: multinomial
logistic regression, or SGD as a system's authors do it, on the cached embeddings. What it gets right is
what qscore evaluate takes. No image is touched.""",
        """\
examples:
  qscore probe runs/train runs/val --out probe
  qscore probe runs/train runs/val --protocol dinov2 --device cuda
  qscore probe runs/train runs/val --protocol moco --epochs 20 --rate 3 10 30
  qscore probe runs/train runs/val --path --out curve
  qscore evaluate runs/val --correct probe/probe.parquet --logits probe/logits.npy

written to the folder of --out:
  probe.parquet  sample_id, label, prediction, correct, confidence; without --out in the folder of TEST
  logits.npy     float32, a row for each row of probe.parquet
  probe.npz      weight, bias, classes; probe.json: accuracies and settings
  path.csv, path.json, path.svg (of --path, instead): loss and accuracy by C""",
    )
    add = parser.add_argument
    add("train", metavar="TRAIN", type=str, help="the folder of a run with embeddings and labels")
    add("test", metavar="TEST", type=str, help="the same of the images to ask about")
    add("--labels", type=str | None, help="sample_id and label of TRAIN, if it has no labels")
    add("--test-labels", type=str | None, help="the same for TEST")
    add(
        "--protocol",
        type=Protocol,
        default="logistic",
        help="logistic: L-BFGS to convergence; the others: SGD with the published settings of a system",
    )
    add("--epochs", type=int | None, help="of SGD (default: the protocol's)")
    add(
        "--rate",
        type=float,
        nargs="+",
        help="learning rates of SGD as the protocol counts them, trained all at once; of several the best on "
        "held-out images (default: the protocol's)",
    )
    add(
        "--C",
        type=float,
        nargs="+",
        help="inverse regularisation of logistic regression; several with --path (default: chosen on "
        "held-out images)",
    )
    add(
        "--path",
        action="store_true",
        help="loss and accuracy of logistic regression for many C, instead of one probe",
    )
    add("--seed", type=int, default=0, help="of held-out images, and of SGD's start and order")
    add("--device", type=str, default="cpu", help="where the probe is trained")
    add_finite_only(parser)
    add(
        "--out",
        type=str | None,
        help="write all results to this folder (default: probe.parquet alone, beside the scores of TEST)",
    )
    return add_json(parser)


def probe(options: Namespace) -> None:
    """Print the accuracies, or the curve."""
    from qscore_fast.errors import SettingsError
    from qscore_fast.evaluation.probes import LinearProbe, LogisticPath, linear_probe, logistic_path

    beside_scores = options.out is None and not options.path
    if beside_scores and os.path.isdir(options.test) and not os.access(options.test, os.W_OK):
        raise SettingsError(  # before the work, not after it
            f"probe.parquet would go to {options.test}, which cannot be written: give another folder (--out)"
        )
    found: LinearProbe | LogisticPath
    common = {
        "labels": options.labels,
        "test_labels": options.test_labels,
        "device": options.device,
        "finite_only": options.finite_only,
    }
    if options.path:
        if options.protocol != "logistic" or options.epochs is not None or options.rate:
            raise SettingsError(
                "--path is a curve of logistic regression: leave out --protocol, --epochs and --rate"
            )
        found = logistic_path(options.train, options.test, C=options.C, **common)
    else:
        if options.C is not None and len(options.C) > 1:
            raise SettingsError(f"--C has {len(options.C)} values: give one, or --path as well")
        found = linear_probe(
            options.train,
            options.test,
            protocol=options.protocol,
            epochs=options.epochs,
            rates=options.rate,
            C=None if options.C is None else options.C[0],
            seed=options.seed,
            **common,
        )
    if options.out is not None:
        written = found.write(options.out)
    else:
        written = [found.write_answers(options.test)] if isinstance(found, LinearProbe) else []
    result = {**found.to_json(), "files": [str(path) for path in written]}
    print_result(result, found.lines(), options.json)
    for path in written:
        say(f"written {path}")
