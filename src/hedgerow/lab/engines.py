"""Speaks to a node's engines from the machine: HTTP over their unix sockets, reached through the supervisor's root."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from hedgerow.errors import HedgerowError, Unreachable

from .images import Image

DOCKER = "/run/docker.sock"
PODMAN = "/run/podman/podman.sock"
API = "/v4.0.0/libpod"
"""Of Podman; Docker's paths carry no version: the engine then speaks its newest."""


class UnixHTTP(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def socket_of(pid: int, engine: str) -> Path:
    """An engine's socket in the node whose supervisor has this pid, as the machine sees it."""
    return Path(f"/proc/{pid}/root{DOCKER if engine == 'docker' else PODMAN}")


def ask(pid: int, engine: str, method: str, path: str, *, body: Any = None, timeout_s: float = 60) -> Any:
    """One call; `body` is a JSON value, or a Path whose bytes are sent. Returns the answer's JSON, or its text.

    Raises Unreachable when nobody answers, HedgerowError with the engine's own words when it refuses.
    """
    connection = UnixHTTP(socket_of(pid, engine), timeout_s)
    try:
        if isinstance(body, Path):
            with body.open("rb") as file:
                size = {"Content-Length": str(body.stat().st_size), "Content-Type": "application/x-tar"}
                connection.request(method, path, file, size)
                answer = connection.getresponse()
                text = answer.read().decode(errors="replace")
        else:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{engine} does not answer {method} {path}: {error}", "hedgerow lab status") from error
    finally:
        connection.close()
    value = _json(text)
    if answer.status >= 400:
        said = value.get("message") or value.get("cause") if isinstance(value, dict) else text.strip()
        raise HedgerowError(f"{engine} refused {method} {path.partition('?')[0]}: {said}")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def answers(pid: int, engine: str) -> bool:
    try:
        ask(pid, engine, "GET", "/_ping", timeout_s=5)
    except HedgerowError:
        return False
    return True


def import_image(pid: int, engine: str, image: Image, tar: Path) -> None:
    """Raises HedgerowError with what the engine said."""
    if engine == "docker":
        query = urlencode({"fromSrc": "-", "repo": image.name, "tag": "latest", "changes": image.command})
        said = ask(pid, engine, "POST", f"/images/create?{query}", body=tar, timeout_s=120)
        last = str(said).strip().splitlines()[-1] if isinstance(said, str) and said.strip() else ""
        if '"error"' in last:
            raise HedgerowError(f"docker cannot import {image.name}: {last}", "look at dockerd's log")
    else:
        query = urlencode({"reference": f"localhost/{image.name}:latest", "changes": image.command}, quote_via=quote)
        ask(pid, engine, "POST", f"{API}/images/import?{query}", body=tar, timeout_s=120)
