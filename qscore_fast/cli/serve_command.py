"""``qscore serve``: a run of any size in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from qscore_fast.cli.new_parser import new_parser
from qscore_fast.cli.report_command import add_moved_source, moved_source
from qscore_fast.cli.terminal import say

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def serve_parser() -> ArgumentParser:
    """The grammar and help of ``qscore serve``."""
    parser = new_parser(
        """\
The report of a run on a local port, with all of its images: for runs that are too large for one file.
Sorted, filtered and searched over any number of rows; pictures are read from the run's source when they
are looked at. Prints the address with its secret token. Only this machine can ask, only for what the run
holds, and nothing can be changed. Ctrl-C ends it.""",
        """\
examples:
  qscore serve runs/a
  qscore serve runs/a --port 0                     any free port
  ssh -L 8087:127.0.0.1:8087 HOST                  from elsewhere, through a tunnel

written to OUT: .serve-index.duckdb, made once and again when the scores change; it can be deleted""",
    )
    add = parser.add_argument
    add("run", metavar="OUT", type=str, help="the folder of a finished run")
    add("--port", type=int, default=8087, help="0: any that is free")
    add("--host", type=str, default="127.0.0.1", help="the address to listen on")
    add(
        "--token",
        type=str | None,
        help="the secret of the address, 16 characters or more (default: a random one)",
    )
    add(
        "--allow-host",
        type=str,
        nargs="+",
        default=[],
        metavar="NAME",
        help="names by which it may be asked, beside addresses and localhost",
    )
    add(
        "--follow-links",
        action="store_true",
        help="show images behind symbolic links that lead out of the source's folder",
    )
    add("--probe", type=str | None, metavar="DIR", help="as of qscore report")
    add("--compare", type=str | None, metavar="OUT2", help="as of qscore report")
    add("--compression", type=str | None, metavar="DIR", help="as of qscore report")
    add(
        "--skip",
        type=Literal["features", "measures"],
        nargs="+",
        default=[],
        help="as of qscore report (default: both, above a million images)",
    )
    add_moved_source(parser)
    return parser


def serve(options: Namespace) -> None:
    """Answer until a signal comes."""
    from qscore_fast.report import ReportSettings
    from qscore_fast.report.serve import serve

    def ready(address: str) -> None:
        print(address, flush=True)
        say("open that address; Ctrl-C ends the server")

    serve(
        options.run,
        ReportSettings(
            probe=options.probe,
            compare=options.compare,
            compression=options.compression,
            images=options.images,
            source_options=moved_source(options),
            skip=options.skip,
        ),
        host=options.host,
        port=options.port,
        token=options.token,
        allow_hosts=options.allow_host,
        follow_links=options.follow_links,
        say=say,
        ready=ready,
    )
