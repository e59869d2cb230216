"""HTTP in our own event loop, on sockets that are already bound: some are held by somebody else and outlive us."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvicorn
from starlette.types import ASGIApp


async def serve(app: ASGIApp, listener: socket.socket, *, keep_alive_s: int = 5, grace_s: int | None = None) -> None:
    """Until cancelled; with `grace_s` open answers have that long then. Signals stay the process's own affair."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=grace_s,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    try:
        await server.serve(sockets=[listener])
    except asyncio.CancelledError:
        if grace_s is not None:
            await server.shutdown(sockets=[listener])
        raise
