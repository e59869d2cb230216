"""The examples of DC/OS's documentation in every form, and a client that calls the API without a network."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

EXAMPLES = Path(__file__).parents[2] / "examples"
FORMS: dict[str, dict[str, Any]] = {
    form: json.loads((EXAMPLES / f"my-networking{suffix}.json").read_text())
    for form, suffix in {
        "as printed": "",
        "with network": "-network",
        "new form": "-new-form",
        "Mesos with the image": "-mesos",
        "no container": "-no-container",
    }.items()
}
PRINTED = FORMS["as printed"]
COMMON = {key: value for key, value in PRINTED.items() if key not in ("ipAddress", "container")}
NETWORKS = [{"mode": "container", "name": "dcos-1"}]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]


async def call(app: Starlette, method: str, path: str, body: object = None) -> Answer:
    """One request of ASGI 3; a body that is no bytes is sent as JSON."""
    path, _, query = path.partition("?")
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8080")], "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    requests = iter([{"type": "http.request", "body": data, "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if request := next(requests, None):
            return request
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(each for each in sent if each["type"] == "http.response.start")
    headers = [(key.decode(), value.decode()) for key, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(each.get("body", b"") for each in sent))
