"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse

from jsonargparse import ArgumentParser, DefaultHelpFormatter


class _Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the line breaks of descriptions and examples; shows types and defaults."""


def new_parser(description: str, epilog: str, number: str | None = None) -> ArgumentParser:
    """A parser with these texts; with a version ``number``, one that knows --version."""
    return ArgumentParser(
        prog="qscore",
        version=number,
        description=description,
        epilog=epilog,
        formatter_class=_Help,
        exit_on_error=False,
        default_env=False,
    )


def add_json(parser: ArgumentParser) -> ArgumentParser:
    """--json; returns the parser."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout; the rest on stderr"
    )
    return parser


def add_finite_only(parser: ArgumentParser) -> None:
    """--finite-only."""
    parser.add_argument(
        "--finite-only",
        action="store_true",
        help="leave images whose representation holds NaN or Inf out, instead of refusing their run",
    )
