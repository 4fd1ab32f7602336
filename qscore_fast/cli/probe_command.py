"""``qscore probe``: a linear probe on one run's embeddings, asked about another run's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def probe_parser() -> ArgumentParser:
    """The grammar and help of ``qscore probe``."""
    parser = new_parser(
        """\
Train a linear probe (multinomial logistic regression) on the embeddings of one run and ask it about the
images of another. What it gets right is what qscore evaluate takes. No image is touched.""",
        """\
examples:
  qscore probe runs/train runs/val --out probe
  qscore evaluate runs/val --correct probe/probe.parquet --logits probe/logits.npy

written to the folder of --out:
  probe.parquet  sample_id, label, prediction, correct, confidence
  logits.npy     float32, a row for each row of probe.parquet
  probe.npz      weight, bias, classes; probe.json: accuracies and settings""",
    )
    add = parser.add_argument
    add("train", metavar="TRAIN", type=str, help="the folder of a run with embeddings and labels")
    add("test", metavar="TEST", type=str, help="the same of the images to ask about")
    add("--labels", type=str | None, help="sample_id and label of TRAIN, if it has no labels")
    add("--test-labels", type=str | None, help="the same for TEST")
    add(
        "--C", type=float | None, help="inverse regularisation (default: chosen on held-out images)"
    )
    add("--device", type=str, default="cpu", help="where the probe is trained")
    add("--out", type=str | None, help="write the results to this folder, too")
    return add_json(parser)


def probe(options: Namespace) -> None:
    """Print the accuracies."""
    from qscore_fast.evaluation.probes import linear_probe

    found = linear_probe(
        options.train,
        options.test,
        labels=options.labels,
        test_labels=options.test_labels,
        C=options.C,
        device=options.device,
    )
    written = [] if options.out is None else found.write(options.out)
    result = {**found.to_json(), "files": [str(path) for path in written]}
    print_result(result, found.lines(), options.json)
    for path in written:
        say(f"written {path}")
