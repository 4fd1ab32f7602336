"""``qscore interpret``: does the evidence of an encoder lie on the object, or beside it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.encoder_options import (
    SPEC_HELP,
    add_inference,
    add_loading,
    add_preprocessing,
    encoder_from,
)
from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.source_options import add_source, source_from
from qscore_fast.cli.terminal import ProgressPrinter, print_result, say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def interpret_parser() -> ArgumentParser:
    """The grammar and help of ``qscore interpret``."""
    parser = new_parser(
        """\
Measure how the heat maps of each image's discriminative features fit the core and spurious masks of Salient
ImageNet: the paper's mIoU (Fig. 6), soft IoU, pointing game, energy and pixel AUROC; of correct against
misclassified images, of one encoder against another.

The masks are not part of this package: their licence allows no copies. Images are joined by file name.
Stop it at any time: the same command goes on with what is missing.""",
        """\
examples:
  qscore interpret --encoder base.pth --features runs/train --images imagenet/train \\
      --salient salient_imagenet_dataset --correct probe/probe.parquet --out interpretation
  qscore interpret --encoder base.pth --features runs/base --compare-encoder tuned.pth \\
      --compare-features runs/tuned --images ILSVRC2012_img_train.tar --salient DIR --out both

written to OUT:
  interpretation.parquet  a row an image: the measures, whether it is correct, why a measure is undefined
  interpretation.json     every mean with its interval, differences, classes, settings
  interpretation.md       the tables; interpretation.svg: the paper's Fig. 6
  examples.png            images with heat and masks, where it fits best and worst
  errors.parquet          sample_id, name, stage, error: images and masks that could not be used
  parts/, asked.json      what is done, and what was asked for""",
    )
    add = parser.add_argument
    add("--encoder", type=str, required=True, help=SPEC_HELP)
    add("--features", type=str, required=True, help="its D: a features.npz or the folder of a run")
    add(
        "--images",
        type=str,
        required=True,
        help="ImageNet's training images: a folder, tars, Parquet",
    )
    add(
        "--salient",
        type=str,
        required=True,
        metavar="DIR",
        help="the unpacked salient_imagenet_dataset, or the folder that holds it",
    )
    add(
        "--salient-answers",
        type=str | None,
        metavar="CSV",
        help="discover_spurious_features.csv (default: in or beside DIR, or in mturk_results there)",
    )
    add(
        "--salient-compat",
        action="store_true",
        help="align the masks as the published loader does, which makes them 8/7 too large",
    )
    add("--out", type=str, required=True, help="the folder of the results; made if it is missing")
    add(
        "--correct",
        type=str | None,
        help="a file with sample_id and correct, or label and prediction",
    )
    add(
        "--compare-encoder",
        type=str | None,
        help="a second one, such as the first after fine-tuning",
    )
    add("--compare-features", type=str | None, help="its own D")
    add(
        "--compare-correct",
        type=str | None,
        help="what its own probe got right (default: --correct)",
    )
    add(
        "--combine",
        type=Literal["sum", "mean", "max"],
        default="sum",
        help="how the maps of an image's features become one; the paper does not say",
    )
    measures = parser.add_argument_group("what the paper leaves open").add_argument
    measures(
        "--heat-threshold",
        type=float,
        default=0.5,
        help="the hot area of the mIoU: above this share of a map's maximum (0: wherever there is heat)",
    )
    measures(
        "--mask-threshold",
        type=float,
        default=0.5,
        help="a soft mask covers a pixel from here on, for pointing and AUROC",
    )
    measures("--hard-masks", action="store_true", help="cut the masks there for every measure")
    measures(
        "--pointing-tolerance",
        type=int,
        default=0,
        help="pixels by which the hottest one may miss the mask (15 in the published pointing game)",
    )
    measures("--resamples", type=int, default=2000, help="of the bootstrap; 0 for no intervals")
    measures("--seed", type=int, default=0, help="of the bootstrap")
    add("--examples", type=int, default=6, help="images to draw with their heat and masks")
    add("--batch-size", type=int, default=32, help="images a call of the encoder")
    add("--workers", type=int | None, help="decoding threads (default: one a core, at most 16)")
    add("--unit-size", type=int, default=1024, help="images a part: at most so many are redone")
    add(
        "--decoder",
        type=Literal["auto", "pillow", "torchcodec"],
        default="auto",
        help="what decodes the images (auto is pillow)",
    )
    add("--overwrite", action="store_true", help="delete an interpretation that is in OUT")
    add_source(parser)
    add_loading(parser)
    add_preprocessing(parser)
    add_inference(parser)
    return add_json(parser)


def interpret(options: Namespace) -> None:
    """Print the table."""
    from qscore_fast.errors import SettingsError
    from qscore_fast.saliency.interpret import Compared, interpret
    from qscore_fast.saliency.overlap import OverlapSettings
    from qscore_fast.saliency.salient_imagenet import SalientImageNet

    second = (options.compare_encoder, options.compare_features)
    if (second[0] is None) != (second[1] is None):
        raise SettingsError("--compare-encoder and --compare-features go together: give both")
    if second[0] is None and options.compare_correct is not None:
        raise SettingsError("--compare-correct is of a second encoder: give --compare-encoder, too")
    settings = OverlapSettings(
        options.heat_threshold,
        options.mask_threshold,
        options.hard_masks,
        options.pointing_tolerance,
    )
    salient = SalientImageNet(options.salient, options.salient_answers, options.salient_compat)
    source = source_from(options)
    compared = None
    if second[0] is not None:
        other = options.clone()
        other.encoder = second[0]
        compared = Compared(encoder_from(other), second[1], options.compare_correct)
    progress = ProgressPrinter()
    try:
        found = interpret(
            source,
            encoder_from(options),
            salient,
            options.features,
            options.out,
            compared=compared,
            correct=options.correct,
            combine=options.combine,
            settings=settings,
            batch_size=options.batch_size,
            workers=options.workers,
            unit_size=options.unit_size,
            decoder=options.decoder,
            num_resamples=options.resamples,
            seed=options.seed,
            examples=options.examples,
            overwrite=options.overwrite,
            progress=progress,
        )
    finally:
        progress.close()
    files = [str(path) for path in found.files]
    print_result({**found.to_json(), "files": files}, found.lines(), options.json)
    for path in files:
        say(f"written {path}")
