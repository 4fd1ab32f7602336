"""The command line's grammar and its help."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from jsonargparse import ArgumentParser

from qscore_fast.cli.compress_command import compress_parser
from qscore_fast.cli.discover_command import discover_parser, rescore_parser
from qscore_fast.cli.encoder_options import (
    SPEC_HELP,
    add_inference,
    add_loading,
    add_preprocessing,
)
from qscore_fast.cli.encoders_parser import add_encoders_command
from qscore_fast.cli.evaluate_command import evaluate_parser
from qscore_fast.cli.finetune_command import add_finetune_command
from qscore_fast.cli.heatmap_command import heatmap_parser
from qscore_fast.cli.interpret_command import interpret_parser
from qscore_fast.cli.knn_command import knn_parser
from qscore_fast.cli.metrics_command import metrics_parser
from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.probe_command import probe_parser
from qscore_fast.cli.report_command import report_parser
from qscore_fast.cli.serve_command import serve_parser
from qscore_fast.cli.source_options import IMAGES_HELP, add_source


def build_parser() -> ArgumentParser:
    """The parser of ``qscore``. Imports no torch: help must be instant."""
    parser = new_parser(
        "How good is each representation of a self-supervised encoder? A score per image, no labels.",
        """\
example:
  qscore demo                                          the whole thing on bundled images
  qscore score photos/ --encoder timm:resnet50 --out runs/a
  qscore discover runs/a --eps auto                    other features, no image touched again

Every subcommand has its own help: qscore score --help. Results are Parquet files; a run that was
stopped, however it was stopped, goes on when the same command is given again.
exit codes: 0 done (bad images are counted and listed), 2 wrong input, 3 more bad images than
--max-error-rate allows, 75 the images cannot be read for now (give the same command again), 130 stopped
by Ctrl-C, 143 stopped by SIGTERM""",
        _version(),
    )
    commands = parser.add_subcommands(required=True, metavar="COMMAND", title="commands")
    commands.add_subcommand(
        "score", _score(), help="score a folder, a list, shards or a bucket of images"
    )
    commands.add_subcommand(
        "discover", discover_parser(), help="discover features again in a finished run"
    )
    commands.add_subcommand(
        "rescore", rescore_parser(), help="score a finished run again with other features or eps"
    )
    commands.add_subcommand(
        "metrics", metrics_parser(), help="measure a whole run's representations without labels"
    )
    commands.add_subcommand(
        "probe", probe_parser(), help="train a linear probe and see which images it gets right"
    )
    commands.add_subcommand(
        "knn", knn_parser(), help="classify a run's images by their nearest neighbours in another"
    )
    commands.add_subcommand(
        "evaluate", evaluate_parser(), help="compare the scores with what a probe gets right"
    )
    commands.add_subcommand(
        "compress", compress_parser(), help="keep a share of the features, and see what that costs"
    )
    commands.add_subcommand(
        "report", report_parser(), help="write a run as one HTML page with its images and numbers"
    )
    commands.add_subcommand(
        "interpret",
        interpret_parser(),
        help="see whether the evidence lies on Salient ImageNet's masks",
    )
    commands.add_subcommand(
        "serve", serve_parser(), help="show a run of any size in the browser, from this machine"
    )
    add_finetune_command(commands)
    commands.add_subcommand(
        "heatmap", heatmap_parser(), help="draw where in the images the features have fired"
    )
    commands.add_subcommand("demo", _demo(), help="score bundled images and draw the result")
    add_encoders_command(commands)
    commands.add_subcommand("bench", _bench(), help="measure the kernels on this machine")
    commands.add_subcommand("info", _info(), help="show versions and which kernels are in use")
    return parser


def _score() -> ArgumentParser:
    parser = new_parser(
        """\
Score every image of a source: encode it, keep its statistics and its active features, discover
the discriminative features, and write one Q-Score an image.

Bad images are left out, counted and listed with the reason. Stop it at any time: the same command
goes on with what is missing. Give it several times at once, on one machine or on many that share OUT,
and the work is divided.""",
        """\
examples:
  qscore score photos/ --encoder encoder.pt --out runs/a
  qscore score val/ --encoder timm:resnet50 --out runs/val --features runs/train
  qscore score photos/ --encoder torchvision:resnet18 --out runs/b --embeddings npy --json
  qscore score photos/ --encoder dino_vits16.pth --two-sided --precision bfloat16 --out runs/c
  qscore score val/ --encoder encoder.pt --view flip --embeddings npy --out runs/val-flip
  qscore score 'shards/train-{0000..0146}.tar' --encoder swav_800ep_pretrain.pth.tar --out runs/d

written to OUT:
  scores.parquet   sample_id, label, q_score, num_active, num_highly_active, mean, std, l1, l2
  errors.parquet   sample_id, stage, error: one row for each image without a score
  features.npz     the activation census and the discriminative features
  parts/, run.json one part a unit, and what was asked for""",
    )
    add = parser.add_argument
    add(
        "images",
        metavar="IMAGES",
        type=str,
        help=IMAGES_HELP,
    )
    add("--encoder", type=str, required=True, help=SPEC_HELP)
    add("--out", type=str, required=True, help="the run's folder; made if it is missing")
    add(
        "--features",
        type=str | None,
        help="use these discriminative features instead of discovering them on these images: a "
        "features.npz or the folder of a run with the same encoder",
    )
    _add_discovery(parser)
    add(
        "--view",
        type=Literal["flip", "shift", "crop"] | None,
        help="show the encoder every image mirrored, moved by a sixteenth of its sides, or cut to the "
        "central seven eighths: one more view of the same images, for metrics --views and evaluate --views",
    )
    add("--batch-size", type=int, default=64, help="images a call of the encoder")
    add("--workers", type=int | None, help="decoding threads (default: one a core, at most 16)")
    add("--unit-size", type=int, default=1024, help="images a part: at most so many are redone")
    add(
        "--activation-eps",
        type=float,
        default=2.0,
        help="keep activations above mean + this many standard deviations; discover can later "
        "answer for any larger eps",
    )
    add(
        "--embeddings",
        type=Literal["none", "npy", "parquet"],
        default="none",
        help="keep the representations, float16: npy beside the parts, parquet with their sample ids in "
        "OUT/embeddings",
    )
    add(
        "--decoder",
        type=Literal["auto", "pillow", "torchcodec", "nvjpeg"],
        default="auto",
        help="what decodes the images; a run continues only with the same (auto is pillow; torchcodec needs "
        "the extra of that name; nvjpeg decodes and resizes JPEGs on the encoder's GPU)",
    )
    add(
        "--exif-rotation",
        action="store_true",
        help="turn images as their EXIF says (published encoders were trained and evaluated without)",
    )
    add(
        "--max-pixels",
        type=int,
        default=178_956_970,
        help="refuse larger images (width x height) from their header",
    )
    _add_two_sided(parser)
    add(
        "--processes",
        type=int,
        default=1,
        help="processes on this machine, each on a GPU of its own where there are several",
    )
    add(
        "--shard-index",
        type=int | None,
        help="do every num-shards-th unit alone, from this one on; from 0, for array jobs. The shard that "
        "completes the run writes the results",
    )
    add("--num-shards", type=int | None, help="how many shards there are")
    add(
        "--engine",
        type=Literal["local", "ray"],
        default="local",
        help="ray: encode on the nodes of a Ray cluster, one encoder a GPU, and write here (needs the extra "
        "of that name)",
    )
    add(
        "--ray-address",
        type=str | None,
        help="host:port of the cluster's head, or auto (default: RAY_ADDRESS, then the cluster that this "
        "machine belongs to, then this machine alone)",
    )
    add("--ray-actors", type=int | None, help="encode on so many GPUs, or nodes, at most")
    add(
        "--max-error-rate",
        type=float | None,
        help="stop with exit code 3 when a larger share of the images than this (0 to 1) is bad, judged "
        "from 100 images on, after each batch, and at the end; errors.parquet then has what is known "
        "(default: never)",
    )
    add(
        "--retry-errors",
        action="store_true",
        help="do parts again in which images could not be read (stage read in errors.parquet)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="delete the run that is in OUT instead of continuing it",
    )
    add("--config", action="config", help="a YAML file with any of these options")
    add_source(parser)
    add_loading(parser)
    add_preprocessing(parser)
    add_inference(parser)
    return add_json(parser)


def _demo() -> ArgumentParser:
    parser = new_parser(
        """\
The main job on real images that come with the package (Fashion-MNIST) under an encoder trained
without labels: discovers the features on 4,000 images, scores 2,000 others, draws demo.png and writes
report.html.
Takes about a minute; a second run, seconds.""",
        """\
examples:
  qscore demo --out /tmp/qscore-demo
  qscore demo --encoder resnet50.pth --limit 200 --out /tmp/other     the same with your checkpoint""",
    )
    add = parser.add_argument
    add("--out", type=str, default="qscore-demo", help="the folder")
    add("--encoder", type=str, default="demo", help=f"{SPEC_HELP}; images become what it takes")
    add("--limit", type=int | None, help="take at most this many images for each of the two steps")
    _add_two_sided(parser)
    add("--overwrite", action="store_true", help="delete an earlier demo's runs that are in OUT")
    add_loading(parser)
    add_preprocessing(parser)
    add_inference(parser)
    return add_json(parser)


def _bench() -> ArgumentParser:
    parser = new_parser(
        """\
Measure the kernels on this machine against plain PyTorch, torch.compile, NumPy, and the limit: the time
of merely moving the matrices, taken in the same run. Every result is first checked against the
equations in float64; a wrong one has no time.

In full it takes about ten minutes and 8 GiB of memory; --quick under one minute and 2 GiB.""",
        """\
examples:
  qscore bench --quick
  qscore bench --device cpu --threads 8 --dtypes float32
  qscore bench --out results --json

written to OUT:
  DEVICE/kernels-DATE.json   device, versions, and the seconds, GB/s and peak memory of every case""",
    )
    add = parser.add_argument
    add("--device", type=str | None, help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    add(
        "--dtypes",
        type=Literal["float32", "bfloat16", "float16"],
        nargs="+",
        default=["float32", "bfloat16", "float16"],
        help="dtypes of h to measure",
    )
    add("--threads", type=int | None, help="threads of the CPU (default: PyTorch's number)")
    add("--quick", action="store_true", help="smaller matrices, fewer cases and comparators")
    add("--out", type=str, default="qscore-bench", help="the folder of the results")
    return add_json(parser)


def _info() -> ArgumentParser:
    return add_json(
        new_parser("Show the versions of the libraries, and which kernels run on which device.", "")
    )


def _version() -> str:
    try:
        return version("qscore-fast")
    except PackageNotFoundError:
        return "unknown"


def _add_discovery(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--eps",
        type=float | Literal["auto"] | None,
        help="a feature is active above mean + eps standard deviations of its sample; auto: the "
        "largest eps up to 4, in steps of 0.1, that leaves at most 1 percent of the samples without an "
        "active discriminative feature (default: 4, or that of --features, which it must not contradict)",
    )
    parser.add_argument(
        "--lower",
        type=float,
        default=50.0,
        help="percentile of the features' activation percentages from which one is discriminative",
    )
    parser.add_argument(
        "--upper", type=float, default=95.0, help="percentile up to which one is discriminative"
    )


def _add_two_sided(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--two-sided",
        action="store_true",
        help="a feature is active below mean - eps standard deviations, too: for encoders whose "
        "features have signs, such as vision transformers; an extension beyond the paper",
    )
