"""An app's log: what its instance wrote, fetched from the agent that runs it, while it runs and for as long as its
record is kept. Ours, not Marathon's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hedgerow.errors import BadInput, HedgerowError, NotFound, Unreachable
from hedgerow.model.agent import AgentId
from hedgerow.model.app import Instance

from .marathon import absolute
from .placement import World
from .scheduler import Scheduler

MAX_FOLLOW_S = 24 * 3600.0
MAX_READ_S = 60.0
FAULT_WAIT_S = 1.0
"""A log that cannot be read says so at once; one that has nothing to say yet is answered after this."""


class CallAgent(Protocol):
    """Calls a method of an agent. Raises Unreachable when it has no connection, or is not done by the deadline."""

    def __call__(
        self, agent: AgentId, method: str, arguments: dict[str, Any], *, deadline_s: float
    ) -> AsyncGenerator[bytes, None]: ...


@dataclass(frozen=True, slots=True)
class Logs:
    scheduler: Scheduler
    call: CallAgent

    def routes(self) -> list[Route]:
        return [Route("/v1/apps/{path:path}/logs", self.logs, methods=["GET"])]

    async def logs(self, request: Request) -> Response:
        """`?task=ID` (else the newest), `?tail=N` lines, `?follow=true`. The name of the task is in `Hedgerow-Task`."""
        try:
            world = (await self.scheduler.read()).world
            instance = _chosen(world, request.path_params["path"], request.query_params.get("task"))
            follow = _flag(request, "follow")
            arguments = {"instance": instance.id, "follow": follow, "tail": _tail(request)}
            deadline_s = MAX_FOLLOW_S if follow else MAX_READ_S
            chunks = self.call(instance.agent, "logs", arguments, deadline_s=deadline_s)
            # The answer begins late, for a fault must still be able to change its status.
            first = asyncio.ensure_future(anext(chunks, b""))
            await asyncio.wait({first}, timeout=FAULT_WAIT_S)
            if first.done():
                first.result()
        except HedgerowError as error:
            return JSONResponse({"message": error.message, "cure": error.cure}, _status(error))
        headers = {"Hedgerow-Task": instance.id}
        return StreamingResponse(_joined(first, chunks), media_type="text/plain; charset=utf-8", headers=headers)


async def _joined(first: asyncio.Future[bytes], chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """What goes wrong once the answer has begun is its last line."""
    async with aclosing(chunks):
        try:
            yield await first
            async for chunk in chunks:
                yield chunk
        except HedgerowError as error:
            yield f"\nhedgerow: {error}\n".encode()


def _chosen(world: World, path: str, task: str | None) -> Instance:
    app = absolute(path)
    found = [each for each in world.instances.values() if each.app == app and task in (None, each.id)]
    if not found:
        if app not in world.apps:
            raise NotFound(f"App '{app}' does not exist", "hedgerow app ls")
        what = f"task {task} of {app} is not there" if task else f"no instance of {app} has been started yet"
        raise NotFound(what, f"hedgerow app show {app}")
    return max(found, key=lambda each: (not world.state(each).is_final, each.staged_s))


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "false").lower() == "true"


def _tail(request: Request) -> int | None:
    asked = request.query_params.get("tail")
    if asked is None:
        return None
    if not asked.isascii() or not asked.isdigit():
        raise BadInput(f"tail={asked} is no number of lines")
    return int(asked)


def _status(error: HedgerowError) -> int:
    match error:
        case NotFound():
            return 404
        case BadInput():
            return 422
        case Unreachable():
            return 503
        case _:
            return 502
