"""``qscore metrics``: the dataset-level measures of a scored run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def metrics_parser() -> ArgumentParser:
    """The grammar and help of ``qscore metrics``."""
    parser = new_parser(
        """\
How healthy is the representation of a whole run, without labels: RankMe, alpha-ReQ, effective rank,
NESum, stable rank, participation ratio, pseudo-condition number, coherence, self-clustering,
uniformity, normalised std, sparsity.

Reads the embeddings that the run kept, part by part, twice; memory does not grow with the images.""",
        """\
examples:
  qscore score photos/ --encoder encoder.pt --out runs/a --embeddings npy
  qscore metrics runs/a
  qscore metrics runs/a --clid --json
  qscore score photos/ --encoder encoder.pt --view flip --out runs/a-flip --embeddings npy
  qscore metrics runs/a --views runs/a-flip

docs/measures.md says what each is, which convention is meant and what to beware of.""",
    )
    add = parser.add_argument
    add(
        "run",
        metavar="OUT",
        type=str,
        help="the folder of a run; without embeddings it has the l1 sparsity alone",
    )
    add(
        "--clid",
        action="store_true",
        help="add cluster learnability, intrinsic dimension and CLID of the sample (takes scikit-learn)",
    )
    add(
        "--views",
        metavar="RUN",
        type=str,
        nargs="+",
        default=[],
        help="runs of other views of the same images (score --view), joined on the sample id: adds LiDAR and "
        "alignment",
    )
    add(
        "--max-rows",
        type=int,
        default=8192,
        help="rows that uniformity and CLID are made from: all if there are no more, else a seeded sample",
    )
    add("--seed", type=int, default=0, help="of the sample and of CLID")
    add("--device", type=str | None, help="where to sum: cpu, cuda (default: cpu)")
    add(
        "--out",
        metavar="FILE",
        type=str | None,
        help="write the measures to this file as JSON, too",
    )
    return add_json(parser)


def metrics(options: Namespace) -> None:
    """Print the measures of a run."""
    from qscore_fast.evaluation.measures import measure_run
    from qscore_fast.scoring.atomic import write_text

    report = measure_run(
        options.run,
        views=options.views or None,
        clid=options.clid,
        max_rows=options.max_rows,
        seed=options.seed,
        device=options.device,
    )
    content = {"run": options.run, **report.to_json()}
    if options.out is not None:
        write_text(Path(options.out), json.dumps(content, indent=1) + "\n")
    print_result(content, report.lines(), options.json)
    if options.out is not None:
        say(f"written {options.out}")
