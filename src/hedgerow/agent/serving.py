"""HTTP on sockets that somebody else holds: they outlive this process, and calls wait in them while it starts."""

from __future__ import annotations

import contextlib
import socket

import uvicorn
from starlette.types import ASGIApp

_KEEP_ALIVE_S = 3600
"""Whoever calls keeps its connection; a closing one would look like an answer that never came."""


async def serve(app: ASGIApp, listener: socket.socket) -> None:
    """In this event loop, until cancelled. The signals stay ours."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    await server.serve(sockets=[listener])
