"""Guard: who may ask, and how; in front of everything that the server answers."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "qscore_token"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware: the Host header, the method, the token.

    The Host must be an address or localhost: a page of another site whose name was made to point here cannot
    read what it asks for. The token comes once in the address, and is then kept in a cookie that no script
    and no other site can use; programs send it as ``Authorization: Bearer``.

    Args:
        app: what answers.
        token: the secret.
        hosts: further names that the server goes by.
    """

    def __init__(self, app: App, token: str, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._is_own_host(headers.get(b"host", b"")):
            await _answer(send, 421, b"this server does not go by that name\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"nothing can be changed here\n", [(b"allow", b"GET, HEAD")])
        elif self._is_token(_in_query(scope)):
            cookie = f"{COOKIE}={self._token.decode()}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(
                send, 303, b"", [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))]
            )
        elif not (self._is_token(_in_cookie(headers)) or self._is_token(_in_header(headers))):
            await _answer(
                send, 401, b"open the address that qscore serve printed, with its token\n",
                [(b"www-authenticate", b"Bearer")],
            )  # fmt: skip
        else:
            await self._app(scope, receive, _with_headers(send))

    def _is_token(self, given: bytes) -> bool:
        return bool(given) and hmac.compare_digest(given, self._token)

    def _is_own_host(self, header: bytes) -> bool:
        try:
            host = urlsplit(f"//{header.decode('ascii')}").hostname or ""
        except ValueError:
            return False
        if host == "localhost" or host in self._hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def _in_query(scope: Scope) -> bytes:
    if scope["path"] != "/":
        return b""
    pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"))
    return dict(pairs).get("token", "").encode()


def _in_cookie(headers: dict[bytes, bytes]) -> bytes:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return b""
    return cookies[COOKIE].value.encode() if COOKIE in cookies else b""


def _in_header(headers: dict[bytes, bytes]) -> bytes:
    kind, _, given = headers.get(b"authorization", b"").partition(b" ")
    return given.strip() if kind.lower() == b"bearer" else b""


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return sending


async def _answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    start = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status,
                "headers": [*start, length, *HEADERS, *headers]})  # fmt: skip
    await send({"type": "http.response.body", "body": body})
