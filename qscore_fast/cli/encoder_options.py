"""The options that say which encoder, how it sees images, and how it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from qscore_fast.encoders import Encoder

SPEC_HELP = (
    "a checkpoint file (qscore encoders list says which), timm:NAME, torchvision:NAME, or demo, the "
    "bundled one"
)


def add_recognition(parser: ArgumentParser) -> None:
    """--system, --tower, --pool: what a file does not tell by itself."""
    add = parser.add_argument_group("what the checkpoint is").add_argument
    add(
        "--system",
        type=str | None,
        help="simclr, swav, moco, byol, dino, ...: where the file does not tell; one that contradicts "
        "the file is an error",
    )
    add(
        "--tower",
        type=Literal["online", "ema"] | None,
        help="of two networks, the trained one or its moving average (default: the one that the "
        "system evaluates)",
    )
    add(
        "--pool",
        type=Literal["cls", "patch_mean"] | None,
        help="of a transformer: the class token, or the mean of the patch tokens (default: cls)",
    )


def add_loading(parser: ArgumentParser) -> None:
    """Those, and --device and --no-pretrained."""
    add_recognition(parser)
    add = parser.add_argument_group("where it comes from, where it goes").add_argument
    add("--device", type=str | None, help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    add(
        "--no-pretrained",
        action="store_true",
        help="random weights for timm: and torchvision: encoders, always the same ones",
    )


def add_preprocessing(parser: ArgumentParser) -> None:
    """Overrides of the transform that belongs to the checkpoint."""
    add = parser.add_argument_group("preprocessing (default: the checkpoint's own)").add_argument
    add(
        "--resize",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="length of the short side; two numbers: height and width",
    )
    add(
        "--crop",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="side of the centre crop after the resizing; two numbers: height and width",
    )
    add(
        "--crop-fraction",
        type=float | None,
        metavar="F",
        help="instead of --crop: before the resizing, a centre crop of this fraction of the short side "
        "(official SimCLR and BYOL: 0.875)",
    )
    add(
        "--interpolation",
        type=Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None,
        help="of the resizing",
    )
    add("--mean", type=float, nargs="+", metavar="M", help="one a channel, for values in [0, 1]")
    add("--std", type=float, nargs="+", metavar="S", help="one a channel, for values in [0, 1]")


def add_inference(parser: ArgumentParser) -> None:
    """What makes it faster; qscore encoders bench says by how much, and what it costs."""
    group = parser.add_argument_group("speed (qscore encoders bench ENCODER compares)")
    group.add_argument(
        "--precision",
        type=Literal["float32", "bfloat16", "float16", "bfloat16-autocast", "float16-autocast"],
        default="float32",
        help="of the encoder's arithmetic; the scores are float32 in any case",
    )
    for name, words in (
        ("--channels-last", "memory order that suits convolutions"),
        ("--compile", "torch.compile; runs eagerly, with one warning, where that fails"),
        ("--fold-batch-norm", "batch norm into the convolution before it, where that is exact"),
    ):
        group.add_argument(name, action="store_true", help=words)


def preprocess_changes(options: Namespace) -> dict[str, Any]:
    """The fields of Preprocess that were given, for ``Preprocess.changed``."""
    names = ("resize", "crop", "crop_fraction", "interpolation", "mean", "std")
    return {name: options[name] for name in names if options[name] is not None}


def encoder_from(options: Namespace, device: str | None = None) -> Encoder:
    """The encoder that the options of a command ask for; groups that the command lacks are left out.

    Args:
        device: in place of that of the options.

    Raises:
        QScoreError: it cannot be loaded, or not run like that.
    """
    import warnings

    from qscore_fast.cli.terminal import say
    from qscore_fast.encoders import load_encoder
    from qscore_fast.encoders.published import SIGNED

    encoder = load_encoder(
        options.encoder,
        options.system,
        tower=options.tower,
        pool=options.pool,
        device=device or options.device,
        pretrained=not options.no_pretrained,
    )
    if "resize" in options and (changes := preprocess_changes(options)):
        encoder = encoder.with_preprocess(encoder.preprocess.changed(**changes))
    if "precision" in options:
        with warnings.catch_warnings():
            # The same words are among the notes.
            warnings.filterwarnings("ignore", message=".*torch.compile failed")
            encoder = encoder.optimised(
                options.precision,
                channels_last=options.channels_last,
                compile=options.compile,
                fold_batch_norm=options.fold_batch_norm,
            )
    if "view" in options and options.view is not None:
        encoder = encoder.with_view(options.view)
    two_sided = "two_sided" in options and options.two_sided
    for note in encoder.notes:
        if not (two_sided and note == SIGNED):
            say(f"{encoder.name}: {note}")
    return encoder
