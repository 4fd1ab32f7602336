"""``qscore report``: a run as one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.encoder_options import SPEC_HELP, add_loading, encoder_from
from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.terminal import print_result

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def report_parser() -> ArgumentParser:
    """The grammar and help of ``qscore report``."""
    parser = new_parser(
        """\
Write the report of a finished run: one HTML file that needs no network and opens from disk, and a JSON
file with every number in it. What was run, the scores, galleries of the lowest, typical and highest
images, the discriminative features, and what other commands found out, where it is given.""",
        """\
examples:
  qscore report runs/a
  qscore report runs/a --encoder timm:resnet50     with heat maps
  qscore report runs/val --labels labels.csv --probe probe --compression curve --out val.html
  qscore report runs/tuned --compare runs/base
  qscore report runs/a --images /mnt/photos        the images have moved since

written: OUT/report.html and OUT/report.json, or FILE and the JSON file beside it""",
    )
    add = parser.add_argument
    add("run", metavar="OUT", type=str, help="the folder of a finished run")
    add("--out", type=str | None, metavar="FILE", help="the HTML file (default: OUT/report.html)")
    add(
        "--labels", type=str | None, help="sample_id and label, if the run has no labels of its own"
    )
    add(
        "--probe",
        type=str | None,
        metavar="DIR",
        help="for failure prediction: what qscore evaluate --out or qscore probe --out wrote, or a file as "
        "qscore evaluate --correct takes it",
    )
    add("--compare", type=str | None, metavar="OUT2", help="another run over the same images")
    add(
        "--compression",
        type=str | None,
        metavar="DIR",
        help="what qscore compress --test --out wrote",
    )
    add("--thumbnails", type=int, default=400, metavar="N", help="images to show; 0: numbers alone")
    add("--resamples", type=int, default=1000, help="of failure prediction's bootstrap")
    add(
        "--skip",
        type=Literal["features", "measures"],
        nargs="+",
        default=[],
        help="leave out what reads all parts (features) or all embeddings (measures)",
    )
    add(
        "--encoder",
        type=str | None,
        help=f"the run's encoder, for heat maps: {SPEC_HELP} (default: no heat maps)",
    )
    add(
        "--heat-layer",
        type=str | None,
        metavar="NAME",
        help="of the encoder: whose activations the heat maps show (default: the last feature maps)",
    )
    add_moved_source(parser)
    add_loading(parser)
    return add_json(parser)


def add_moved_source(parser: ArgumentParser) -> None:
    """The options that say where a run's images are now."""
    add = parser.add_argument_group("where the images are (default: where the run found them)")
    for name, words in (
        ("--images", "the source, as qscore score takes it"),
        ("--column", "of a list or Parquet: the paths or images"),
        ("--id-column", "of a list or Parquet: the sample ids"),
    ):
        add.add_argument(name, type=str | None, help=words)


def moved_source(options: Namespace) -> dict[str, str]:
    """The options of ``open_source`` among them."""
    names = ("column", "id_column")
    return {name: options[name] for name in names if options[name] is not None}


def report(options: Namespace) -> None:
    """Write the page, and say where it is."""
    from qscore_fast.report import ReportSettings, write_report

    written = write_report(
        options.run,
        options.out,
        ReportSettings(
            labels=options.labels,
            probe=options.probe,
            compare=options.compare,
            compression=options.compression,
            thumbnails=options.thumbnails,
            images=options.images,
            source_options=moved_source(options),
            skip=options.skip,
            num_resamples=options.resamples,
        ),
        None if options.encoder is None else encoder_from(options),
        options.heat_layer,
    )
    result = {
        "html": str(written.html),
        "json": str(written.json),
        "bytes": written.html.stat().st_size,
        "pictures": written.content["pictures"],
    }
    print_result(result, written.lines(), options.json)
