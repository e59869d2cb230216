"""Who may call the API: the right host name, no foreign page, the token, a body of bounded size. Pure ASGI.

The token comes as `Authorization: Bearer` (ours), `token=` (DC/OS's clients) or Basic with any user (Marathon's
clients). Host and Origin are checked even on loopback: a web page can make a browser call 127.0.0.1 under a name of its
own (DNS rebinding). Only `/ping` needs no token.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OPEN_PATHS = frozenset({"/ping"})
MAX_BODY_BYTES = 1 << 20
CHALLENGE = (b"www-authenticate", b'Bearer realm="hedgerow", Basic realm="hedgerow"')


class Guard:
    """`hosts` are names and addresses, without ports, under which the API may be called."""

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str] = LOOPBACK) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._refuse(scope)
        if refused is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _answer(send, *refused)

    def _refuse(self, scope: Scope) -> tuple[int, str, str] | None:
        """Status, message and cure; None for who may pass."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if host_name(host) not in self._hosts:
            return 421, f"the API is not called {host!r}", f"use one of {', '.join(sorted(self._hosts))}"
        origin = headers.get("origin")
        if origin is not None and _origin_name(origin) not in self._hosts:
            return 403, f"pages of {origin} may not call the API", "call it from a program"
        if scope["path"] not in OPEN_PATHS and not self._knows(headers.get("authorization", "")):
            return 401, "no or wrong token", "send Authorization: Bearer with the controller's token"
        return _refuse_body(headers)

    def _knows(self, authorization: str) -> bool:
        given = credential(authorization)
        return given is not None and hmac.compare_digest(given.encode(), self._token.encode())


def credential(authorization: str) -> str | None:
    """The token in an Authorization header, in any of the three forms."""
    if authorization.startswith("token="):
        return authorization.removeprefix("token=")
    scheme, _, rest = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return rest.strip()
        case "basic":
            try:
                _, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
            except ValueError:  # no base64, or no text in it
                return None
            return password if colon else None
        case _:
            return None


def host_name(host: str) -> str:
    """Of a Host header: without the port, without the brackets of IPv6."""
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def _origin_name(origin: str) -> str:
    """Of an Origin header; empty for `null`, and for what is no URL."""
    try:
        return (urlsplit(origin).hostname or "").lower()
    except ValueError:
        return ""


def _refuse_body(headers: Mapping[str, str]) -> tuple[int, str, str] | None:
    if "transfer-encoding" in headers:
        return 411, "a body without a length", "send Content-Length"
    length = headers.get("content-length", "0")
    # Superscripts are digits to isdigit(), and int() takes no more than 4,300 of any kind.
    if not (length.isascii() and length.isdigit()) or len(length) > 19 or int(length) > MAX_BODY_BYTES:
        return 413, f"a body of {length} bytes, at most {MAX_BODY_BYTES} are taken", "send less at once"
    return None


async def _answer(send: Send, status: int, message: str, cure: str) -> None:
    body = json.dumps({"message": message, "cure": cure}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append(CHALLENGE)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
