"""``qscore heatmap``: where in the images the features have fired."""

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
from qscore_fast.cli.source_options import IMAGES_HELP, add_source, source_from
from qscore_fast.cli.terminal import print_result

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from qscore_fast.encoders import Encoder
    from qscore_fast.features import DiscriminativeFeatures

IMAGES = 16


def heatmap_parser() -> ArgumentParser:
    """The grammar and help of ``qscore heatmap``."""
    parser = new_parser(
        """\
Draw where in each image its discriminative features have fired, or given features; or for features of a
run the images in which they stand out most (--top); or an image by two encoders (--compare-encoder).

For ResNets the maps come with the forward pass; other encoders take one backward pass a feature.""",
        """\
examples:
  qscore heatmap photos/ --encoder timm:resnet50 --features runs/a --out maps
  qscore heatmap photos/ --encoder enc.pth --features runs/a --feature 17 233 --limit 4 --out maps
  qscore heatmap photos/ --encoder enc.pth --features runs/a --top 8 --out top
  qscore heatmap photos/ --encoder base.pth --features runs/base \\
      --compare-encoder tuned.pth --compare-features runs/tuned --out before-after

written to OUT:
  sheet.png      images with their maps
  NNNN-NAME.png  each map on its image, at the image's own size; the frame is what the encoder saw
  heatmaps.json  of each picture the image's id, its score and the features that it shows""",
    )
    add = parser.add_argument
    add("images", metavar="IMAGES", type=str, help=IMAGES_HELP)
    add("--encoder", type=str, required=True, help=SPEC_HELP)
    add("--out", type=str, required=True, help="the folder of the pictures; made if it is missing")
    add(
        "--features",
        type=str | None,
        help="D: a features.npz or the folder of a run with the same encoder (default: all features)",
    )
    add("--feature", type=int, nargs="+", default=[], metavar="J", help="show these features")
    add(
        "--top",
        type=int | None,
        metavar="N",
        help="draw features, not images: of each --feature (default: six of D that fire often) the N images "
        "of the run in --features in which it stands out most",
    )
    add(
        "--compare-encoder",
        type=str | None,
        help="a second one, such as the first after fine-tuning",
    )
    add("--compare-features", type=str | None, help="its own D")
    add(
        "--combine",
        type=Literal["sum", "mean", "max"],
        default="sum",
        help="how the maps of an image's features become one",
    )
    add(
        "--layer",
        type=str | None,
        help="show this layer, by gradients (default: the last that serves)",
    )
    add(
        "--colour-map",
        type=Literal["inferno", "viridis", "magma", "plasma", "cividis"],
        default="inferno",
        help="of the heat",
    )
    add(
        "--two-sided",
        action="store_true",
        help="without --features: features far below an image's mean as well",
    )
    add("--batch-size", type=int, default=32, help="images a call of the encoder")
    add_source(parser)
    add_loading(parser)
    add_preprocessing(parser)
    add_inference(parser)
    return add_json(parser)


def heatmap(options: Namespace) -> None:
    """Draw, and say where the pictures are."""
    from qscore_fast.errors import SettingsError
    from qscore_fast.saliency.draw_heat_maps import draw_heat_maps, draw_top_images
    from qscore_fast.scoring.finalise import load_features

    if options.top is not None and (
        options.features is None or options.compare_encoder is not None
    ):
        raise SettingsError(
            "--top draws the images of one run: give its folder as --features, and no --compare-encoder"
        )
    if options.compare_features is not None and options.compare_encoder is None:
        raise SettingsError(
            "--compare-features are of a second encoder: give --compare-encoder, too"
        )
    source = source_from(options)  # before the encoder: a wrong path should show at once
    encoder = encoder_from(options)
    drawing = {
        "combine": options.combine,
        "layer": options.layer,
        "colour_map": options.colour_map,
        "batch_size": options.batch_size,
    }
    if options.top is not None:
        found = draw_top_images(
            source, encoder, options.out, options.features,
            indices=options.feature, top=options.top, **drawing,
        )  # fmt: skip
        print_result(found.to_json(), found.lines(), options.json)
        return

    def own_features(path: str | None, of: Encoder) -> DiscriminativeFeatures | None:
        return None if path is None else load_features(path, of.fingerprint, of.num_features)

    compare = None
    if options.compare_encoder is not None:
        second = options.clone()
        second.encoder = options.compare_encoder
        other = encoder_from(second)
        compare = other, own_features(options.compare_features, other)
    found = draw_heat_maps(
        source,
        encoder,
        options.out,
        own_features(options.features, encoder),
        indices=options.feature,
        limit=IMAGES if options.limit is None else options.limit,
        compare=compare,
        two_sided=True if options.two_sided else None,
        **drawing,
    )
    print_result(found.to_json(), found.lines(), options.json)
