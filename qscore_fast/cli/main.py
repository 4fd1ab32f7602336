"""``main``: parse, call one function, print."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jsonargparse import ArgumentError

from qscore_fast.cli.compress_command import compress
from qscore_fast.cli.discover_command import discover, rescore
from qscore_fast.cli.encoder_options import encoder_from
from qscore_fast.cli.encoders_command import bench, inspect, list_known
from qscore_fast.cli.evaluate_command import evaluate
from qscore_fast.cli.finetune_command import export, finetune
from qscore_fast.cli.heatmap_command import heatmap
from qscore_fast.cli.helper_processes import HelperProcesses
from qscore_fast.cli.interpret_command import interpret
from qscore_fast.cli.knn_command import knn
from qscore_fast.cli.metrics_command import metrics
from qscore_fast.cli.parser import build_parser
from qscore_fast.cli.probe_command import probe
from qscore_fast.cli.report_command import report
from qscore_fast.cli.restart import restart_without_small_cache
from qscore_fast.cli.serve_command import serve
from qscore_fast.cli.source_options import source_from
from qscore_fast.cli.terminal import (
    ProgressPrinter,
    print_result,
    say,
    summary_lines,
    warnings_said,
)
from qscore_fast.errors import ErrorRateError, QScoreError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from qscore_fast.scoring import Progress

USER_ERROR = 2
TOO_MANY_ERRORS = 3
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h: try again
INTERRUPTED = 130
TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the entry point of ``qscore``."""
    try:
        words = sys.argv[1:] if argv is None else list(argv)
        options = build_parser().parse_args(words)
        command = []
        while options.get("subcommand") is not None:
            command.append(options.subcommand)
            options = options[options.subcommand]
        options.command_line = words
        name = " ".join(command)
        if argv is None and name in _ENCODING:
            restart_without_small_cache()
        with _sigterm_raises():
            _COMMANDS[name](options)
    except ArgumentError as error:
        say(f"error: {_readable(str(error))} (qscore --help explains)")
        return USER_ERROR
    except ErrorRateError as error:
        say(f"error: {error}")
        return TOO_MANY_ERRORS
    except UnavailableError as error:
        say(f"error: {error}")
        return UNAVAILABLE
    except QScoreError as error:
        say(f"error: {error}")
        return USER_ERROR
    except (KeyboardInterrupt, _Terminated) as reason:
        say("stopped; finished parts stay: give the same command again to go on")
        return TERMINATED if isinstance(reason, _Terminated) else INTERRUPTED
    return 0


class _Terminated(BaseException):
    """SIGTERM came: like Ctrl-C, nothing may take it for an error of its own."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """End by exception on SIGTERM, so that what is being written is finished or taken back."""

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _readable(message: str) -> str:
    """jsonargparse's error in one line: what, and the value it was given."""
    first, _, rest = message.partition("\n")
    value = rest.rpartition("Given value: ")[2].strip()
    commands = {word for command in _COMMANDS for word in command.split()}
    what = re.sub(rf"\b(({'|'.join(commands)})\.)+", "", first).strip(" :")
    what = re.sub(r'Parser key "(\w+)"', lambda key: f"--{key[1].replace('_', '-')}", what)
    return f"{what}: not valid: {value}" if value else what


def _score(options: Namespace) -> None:
    from qscore_fast.scoring import score

    source = source_from(options)  # before the encoder: a wrong path should show at once
    progress = ProgressPrinter()
    if options.engine == "ray" and options.processes != 1:
        raise SettingsError(
            f"processes = {options.processes} and engine = ray exclude each other: a cluster has an encoder "
            "on every GPU already (--ray-actors limits them)"
        )
    helpers = HelperProcesses(
        options.command_line, options.processes, options.device, options.workers
    )

    def show(state: Progress) -> None:
        helpers.start()  # the run exists now: they can join it
        helpers.report_failures()
        progress(state)

    try:
        with helpers, warnings_said():
            run = score(
                source,
                encoder_from(options, "cpu" if options.engine == "ray" else None),
                options.out,
                options.features,
                options.engine,
                eps=options.eps,
                lower=options.lower,
                upper=options.upper,
                batch_size=options.batch_size,
                workers=helpers.workers,
                unit_size=options.unit_size,
                activation_eps=options.activation_eps,
                embeddings=options.embeddings,
                two_sided=options.two_sided or None,
                decoder=options.decoder,
                exif_rotation=options.exif_rotation,
                max_pixels=options.max_pixels,
                device=options.device,
                ray_address=options.ray_address,
                ray_actors=options.ray_actors,
                shard_index=options.shard_index,
                num_shards=options.num_shards,
                max_error_rate=options.max_error_rate,
                retry_errors=options.retry_errors,
                overwrite=options.overwrite,
                progress=show,
            )
    finally:
        progress.close()
    print_result(run.summary, summary_lines(run.summary), options.json)


def _demo(options: Namespace) -> None:
    from qscore_fast.demo import run_demo

    progress = ProgressPrinter()
    try:
        result = run_demo(
            options.out,
            say,
            progress,
            encoder=encoder_from(options),
            limit=options.limit,
            two_sided=options.two_sided or None,
            overwrite=options.overwrite,
        )
    finally:
        progress.close()
    content = {
        "discover": result.discovery.summary,
        "score": result.scoring.summary,
        "picture": str(result.picture),
        "report": str(result.report),
    }
    lines = [
        *summary_lines(result.scoring.summary),
        f"picture     {result.picture}",
        f"report      {result.report}",
    ]
    print_result(content, lines, options.json)


def _bench(options: Namespace) -> None:
    from pathlib import Path

    # What PyTorch is measured with is its own way of waiting, not the one that suits scoring.
    os.environ.pop("OMP_WAIT_POLICY", None)
    from qscore_fast.benchmarks import results, run, suite

    found = suite.run_suite(
        options.device, tuple(options.dtypes), options.quick, options.threads, say=say
    )
    path = results.write(found, Path(options.out))
    print_result(
        {**found, "file": str(path)}, [*run.report(found), "", f"written     {path}"], options.json
    )
    if wrong := run.wrong(found):
        raise QScoreError(f"{len(wrong)} results are wrong, please report it: {'; '.join(wrong)}")


def _info(options: Namespace) -> None:
    import platform
    from dataclasses import asdict

    from qscore_fast.backends import backend_info
    from qscore_fast.scoring.record import library_versions

    backends = backend_info()
    versions = {"python": platform.python_version(), **library_versions()}
    content = {"versions": versions, "backends": asdict(backends)}
    lines = [f"{name:<12}{number}" for name, number in versions.items()]
    print_result(content, [*lines, *str(backends).splitlines()], options.json)


_ENCODING = frozenset({"score", "demo", "interpret", "finetune", "encoders bench"})
"""Commands during which an encoder runs on kept memory."""

_COMMANDS = {
    "score": _score,
    "discover": discover,
    "rescore": rescore,
    "metrics": metrics,
    "probe": probe,
    "knn": knn,
    "finetune": finetune,
    "finetune export": export,
    "evaluate": evaluate,
    "compress": compress,
    "interpret": interpret,
    "report": report,
    "serve": serve,
    "heatmap": heatmap,
    "demo": _demo,
    "bench": _bench,
    "encoders inspect": inspect,
    "encoders list": list_known,
    "encoders bench": bench,
    "info": _info,
}
