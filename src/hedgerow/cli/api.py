"""The command line's way to a controller: HTTP with a token, on the standard library alone, since it starts quickly.

Where to: --api and --token-file, else HEDGEROW_API and HEDGEROW_TOKEN, else /etc/hedgerow/cli.yaml, else the lab that
runs on this machine. A token is never an argument, where every user of the machine could read it.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click

from hedgerow.errors import BadInput, Conflict, HedgerowError, NotFound, Refused, Unreachable

SETTINGS = Path("/etc/hedgerow/cli.yaml")
ANSWER_S = 20.0
"""Longest silence of a controller that is taken for an answer still to come; a wait of 10 s may be asked for."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Api:
    """`headers` are those of the last answer, names in lower case."""

    url: str
    token: str | None
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **query: object) -> Any:
        return self._parsed("GET", path, query)

    def post(self, path: str, body: object, **query: object) -> Any:
        return self._parsed("POST", path, query, body)

    def put(self, path: str, text: str, **query: object) -> Any:
        """The body is text as it is."""
        return self._parsed("PUT", path, query, text.encode())

    def delete(self, path: str, **query: object) -> Any:
        return self._parsed("DELETE", path, query)

    def stream(self, path: str, **query: object) -> Iterator[bytes]:
        """Pieces of the answer as they come, without an end to wait for."""
        connection, answer = self._ask("GET", path, query, None, patience_s=None)
        try:
            while piece := answer.read1(65536):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} broke off: {error}", "ask again") from error
        finally:
            connection.close()

    def _parsed(self, method: str, path: str, query: dict[str, object], body: object = None) -> Any:
        connection, answer = self._ask(method, path, query, body, patience_s=ANSWER_S)
        try:
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} broke off: {error}", "ask again") from error
        finally:
            connection.close()
        return self._json(data) if data else None

    def _ask(
        self, method: str, path: str, query: dict[str, object], body: object, *, patience_s: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connection()
        asked = {key: _word(value) for key, value in query.items() if value is not None}
        target = quote(path) + (f"?{urlencode(asked)}" if asked else "")
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None
        if isinstance(body, bytes):
            data, headers["Content-Type"] = body, "text/plain; charset=utf-8"
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.connect()
            connection.sock.settimeout(patience_s)
            connection.request(method, target, body=data, headers=headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(
                f"{self.url} does not answer: {reason}", "is the controller running, and is --api right?"
            ) from error
        self.headers = {name.lower(): value for name, value in answer.getheaders()}
        if answer.status >= 400:
            try:
                self._refuse(answer.status, answer.read())
            finally:
                connection.close()
        return connection, answer

    def _connection(self) -> http.client.HTTPConnection:
        try:
            parts = urlsplit(self.url)
            if parts.scheme == "http" and parts.hostname:
                return http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_S)
        except ValueError:  # a port that is none, half an IPv6 address
            pass
        raise BadInput(f"{self.url} is no URL of a controller", "write it as http://127.0.0.1:8080")

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            told = f"{self.url} answered what is no JSON"
            raise Unreachable(told, "is --api the address of a controller?") from error

    def _refuse(self, status: int, data: bytes) -> None:
        """Raises what the controller said, as the kind that its status stands for."""
        try:
            told = json.loads(data)
        except ValueError:
            told = None
        told = told if isinstance(told, dict) else {}
        message = str(told.get("message") or f"{self.url} answered {status} {http.client.responses.get(status, '')}")
        cure = str(told.get("cure") or "")
        match status:
            case 401:
                raise Refused(message, "give the controller's token: --token-file, or HEDGEROW_TOKEN")
            case 403:
                raise Refused(message, cure)
            case 404:
                raise NotFound(message, cure)
            case 409:
                raise Conflict(message, cure)
            case 400 | 422:
                raise BadInput(_with_details(message, told), cure)
            case 502 | 503 | 504:
                raise Unreachable(message, cure or "ask again in a moment")
            case _:
                raise HedgerowError(message, cure)


def api_option(function: F) -> F:
    """Gives the verb `api`."""

    def call(api: str | None, token_file: Path | None, **arguments: Any) -> Any:
        return function(api=find_api(api, token_file), **arguments)

    decorated: Any = update_wrapper(call, function)
    decorated = click.option(
        "--token-file", type=click.Path(path_type=Path), help="File with the token, else HEDGEROW_TOKEN."
    )(decorated)
    decorated = click.option("--api", metavar="URL", help="The controller, else HEDGEROW_API, else found by itself.")(
        decorated
    )
    result: F = decorated
    return result


def find_api(url: str | None = None, token_file: Path | None = None) -> Api:
    """The controller that these options, the environment and this machine point to. Raises BadInput."""
    url = url or os.environ.get("HEDGEROW_API")
    token = _token_in(token_file) if token_file else os.environ.get("HEDGEROW_TOKEN")
    if url and token:
        return Api(url.rstrip("/"), token)
    found = _from_settings() or _from_lab()
    if found is None and url is None:
        raise BadInput(
            "no controller is known here", "give --api and --token-file, write /etc/hedgerow/cli.yaml, or: make demo"
        )
    if found is None or (url is not None and url.rstrip("/") != found.url):
        return Api((url or "").rstrip("/"), token)
    return Api(found.url, token or found.token)


def _from_settings() -> Api | None:
    if not SETTINGS.exists():
        return None
    from .settings import read_settings

    url, token_file = read_settings(SETTINGS)
    return Api(url, _token_in(token_file) if token_file else None)


def _from_lab() -> Api | None:
    from hedgerow.lab.state import running

    lab = running(os.environ.get("HEDGEROW_LAB"))
    return Api(lab.api, lab.token) if lab else None


def _token_in(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise BadInput(f"{path} cannot be read: {reason}", "name the file that holds the token") from error


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_details(message: str, told: dict[str, Any]) -> str:
    """Marathon lists every fault of a body under `details`: [{path, errors}]."""
    lines = [message]
    for detail in told.get("details") or []:
        if isinstance(detail, dict):
            lines += [f"  {detail.get('path', '')}: {error}" for error in detail.get("errors", [])]
    return "\n".join(lines)
