"""``qscore compress``: fewer features, as files or as a curve of probe accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from qscore_fast.cli.new_parser import add_finite_only, add_json, new_parser
from qscore_fast.cli.terminal import print_result, say
from qscore_fast.errors import SettingsError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

FILES_ONLY = ("keep", "strategy", "format", "index", "seed")
CURVE_ONLY = ("shares", "seeds", "labels", "test_labels", "C", "device")


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
        type=Literal["discriminative", "random", "top_tail", "bottom_tail", "variance"] | None,
        help="which features to keep (default: discriminative)",
    )
    add(
        "--format",
        type=Literal["npy", "parquet"] | None,
        help="of the representations (default: npy)",
    )
    add(
        "--index",
        type=Literal["none", "flat", "fp16"] | None,
        help="write a FAISS index, too, of float32 or float16 entries (default: none)",
    )
    add("--seed", type=int | None, help="of the random strategy (default: 0)")
    add("--test", type=str | None, help="a run of the test images: draw the curve instead")
    add(
        "--shares",
        type=float,
        nargs="+",
        help="of the curve (default: 0.9 to 0.1, in steps of 0.1)",
    )
    add("--seeds", type=int | None, help="random subsets a share, of the curve (default: 4)")
    add(
        "--labels", type=str | None, help="of the curve: sample_id and label of OUT, if it has none"
    )
    add("--test-labels", type=str | None, help="the same for --test")
    add("--C", type=float | None, help="inverse regularisation of the probes (default: chosen)")
    add("--device", type=str | None, help="where the probes are trained (default: cpu)")
    add_finite_only(parser)
    add("--out", type=str, required=True, help="the folder to write to; made if missing")
    return add_json(parser)


def compress(options: Namespace) -> None:
    """Write the reduced representations, or the curve."""
    if options.test is not None:
        _refuse(options, FILES_ONLY, "--test draws the curve of every strategy")
        _curve(options)
        return
    _refuse(options, CURVE_ONLY, "without --test no probe is trained and no curve drawn")
    from qscore_fast.evaluation.compression import compress_run

    found = compress_run(
        options.run,
        options.out,
        keep=options.keep,
        finite_only=options.finite_only,
        **_given(options, strategy="strategy", file_format="format", index="index", seed="seed"),
    )
    print_result(found.to_json(), found.lines(), options.json)
    for path in found.files:
        say(f"written {path}")


def _curve(options: Namespace) -> None:
    from qscore_fast.evaluation.compression import compression_curve_of_runs

    curve = compression_curve_of_runs(
        options.run,
        options.test,
        labels=options.labels,
        test_labels=options.test_labels,
        C=options.C,
        finite_only=options.finite_only,
        progress=say,
        **_given(options, shares="shares", num_seeds="seeds", device="device"),
    )
    written = curve.write(options.out)
    print_result(
        {**curve.to_json(), "files": [str(path) for path in written]},
        curve.to_markdown().splitlines(),
        options.json,
    )
    for path in written:
        say(f"written {path}")


def _given(options: Namespace, **names: str) -> dict[str, Any]:
    """The options of these names that were given, by the names of the arguments that they are for."""
    return {
        argument: options[name] for argument, name in names.items() if options[name] is not None
    }


def _refuse(options: Namespace, names: Sequence[str], why: str) -> None:
    """SettingsError if an option was given that would do nothing."""
    found = [f"--{name.replace('_', '-')}" for name in names if options[name] is not None]
    if found:
        raise SettingsError(f"{why}: leave out {', '.join(found)}")
