"""``qscore compress``: fewer features, as files or as a curve of probe accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.terminal import print_result, say
from qscore_fast.errors import SettingsError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

SHARES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


def compress_parser() -> ArgumentParser:
    """The grammar and help of ``qscore compress``."""
    parser = new_parser(
        """\
Keep a share of the features of a finished run: the reduced representations and the list of what was
kept, with a FAISS index on demand (--out); or how a linear probe's accuracy falls with the share, for
discriminative features and for their rivals (--test, the paper's Fig. 2).

The run must hold embeddings (qscore score --embeddings npy). No image is touched.""",
        """\
examples:
  qscore compress runs/train --keep 0.6 --out small
  qscore compress runs/train --keep 0.6 --index fp16 --out small
  qscore compress runs/train --test runs/val --out curve

written to the folder of --out:
  embeddings.npy, sample_ids.parquet   or embeddings.parquet, which holds both
  index.faiss                          with --index: rows at length 1, inner product
  kept.json                            the indices, and whose encoder's they are
  compression.json, .md, .svg          with --test: the curve""",
    )
    add = parser.add_argument
    add("run", metavar="OUT", type=str, help="the folder of a run with embeddings")
    add("--keep", type=float | None, help="share of the features (default: D itself)")
    add(
        "--strategy",
        type=Literal["discriminative", "random", "top_tail", "bottom_tail", "variance"],
        default="discriminative",
        help="which features to keep",
    )
    add("--format", type=Literal["npy", "parquet"], default="npy", help="of the representations")
    add(
        "--index",
        type=Literal["none", "flat", "fp16"],
        default="none",
        help="write a FAISS index, too, of float32 or float16 entries",
    )
    add("--test", type=str | None, help="a run of the test images: draw the curve instead")
    add("--shares", type=float, nargs="+", default=SHARES, help="of the curve")
    add("--seeds", type=int, default=4, help="random subsets a share, of the curve")
    add("--labels", type=str | None, help="sample_id and label of OUT, if the run has no labels")
    add("--test-labels", type=str | None, help="the same for --test")
    add("--C", type=float | None, help="inverse regularisation of the probe (default: chosen)")
    add("--seed", type=int, default=0, help="of the random strategy")
    add("--device", type=str, default="cpu", help="where the probes are trained")
    add("--out", type=str, required=True, help="the folder to write to; made if missing")
    return add_json(parser)


def compress(options: Namespace) -> None:
    """Write the reduced representations, or the curve."""
    if options.test is not None:
        if options.keep is not None or options.index != "none":
            raise SettingsError("--test draws the curve: leave out --keep and --index")
        _curve(options)
        return
    from qscore_fast.evaluation.compression import compress_run

    found = compress_run(
        options.run,
        options.out,
        keep=options.keep,
        strategy=options.strategy,
        file_format=options.format,
        index=options.index,
        seed=options.seed,
    )
    print_result(found.to_json(), found.lines(), options.json)
    for path in found.files:
        say(f"written {path}")


def _curve(options: Namespace) -> None:
    from qscore_fast.evaluation.compression import compression_curve_of_runs

    curve = compression_curve_of_runs(
        options.run,
        options.test,
        shares=options.shares,
        num_seeds=options.seeds,
        labels=options.labels,
        test_labels=options.test_labels,
        C=options.C,
        device=options.device,
        progress=say,
    )
    written = curve.write(options.out)
    print_result(
        {**curve.to_json(), "files": [str(path) for path in written]},
        curve.to_markdown().splitlines(),
        options.json,
    )
    for path in written:
        say(f"written {path}")
