"""``qscore finetune``: train an encoder further, compare regularisers, export what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.source_options import IMAGES_HELP, add_source
from qscore_fast.cli.terminal import print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from qscore_fast.finetuning import Settings

_SCALARS = (
    ("--preset", Literal["paper", "official"], "the paper's further training: rate 1e-5, 50 epochs, LARS, "
     "warm-up and cosine; or the system's official recipe (default: paper)"),
    ("--regulariser", Literal["qscore", "lasso", "none"], "what is added to the loss (default: qscore)"),
    ("--lambda1", float, "weight of the term that raises low scores (default: 1e-4)"),
    ("--lambda2", float, "weight of the term that lowers large columns (default: 1e-4)"),
    ("--lambda-schedule", Literal["constant", "warmup", "warmup_anneal"], "of both (default: constant)"),
    ("--reduction", Literal["sum", "mean"], "of the second term: as published, or over the rows too"),
    ("--eps", float, "threshold of L (default: that of the features)"),
    ("--epochs", int, "how long (default: the preset's)"),
    ("--steps", int, "how long in steps of the optimiser, in place of epochs"),
    ("--batch-size", int, "images a step over all processes (default: the preset's)"),
    ("--lr", float, "the peak rate, not scaled by the batch (default: the preset's)"),
    ("--warmup-epochs", float, "of the rate (default: the preset's, or a tenth of a shorter training)"),
    ("--weight-decay", float, "default: the preset's"),
    ("--optimiser", Literal["lars", "sgd", "adamw"], "default: the preset's"),
    ("--precision", Literal["float32", "bf16"], "bf16: autocast (default: float32)"),
    ("--accumulate", int, "batches that make one step (default: 1)"),
    ("--refresh-features", int, "discover D anew every N epochs (default: 0, never)"),
    ("--warm-up-heads", int, "steps of fresh heads alone, the backbone frozen (default: one epoch if there "
     "are any)"),
    ("--image-size", int, "side of the full-size views (default: as the encoder was trained)"),
    ("--crop-scale", float, "factor on the area of the crops, for small images (default: 1)"),
    ("--seed", int, "of fresh heads, order and augmentation (default: 0)"),
    ("--workers", int, "decoding processes of each training process (default: one a core, at most 16)"),
    ("--shuffle-images", int, "of shards: images that are shuffled among each other (default: 2048)"),
    ("--log-every", int, "steps between lines of the log (default: 10)"),
    ("--monitor-every", int, "steps between RankMe and the look for collapse (default: 100)"),
    ("--save-every", int, "steps between checkpoints (default: 500)"),
    ("--keep", int, "checkpoints beside the last (default: 2)"),
    ("--collapse-below", float, "stop when the spread of h falls to this share of the first (default: 0.1)"),
)  # fmt: skip
_FLAGS = (
    ("--compile", "torch.compile of the backbone; runs eagerly, with a note, where that fails"),
    ("--channels-last", "memory order that suits convolutions"),
    (
        "--only-from-checkpoint",
        "refuse a checkpoint that lacks heads, in place of starting them at random",
    ),
)


def add_finetune_command(to: Any) -> None:
    """Add ``finetune`` and its ``export`` to what ``add_subcommands`` returned."""
    parser = _train()
    to.add_subcommand(
        "finetune", parser, help="train an encoder further, with the Q-Score regulariser"
    )
    # jsonargparse wants a parser in its place before it has subcommands of its own.
    commands = parser.add_subcommands(required=False, metavar="export", title="after training")
    commands.add_subcommand("export", _export_parser(), help="write what a training made")


def _export_parser() -> ArgumentParser:
    parser = new_parser(
        """\
Write what a training made, finished or not, as a checkpoint that load_encoder and the system's own tools
read: backbones, heads, queue and centre under the official names.""",
        """\
example:
  qscore finetune export tuned --layout official --out tuned.pth""",
    )
    add = parser.add_argument
    add("run", metavar="RUN", type=str, help="the folder of a training")
    add("--layout", type=Literal["official"], default="official", help="of the file")
    add("--out", type=str, required=True, help="the file")
    add(
        "--checkpoint",
        type=str | None,
        help="what the training began with, where it does not lie where it lay then",
    )
    return add_json(parser)


def _train() -> ArgumentParser:
    parser = new_parser(
        """\
Train a self-supervised encoder further with its own objective and the Q-Score regulariser. The system is
recognised from the checkpoint, whose heads, other tower, queue and centre are taken up.

Stop it at any time: the same command goes on from the last checkpoint, exactly.""",
        """\
examples:
  qscore finetune --checkpoint simsiam.pth.tar --data train/ --features runs/train --out tuned
  qscore finetune --checkpoint vicreg_full.pth --data train/ --features auto --out tuned --preset official
  qscore finetune --checkpoint moco.pth.tar --data train/ --features auto --out compared \\
      --compare control,lasso,qscore --seeds 0 1 2 --probe-train train/ --probe-test val/
  qscore finetune export tuned --layout official --out tuned.pth

written to OUT:
  log.jsonl, tensorboard/   loss, terms, mean Q, concentration, RankMe; curves.svg and curves.png
  checkpoints/              the whole state of the training
  finetune.json             what was asked for; bad_images.jsonl: what could not be decoded
  compare.json, .txt, .md   with --compare: Table 2, with seeds and intervals""",
    )
    add = parser.add_argument
    add("--config", action="config", help="a YAML file with these options; those of the line win")
    add("--checkpoint", type=str | None, help="a checkpoint, or demo, timm:NAME, torchvision:NAME")
    add("--system", type=str | None, help="simclr, swav, ...: where the checkpoint does not tell")
    add(
        "--data",
        dest="images",
        type=str | None,
        metavar="IMAGES",
        help=f"{IMAGES_HELP}; labels are not used",
    )
    add(
        "--features",
        type=str | None,
        help="D: a features.npz, the folder of a run with this encoder, or auto: from a scoring pass over "
        "the images",
    )
    add("--out", type=str | None, help="the folder of the training; made if missing")
    add("--device", type=Literal["cpu", "cuda"] | None, help="default: a GPU if there is one")
    add("--devices", type=int, default=1, help="processes on this machine, a GPU each")
    add("--overwrite", action="store_true", help="start over, in place of going on")
    training = parser.add_argument_group("training").add_argument
    for name, kind, words in _SCALARS:
        training(name, type=kind | None, help=words)
    training(
        "--objective",
        type=dict[str, Any] | None,
        help="settings of the objective, such as --objective.temperature 0.2",
    )
    for name, words in _FLAGS:
        training(name, action="store_true", help=words)
    training(
        "--no-tensorboard", action="store_true", help="write the log alone, no files of TensorBoard"
    )
    compared = parser.add_argument_group("comparing regularisers").add_argument
    compared("--compare", type=str | None, metavar="ARMS", help="of control,lasso,qscore")
    compared("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    compared("--probe-train", type=str | None, metavar="IMAGES", help="labelled images for probes")
    compared("--probe-test", type=str | None, metavar="IMAGES", help="labelled images to test on")
    add_source(parser)
    return add_json(parser)


def finetune(options: Namespace) -> None:
    """Train or compare, and print what came of it."""
    from qscore_fast.errors import SettingsError

    needed = {"checkpoint": options.checkpoint, "data": options.images, "out": options.out}
    missing = [f"--{name}" for name, value in needed.items() if value is None]
    if missing:
        raise SettingsError(f"{missing[0]} is missing: give it (qscore finetune --help explains)")
    if options.compare is not None:
        _compare(options)
        return
    from qscore_fast.cli.source_options import source_from
    from qscore_fast.finetuning import finetune as train

    run = train(
        options.checkpoint,
        source_from(options),
        options.features,
        options.out,
        settings_from(options),
        system=options.system,
        device=options.device,
        devices=options.devices,
        overwrite=options.overwrite,
        progress=_show,
        note=say,
    )
    summary = run.summary
    first, last = summary["first"], summary["last"]
    lines = [
        f"system      {summary['system']}, {summary['steps']:,} steps",
        f"loss        {_text(first['ssl'])} at first, {_text(last['ssl'])} at last, without the regulariser",
        f"mean Q      {_text(first['mean_q'])} at first, {_text(last['mean_q'])} at last",
        *(f"written     {path}" for path in summary["files"].values()),
    ]
    print_result(summary, lines, options.json)


def settings_from(options: Namespace) -> Settings:
    """The settings of a training that the options ask for.

    Raises:
        SettingsError: a value that makes no sense.
    """
    from qscore_fast.finetuning import Settings

    names = [name.removeprefix("--").replace("-", "_") for name, *_ in (*_SCALARS, *_FLAGS)]
    given = {name: options[name] for name in names if options[name] is not None}
    return Settings(
        **given, objective=options.objective or {}, tensorboard=not options.no_tensorboard
    )


def _compare(options: Namespace) -> None:
    from qscore_fast.cli.source_options import source_from
    from qscore_fast.errors import SettingsError
    from qscore_fast.finetuning import compare
    from qscore_fast.finetuning.comparison import arms_table, table_two

    for name in ("probe_train", "probe_test"):
        if options[name] is None:
            raise SettingsError(f"--compare needs labelled images: give --{name.replace('_', '-')}")
    found = compare(
        options.checkpoint,
        source_from(options),
        options.features,
        options.out,
        settings_from(options),
        probe_train=options.probe_train,
        probe_test=options.probe_test,
        arms=[arm.strip() for arm in options.compare.split(",")],
        seeds=options.seeds,
        system=options.system,
        device=options.device,
        devices=options.devices,
        progress=_show,
        note=say,
    )
    lines = [*arms_table(found, markdown=False), "", *table_two([found], markdown=False)]
    print_result(found.to_json(), lines, options.json)


def export(options: Namespace) -> None:
    """Write the checkpoint of a training."""
    from qscore_fast.finetuning import export_run

    path = export_run(options.run, options.out, options.checkpoint)
    print_result({"file": str(path)}, [f"written     {path}"], options.json)


def _show(done: int, steps: int, values: dict[str, Any]) -> None:
    phase = " (heads alone)" if values["phase"] == "heads" else ""
    bad = f", {values['bad_images']:,} bad images" if values["bad_images"] else ""
    say(
        f"step {done:,} of {steps:,}{phase}: loss {_text(values['loss'])}, mean Q "
        f"{_text(values['mean_q'])}, {values['images_per_second']:,.0f} images/s{bad}"
    )


def _text(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
