"""An engine that keeps its containers in memory, on a unix socket: Docker's API as far as a runner speaks it.

It answers as Docker 20.10 and Podman 4.3 were seen to: 404 for what is not there, 409 for a name that is taken, 304 for
what runs already, and a state that changes only by start, stop and `end`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web

STARTED, ENDED, NEVER = "2026-01-02T03:04:05.5Z", "2026-01-02T03:05:05.5Z", "0001-01-01T00:00:00Z"


class FakeEngine:
    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.images = {"nginx"}
        self.calls: list[str] = []
        self.fails_at_start = ""
        self.starts_held = asyncio.Event()
        self.starts_held.set()
        self._ids = count(1)
        self._listeners: set[asyncio.Queue[str]] = set()

    @asynccontextmanager
    async def served(self, socket: Path) -> AsyncIterator[FakeEngine]:
        runner = web.AppRunner(self._app(), handler_cancellation=True, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        try:
            yield self
        finally:
            await runner.cleanup()
            socket.unlink(missing_ok=True)

    def end(self, name: str, code: int) -> None:
        self._find(name)["State"] |= {"Status": "exited", "ExitCode": code, "FinishedAt": ENDED}
        self._tell("die")

    def forget(self, name: str) -> None:
        del self.containers[self._find(name)["Id"]]
        self._tell("destroy")

    def states(self) -> dict[str, str]:
        return {row["Name"]: row["State"]["Status"] for row in self.containers.values()}

    def _tell(self, action: str) -> None:
        for listener in self._listeners:
            listener.put_nowait(action)

    def _find(self, name: str) -> dict[str, Any]:
        for row in self.containers.values():
            if name in (row["Id"], row["Name"]):
                return row
        raise web.HTTPNotFound(text=json.dumps({"message": f"No such container: {name}"}))

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._noted])
        docker, podman = "/{version}/containers", "/{version}/libpod"
        app.add_routes(
            [
                web.get(f"{docker}/json", self._list),
                web.post(f"{docker}/create", self._create),
                web.post(f"{podman}/containers/create", self._create),
                web.get(f"{docker}/{{name}}/json", self._inspect),
                web.post(f"{docker}/{{name}}/start", self._start),
                web.post(f"{docker}/{{name}}/stop", self._stop),
                web.delete(f"{docker}/{{name}}", self._remove),
                web.get(f"{docker}/{{name}}/logs", self._logs),
                web.post("/{version}/images/create", self._pull),
                web.get("/{version}/events", self._events),
            ]
        )
        return app

    @web.middleware
    async def _noted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method != "GET":
            self.calls.append(f"{request.method} {request.path.partition('/containers/')[2]}")
        response: web.StreamResponse = await handler(request)
        return response

    async def _list(self, request: web.Request) -> web.Response:
        assert json.loads(request.query["filters"]) == {"label": ["hedgerow.instance"]}
        return web.json_response(
            [{"Id": row["Id"], "State": row["State"]["Status"]} for row in self.containers.values()]
        )

    async def _inspect(self, request: web.Request) -> web.Response:
        return web.json_response(self._find(request.match_info["name"]))

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = request.query.get("name") or body["name"]
        if any(row["Name"] == name for row in self.containers.values()):
            raise web.HTTPConflict(text=json.dumps({"message": f"the name {name} is in use"}))
        image = body.get("Image") or body.get("image")
        if image is not None and image not in self.images:
            raise web.HTTPNotFound(text=json.dumps({"message": f"No such image: {image}"}))
        labels = body.get("Labels") or body.get("labels")
        state = {"Status": "created", "ExitCode": 0, "Error": "", "StartedAt": NEVER, "FinishedAt": NEVER}
        id = f"{next(self._ids):064x}"
        self.containers[id] = {
            "Id": id, "Name": name, "Config": {"Labels": labels}, "State": state, "NetworkSettings": {"Networks": {}},
            "Body": body,
        }  # fmt: skip
        self._tell("create")
        return web.json_response({"Id": id}, status=201)

    async def _start(self, request: web.Request) -> web.Response:
        await self.starts_held.wait()
        row = self._find(request.match_info["name"])
        if self.fails_at_start:
            raise web.HTTPInternalServerError(text=json.dumps({"message": self.fails_at_start}))
        if row["State"]["Status"] == "running":
            return web.Response(status=304)
        row["State"] |= {"Status": "running", "StartedAt": STARTED}
        row["NetworkSettings"]["Networks"] = {"dcos-1": {"IPAddress": f"9.0.0.{1 + int(row['Id'], 16)}"}}
        self._tell("start")
        return web.Response(status=204)

    async def _stop(self, request: web.Request) -> web.Response:
        self.end(request.match_info["name"], 137)
        return web.Response(status=204)

    async def _remove(self, request: web.Request) -> web.Response:
        self.forget(request.match_info["name"])
        return web.Response(status=204)

    async def _logs(self, request: web.Request) -> web.Response:
        text = json.dumps(dict(request.query), sort_keys=True).encode()
        return web.Response(body=bytes([1, 0, 0, 0]) + len(text).to_bytes(4, "big") + text)

    async def _pull(self, request: web.Request) -> web.Response:
        image = request.query["fromImage"]
        if image == "nowhere":
            return web.Response(text=json.dumps({"status": "Pulling"}) + "\n" + json.dumps({"error": "denied"}) + "\n")
        self.images.add(image)
        return web.Response(text=json.dumps({"status": "Pulled"}))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        listener: asyncio.Queue[str] = asyncio.Queue()
        self._listeners.add(listener)
        try:
            while True:
                await response.write(json.dumps({"Action": await listener.get()}).encode() + b"\n")
        finally:
            self._listeners.discard(listener)
