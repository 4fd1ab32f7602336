"""``qscore discover`` and ``qscore rescore``: a finished run with other features, and so other scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from qscore_fast.cli.new_parser import add_json, new_parser
from qscore_fast.cli.terminal import print_result, summary_lines
from qscore_fast.errors import SettingsError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from qscore_fast.evaluation.discovery import DiscoveryReport
    from qscore_fast.scoring import Discovery


def discover_parser() -> ArgumentParser:
    """The grammar and help of ``qscore discover``."""
    parser = new_parser(
        """\
Discover the discriminative features of a finished run again, at another eps or other percentiles.
No image is touched: the run's parts hold all activations above its --activation-eps.

Says which share of the samples has no active discriminative feature (their score is 0), and where
that is more than 1 %, proposes the largest eps for which it is not. No labels are used.

What is not given is the run's own. With --report and none of --eps, --lower, --upper it looks at the
features that the run has, and changes nothing in it.""",
        """\
examples:
  qscore discover runs/a --eps 3
  qscore discover runs/a --eps auto
  qscore discover runs/a --eps 3.5 --out features.npz    the run's own scores stay as they are
  qscore discover runs/a --report about                  how stable D is, and what its features stand for

written to the folder of --report:
  discovery.json      half-split stability; with labels, the purity of features below, in and above D
  features.parquet    a row a feature: how often it fires, whether it is in D; with labels, its classes
  top_images.parquet  for every feature the images in which it stands out most
  activations.svg     the features in the order of how often they fire""",
    )
    add = parser.add_argument
    add("run", metavar="DIR", type=str, help="the folder of a finished run")
    add(
        "--eps",
        type=float | Literal["auto"] | None,
        help="a feature is active above mean + eps standard deviations of its sample; auto: the largest "
        "eps up to 4, in steps of 0.1, that leaves at most 1 percent of the samples without an active "
        "discriminative feature (at least the run's --activation-eps; default: the run's own)",
    )
    _add_percentiles(parser, "the run's own")
    add(
        "--out",
        type=str | None,
        help="write the features to this file (default: the run's features.npz and, to match, its "
        "scores.parquet)",
    )
    add(
        "--replace-given",
        action="store_true",
        help="replace features that the run was given (qscore score --features) by those of its own images",
    )
    add("--report", type=str | None, help="write what D is made of to this folder")
    add(
        "--labels",
        type=str | None,
        help="of the report: a file with sample_id and label (default: the run's own, if it has any)",
    )
    return add_json(parser)


def rescore_parser() -> ArgumentParser:
    """The grammar and help of ``qscore rescore``."""
    parser = new_parser(
        """\
Compute every score of a finished run again, with other features, another eps or other percentiles.
No image is touched: the run's parts hold all activations above its --activation-eps.""",
        """\
examples:
  qscore rescore runs/val --features runs/train
  qscore rescore runs/a --eps 3 --percentiles 40 95

written to DIR: features.npz, scores.parquet, errors.parquet, in place of those that are there""",
    )
    add = parser.add_argument
    add("run", metavar="DIR", type=str, help="the folder of a finished run")
    add(
        "--features",
        type=str | None,
        help="use these discriminative features: a features.npz or the folder of a run with the same "
        "encoder (default: discover them in the run's parts)",
    )
    add(
        "--eps",
        type=float | Literal["auto"] | None,
        help="at least the run's --activation-eps; auto as in qscore score (default: 4, or that of "
        "--features)",
    )
    _add_percentiles(parser, "50 and 95")
    return add_json(parser)


def discover(options: Namespace) -> None:
    """Print what was found, and write it where it was asked for."""
    from qscore_fast.scoring import discover as discover_features

    if options.labels is not None and options.report is None:
        raise SettingsError("--labels are for the report: give --report, too")
    lower, upper = _percentiles(options)
    changed = any(value is not None for value in (options.eps, lower, upper))
    write = options.report is None or changed or options.replace_given
    reports: list[DiscoveryReport] = []

    def look(found: Discovery) -> None:
        """All that can be wrong with a report is found out before anything of the run is replaced."""
        if options.report is not None:
            from qscore_fast.evaluation.discovery import discovery_report
            from qscore_fast.scoring.atomic import made_folder

            made_folder(options.report)
            features = found.features if write or options.out is not None else None
            reports.append(discovery_report(options.run, features, labels=options.labels))

    found = discover_features(
        options.run, options.eps, lower, upper, options.out,
        write=write, replace_given=options.replace_given, before_writing=look,
    )  # fmt: skip
    written = _written(options, write)
    about = []
    for report in reports:
        about += [*report.lines(), *(f"written {path}" for path in report.write(options.report))]
    content = {**_content(found, written), "report": reports[0].to_json() if reports else None}
    print_result(content, [*_lines(found, written), *about], options.json)


def rescore(options: Namespace) -> None:
    """Print the run's summary."""
    from qscore_fast.scoring import rescore as rescore_run

    lower, upper = _percentiles(options)
    given = {
        name: value for name, value in (("lower", lower), ("upper", upper)) if value is not None
    }
    run = rescore_run(options.run, options.features, eps=options.eps, **given)
    print_result(run.summary, summary_lines(run.summary), options.json)


def _add_percentiles(parser: ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--lower",
        type=float | None,
        help="percentile of the features' activation percentages from which one is discriminative "
        f"(default: {default})",
    )
    parser.add_argument(
        "--upper", type=float | None, help="percentile up to which one is discriminative"
    )
    parser.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOWER", "UPPER"),
        help="--lower and --upper in one",
    )


def _percentiles(options: Namespace) -> tuple[float | None, float | None]:
    if options.percentiles is None:
        return options.lower, options.upper
    if options.lower is not None or options.upper is not None:
        raise SettingsError(
            "--percentiles are --lower and --upper in one: give the one or the others"
        )
    lower, upper = options.percentiles
    return lower, upper


def _written(options: Namespace, write: bool) -> list[str]:
    if options.out is not None:
        return [options.out]
    return [f"{options.run}/{name}" for name in ("features.npz", "scores.parquet") if write]


def _content(found: Discovery, written: list[str]) -> dict[str, Any]:
    features = found.features
    return {
        "eps": features.eps,
        "lower": features.lower,
        "upper": features.upper,
        "two_sided": features.two_sided,
        "num_samples": features.num_samples,
        "num_features": features.num_features,
        "num_discriminative": len(features),
        "empty_fraction": found.empty_fraction,
        "suggested_eps": found.suggested_eps,
        "empty_fraction_by_eps": {f"{eps:g}": share for eps, share in found.empty.items()},
        "notes": found.notes(),
        "features": written[0] if written else None,
    }


def _lines(found: Discovery, written: list[str]) -> list[str]:
    features = found.features
    if len(written) > 1:
        where = f"{written[0]} and scores.parquet"
    else:
        where = written[0] if written else "nothing in the run: it keeps its features and scores"
    return [
        f"features    {len(features):,} of {features.num_features:,} are discriminative at eps = "
        f"{features.eps:g} (percentiles {features.lower:g} to {features.upper:g}, "
        f"{features.num_samples:,} images" + (", two-sided)" if features.two_sided else ")"),
        f"            {100 * found.empty_fraction:.2f} % of the images have no active "
        "discriminative feature: score 0",
        f"written     {where}",
        *(f"note        {note}" for note in found.notes()),
    ]
