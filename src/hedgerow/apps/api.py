"""Marathon's REST API for apps: enough to run one, look at it, and take it away.

Everything is read from the store at the moment of the call; a write is one transaction, and the scheduler sees it by
its watch. Ids hold slashes, and clients write them with too many, so one route takes all below `/v2/apps` and the path
is cut here.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hedgerow.errors import Conflict
from hedgerow.model.app import AppId
from hedgerow.store.base import Compare, Delete, Put, Store
from hedgerow.wire.codec import to_json

from . import view
from .marathon import absolute, read_app, timestamp
from .oldform import BRIDGE_NAME
from .placement import World
from .records import app_key, backoff_key
from .scheduler import Scheduler
from .shape import BadApp, Fault, NotJson

MAX_BODY_BYTES = 1 << 20
UNCACHED = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0"}
MARATHON_VERSION = "1.11.0"
"""Which Marathon's API this is. Clients choose the form of their bodies by it."""


@dataclass(frozen=True, slots=True)
class Marathon:
    """`clock` gives seconds since the epoch."""

    store: Store
    scheduler: Scheduler
    clock: Callable[[], float] = time.time

    def routes(self) -> list[Route]:
        return [
            Route("/v2/apps", self.apps, methods=["GET", "POST"]),
            Route("/v2/apps/{path:path}", self.below_apps, methods=["GET", "POST", "DELETE"]),
            Route("/v2/tasks", self.tasks, methods=["GET"]),
            Route("/v2/deployments", self.deployments, methods=["GET"]),
            Route("/v2/info", self.info, methods=["GET"]),
        ]

    async def apps(self, request: Request) -> Response:
        if request.method == "POST":
            return await _faults_answered(self._create, request)
        return await self._list(request)

    async def below_apps(self, request: Request) -> Response:
        path = request.path_params["path"].strip("/")
        if not path:
            return await self.apps(request)
        match request.method, path.split("/"):
            case "GET", [*id, "tasks"] if id:
                return await self._tasks_of(_id(id))
            case "GET", [*id, "*"] if id:
                return await self._group(_id(id))
            case "GET", id:
                return await self._get(_id(id))
            case "DELETE", [*id, last] if last not in ("tasks", "*"):
                return await self._delete(_id([*id, last]))
        return _message(405, f"{request.method} {request.url.path} is not supported")

    async def tasks(self, request: Request) -> Response:
        world = await self._world()
        asked = request.query_params.getlist("status") + request.query_params.getlist("status[]")
        states = {"TASK_" + each.upper() for each in asked}
        found = [view.listed_task(world, each) for each in view.tasks_of(world)]
        return _json({"tasks": [each for each in found if not states or each["state"] in states]})

    async def deployments(self, request: Request) -> Response:
        world = await self._world()
        return _json([view.deployment(app) for app in world.apps.values() if app.deployment])

    async def info(self, request: Request) -> Response:
        """marathon.md 4.3. Only keys that a Marathon has."""
        host, port = request.url.hostname, request.url.port
        return _json(
            {
                "name": "marathon",
                "version": MARATHON_VERSION,
                "elected": True,
                "leader": f"{host}:{port}",
                "frameworkId": "hedgerow",
                "marathon_config": {
                    "default_network_name": None,
                    "mesos_bridge_name": BRIDGE_NAME,
                    "hostname": host,
                },
                "zookeeper_config": {},
                "http_config": {"http_port": port, "https_port": None},
            }
        )

    async def _world(self) -> World:
        return (await self.scheduler.read()).world

    async def _list(self, request: Request) -> Response:
        world, query = await self._world(), request.query_params
        if "label" in query:
            return _message(422, "selecting apps by label is not supported yet: use id= or cmd=")
        found = [
            app
            for app in world.apps.values()
            if query.get("id", "").lower() in app.id and query.get("cmd", "").lower() in (app.cmd or "").lower()
        ]
        embed = {each.rpartition("apps.")[2] for each in query.getlist("embed")}
        render = view.app_with_tasks if embed & {"tasks", "failures", "lastTaskFailure"} else view.app_info
        return _json({"apps": [render(world, app) for app in sorted(found, key=lambda app: app.id)]})

    async def _create(self, request: Request) -> Response:
        reading = read_app(await _body(request), timestamp(self.clock()))
        app = replace(reading.app, deployment=str(uuid.uuid4()))
        world = await self._world()
        if family := next((other for other in world.apps if _one_is_group_of(app.id, other)), None):
            raise BadApp("Object is not valid", (Fault("/id", f"an app may not be a group: {family} is there"),))
        try:
            await self.store.commit([Compare(app_key(app.id), 0)], [Put(app_key(app.id), to_json(app))])
        except Conflict:
            return _message(409, f"An app with id [{app.id}] already exists.")
        found = view.app_info(World(), app)
        del found["versionInfo"]
        headers = {"Location": app.id, "Marathon-Deployment-Id": str(app.deployment)}
        return _json(found, 201, headers, reading.warnings)

    async def _get(self, id: AppId) -> Response:
        world = await self._world()
        return _json({"app": view.app_with_tasks(world, world.apps[id])}) if id in world.apps else _no_app(id)

    async def _tasks_of(self, id: AppId) -> Response:
        world = await self._world()
        if id.endswith("/*"):
            apps = [app for app in world.apps.values() if app.id.startswith(id[:-1])]
        elif id in world.apps:
            apps = [world.apps[id]]
        else:
            return _no_app(id)
        return _json({"tasks": [view.task(world, each) for app in apps for each in view.tasks_of(world, app)]})

    async def _group(self, id: AppId) -> Response:
        world = await self._world()
        below = [view.app_info(world, app) for app in world.apps.values() if app.id.startswith(f"{id}/")]
        return _json({"*": below})

    async def _delete(self, id: AppId) -> Response:
        """The scheduler kills what runs; until an agent says that it is over, its task is listed as being killed."""
        while entry := await self.store.get(app_key(id)):
            try:
                # Its failures go with it: an app that takes the id next has none.
                operations = [Delete(entry.key), Delete(backoff_key(id))]
                await self.store.commit([Compare(entry.key, entry.modified)], operations)
            except Conflict:
                continue
            deployment = str(uuid.uuid4())
            found = {"version": timestamp(self.clock()), "deploymentId": deployment}
            return _json(found, headers={"Marathon-Deployment-Id": deployment})
        return _no_app(id)


def _id(segments: list[str]) -> AppId:
    return absolute("/".join(segments))


def _one_is_group_of(one: AppId, other: AppId) -> bool:
    return other.startswith(f"{one}/") or one.startswith(f"{other}/")


async def _body(request: Request) -> bytes:
    """Raises NotJson when it is too large."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MAX_BODY_BYTES:
            raise NotJson("Invalid JSON", f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(found)


async def _faults_answered(act: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """Marathon's bodies for what it cannot take (marathon.md 1.8)."""
    try:
        return await act(request)
    except NotJson as error:
        return _json({"message": error.kind, "details": error.details}, 400)
    except BadApp as error:
        details: dict[str, list[str]] = {}
        for fault in error.faults:
            details.setdefault(fault.path, []).append(fault.message)
        rows = [{"path": path, "errors": errors} for path, errors in details.items()]
        return _json({"message": error.kind, "details": rows}, 422)


def _no_app(id: AppId) -> Response:
    return _message(404, f"App '{id}' does not exist")


def _message(status: int, text: str) -> Response:
    return _json({"message": text}, status)


def _json(
    found: Any, status: int = 200, headers: dict[str, str] | None = None, warnings: tuple[str, ...] = ()
) -> Response:
    response = JSONResponse(found, status, headers=UNCACHED | (headers or {}))
    if warnings:
        response.headers["Warning"] = ", ".join(f"299 - {_quoted(text)}" for text in warnings)
    return response


def _quoted(text: str) -> str:
    """As RFC 9110, 5.6.4 has it. What is not plain ASCII (it came from the body) is escaped as Python does."""
    plain = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{plain}"'
