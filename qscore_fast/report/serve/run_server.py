"""serve: a run's report on a local port, with all of its images."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from qscore_fast.errors import MissingExtraError, SettingsError
from qscore_fast.report.render import rendered, served_policy
from qscore_fast.report.report_content import SKIPPABLE, ReportSettings, report_content
from qscore_fast.report.serve.app import make_app
from qscore_fast.report.serve.picture_cache import PictureCache
from qscore_fast.report.serve.score_index import ScoreIndex
from qscore_fast.report.source_images import SourceImages
from qscore_fast.scoring import ScoreRun
from qscore_fast.scoring.store import Store

PORT = 8087
SHORTEST_TOKEN = 16
LARGE_RUN = 1_000_000
"""Runs of more images start without what reads all parts or all embeddings."""
GRACE_SECONDS = 3


def serve(
    run: str | os.PathLike[str] | ScoreRun,
    settings: ReportSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    allow_hosts: Sequence[str] = (),
    follow_links: bool = False,
    say: Callable[[str], None] = lambda _: None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer on a port until SIGINT or SIGTERM. Nothing is written but an index beside the scores.

    Args:
        run: the run, or its folder.
        settings: of the report that is shown.
        host, port: where to listen; port 0 takes any free one.
        token: the secret in the address, 16 characters or more; a random one by default.
        allow_hosts: names of this machine under which it may be asked, beside addresses and localhost.
        follow_links: whether a symbolic link in the source may lead out of its folder.
        say: hears what is being done. ready: hears the address, with the token, once it answers.

    Raises:
        MissingExtraError: fastapi, uvicorn, duckdb or jinja2 is not installed.
        SettingsError: the port is taken, or the token too short.
        StoreError: no complete run there.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("uvicorn", "serve") from None
    token = secrets.token_urlsafe(32) if token is None else token
    if (
        len(token) < SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or (set(token) & set(' ",;\\'))
    ):
        raise SettingsError(
            f"the token must have {SHORTEST_TOKEN} characters or more, letters, digits and signs, without "
            "spaces, quotes, commas, semicolons and backslashes; leave it out for a random one"
        )
    run = run if isinstance(run, ScoreRun) else ScoreRun(run)
    settings = settings or ReportSettings()
    with _listening(host, port) as listener:
        say("opening the index of the scores (made once, in the run's folder)")
        index = ScoreIndex(run.path / "scores.parquet")
        try:
            if index.num_rows > LARGE_RUN and not settings.skip:
                say(f"more than {LARGE_RUN:,} images: features and measures are left out")
                settings = replace(settings, skip=SKIPPABLE)
            content, shown = report_content(run, settings, pictures=False)
            store = Store(run.path)
            images = SourceImages(
                store, settings.images, follow_links=follow_links, options=settings.source_options
            )
            app = make_app(
                rendered(content, shown, served=index.labels), served_policy(), store, run.features,
                index, PictureCache(images), token, [host, *allow_hosts],
            )  # fmt: skip
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, server_header=False, lifespan="off",
                timeout_graceful_shutdown=GRACE_SECONDS,
            )  # fmt: skip
            server = uvicorn.Server(config)
            with _ended_by_signals(server):
                where = listener.getsockname()
                name = f"[{where[0]}]" if ":" in where[0] else where[0]
                ready(f"http://{name}:{where[1]}/?token={token}")
                server.run(sockets=[listener])
        finally:
            index.close()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound before anything is read, so that a taken port shows at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"host {host} and port {port} cannot be used: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        yield listener
    except OSError as error:
        raise SettingsError(
            f"cannot listen on port {port} of {host}: {error.strerror or error}; give another one (--port), "
            "or 0 for any that is free"
        ) from error
    finally:
        listener.close()


@contextmanager
def _ended_by_signals(server: object) -> Iterator[None]:
    """SIGINT and SIGTERM let the server finish, and are no errors."""

    def end(*_: object) -> None:
        server.should_exit = True  # type: ignore[attr-defined]

    @contextmanager
    def no_signals() -> Iterator[None]:
        yield

    # Its own handlers would raise the signal again when it has ended.
    server.capture_signals = no_signals  # type: ignore[attr-defined]
    try:
        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
