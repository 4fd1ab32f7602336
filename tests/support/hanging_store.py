"""A web server with a folder of files that at some point stops answering."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class HangingStore:
    """What the server has, and how many of its files it sends before it hangs.

    Attributes:
        codes: of other names, what they are answered with.
        url: of its folder.
        hanging: set once somebody waits in vain.
        fails: answer with 503 instead of not at all.
        heads: whether questions about files count, too.
    """

    files: dict[str, bytes]
    answers: int
    fails: bool = False
    heads: bool = False
    codes: dict[str, int] = field(default_factory=dict)
    url: str = ""
    hanging: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def may_answer(self) -> bool:
        self.answers -= 1
        if self.answers < 0:
            self.hanging.set()
        return self.answers >= 0


@contextmanager
def hanging_store(
    files: dict[str, bytes], answers: int, fails: bool = False, heads: bool = False
) -> Iterator[HangingStore]:
    """Serve the files on this machine."""
    store = HangingStore(files, answers, fails, heads)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            name = self.path.removeprefix("/set").strip("/")
            links = "".join(f'<a href="{name}">{name}</a>\n' for name in store.files)
            content = store.files.get(name, f"<html>{links}</html>".encode())
            code = store.codes.get(name, 200)
            counts = name in store.files and (with_body or store.heads)
            if counts and not store.may_answer():
                if store.fails:
                    code, content = 503, b""
                else:
                    store.over.wait()
                    return
            elif wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                code, content = 206, content[int(wanted[1]) : int(wanted[2]) + 1]
            self.send_response(code)
            self.send_header(
                "Content-Type", "text/html" if name not in store.files else "image/png"
            )
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}/set"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.over.set()
        server.shutdown()
        server.server_close()
