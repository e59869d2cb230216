"""The controller's HTTP application, and the server that runs it in our own loop on a socket that is already bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection, Iterator, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from hedgerow.errors import HedgerowError

from . import outside, v1
from .guard import LOOPBACK, Guard
from .view import View

SHUTDOWN_S = 2
"""Streams (logs that are followed) would otherwise hold the process for as long as their readers like."""


def build(view: View, version: str, extra: Sequence[BaseRoute], token: str, hosts: Collection[str] = ()) -> ASGIApp:
    """`extra` routes come before `/v1`; `hosts` are names of the API beside those of the loopback."""
    routes = [*outside.routes(view), *extra, Mount("/", v1.build(view, version))]
    app = Starlette(routes=routes, exception_handlers={HedgerowError: v1.told})
    return Guard(app, token, LOOPBACK | frozenset(hosts))


class _Server(uvicorn.Server):
    """Signals are the controller's own affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """Until cancelled."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        await server.shutdown(sockets=[listener])
        raise
