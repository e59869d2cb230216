"""Any request to the controller's API gets an answer that is no fault of ours, and the API goes on."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from conftest import Proof
from fuzz.evolve import changed
from fuzz.targets import APP_KEYS, CONFIG_KEYS, JSON_WORDS, RULED, TOKEN, YAML_WORDS, keys
from unit.controller_cases import Answer, controller, new_store
from unit.marathon_client import FORMS

from hedgerow.apps import wiring
from hedgerow.controller.api import app as api
from hedgerow.controller.api.view import View
from hedgerow.errors import Unreachable

SEED = 5
METHODS = ("GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS")
WORDS_OF_PATHS = """v1 v2 apps tasks networks agents endpoints status drops deployments info logs ping metrics
openapi.json dev prod n1 config can why my-networking .. . * %2e%2e %00 é 10.64.0.2 overlay-master state a/b //"""
SEGMENTS = tuple(WORDS_OF_PATHS.split())
QUERIES = ("", "wait=1ms&applied=1", "wait=9&applied=²", "id=x&embed=apps.tasks", "status=running", "from=a&to=b:80",
           "since=10s&from=é", "label=x", "applied=" + "9" * 5000, "=&&=", "wait=1ms&applied=-1")  # fmt: skip
BODIES = (b"", b"{}", b"null", RULED, *(json.dumps(form).encode() for form in FORMS.values()))
WORDS = (*JSON_WORDS, *YAML_WORDS, *keys(APP_KEYS, '"{}":'), *keys(CONFIG_KEYS, "{}: "))
OTHERS = ("/v2/apps", "/v2/apps", "/v2/apps/{id}", "/v2/apps/{id}/tasks", "/v2/tasks", "/v2/deployments", "/v2/info",
          "/v1/apps/{id}/logs", "/overlay-master/state", "/metrics", "/ping")  # fmt: skip
FAULTLESS = {503, 504}
"""An agent that does not answer is somebody else's."""


async def ask(app: Any, method: str, path: str, query: str, body: bytes) -> Answer:
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer " + TOKEN.encode())]
    headers += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": headers, "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(requests, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Answer(sent[0]["status"], {}, b"".join(each.get("body", b"") for each in sent))


async def nobody(*_: Any, **__: Any) -> AsyncGenerator[bytes, None]:
    raise Unreachable("no agent answers here")
    yield b""


def somewhere(routes: tuple[str, ...], chance: random.Random) -> str:
    """Most often a route that there is, with anything for its parameters."""
    if chance.random() < 0.2:
        return "/" + "/".join(chance.choices(SEGMENTS, k=chance.randint(0, 4)))
    return re.sub(r"{[^}]*}", lambda _: chance.choice(SEGMENTS), chance.choice(routes))


async def storm(count: int, config: Path) -> None:
    store, chance = await new_store(), random.Random(SEED)
    async with controller(store) as running:
        apps = wiring.build(store, nobody, lambda: running.core.sessions.connected)
        view = View(store, running.core.watch, running.core.sessions, config)
        app = api.build(view, "0", apps.routes, TOKEN)
        described = json.loads((await ask(app, "GET", "/v1/openapi.json", "", b"")).body)
        routes = (*described["paths"], *OTHERS)
        for number in range(count):
            path = somewhere(routes, chance)
            body = changed(chance.choice(BODIES), BODIES, WORDS, chance) if chance.random() < 0.8 else b""
            asked = chance.choice(METHODS), path, chance.choice(QUERIES), body
            try:
                answer = await ask(app, *asked)
            except Exception as error:
                raise AssertionError(f"request {number}: {asked!r}") from error
            assert answer.status < 500 or answer.status in FAULTLESS, (number, asked, answer)
            if answer.status >= 400 and asked[0] != "HEAD":
                assert "message" in json.loads(answer.body), (number, asked, answer)
        assert (await ask(app, "GET", "/v1/networks", "", b"")).status == 200


def test_any_request_gets_an_answer(tmp_path: Path, proof: Proof) -> None:
    count = proof.count("S18 requests", small=400, full=100_000, seed=SEED)
    config = tmp_path / "config.yaml"
    config.write_text("dcos_overlay_enable: false\n")
    asyncio.run(storm(count, config))
