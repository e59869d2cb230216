"""The agent's local HTTP: is it well, its figures, and DC/OS's view of its networks. Nothing can be changed by it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hedgerow.errors import Unreachable
from hedgerow.model.dcos import agent_json, overlay_state
from hedgerow.reconcile.loop import Loop

from .attach import Attachments
from .connections import Connections
from .drops import Drops
from .objects import Kind
from .reports import Reports
from .session import Session
from .state import State

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What there is to show."""

    state: State
    loop: Loop
    reports: Reports
    session: Session
    attachments: Attachments
    drops: Drops
    connections: Connections


def app(parts: Parts, hosts: list[str]) -> Starlette:
    """`hosts`: the names under which it may be asked (a page in a browser could make up its own)."""

    async def healthz(request: Request) -> Response:
        return _health(parts)

    async def metrics(request: Request) -> Response:
        from . import metrics as figures  # late: prometheus_client takes a tenth of the agent's start

        return PlainTextResponse(figures.exposition(parts, await parts.drops.read()), media_type=_TEXT)

    async def overlay(request: Request) -> Response:
        return _overlay(parts)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/metrics", metrics), Route("/overlay-agent/overlay", overlay)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )


def _faults(parts: Parts) -> list[str]:
    return [f"{key}: {failed.reason}" for key, failed in sorted(parts.loop.failed.items())]


def _health(parts: Parts) -> Response:
    """Well when the kernel is as it should be; a controller that is away is no illness."""
    applied, snapshot = parts.reports.applied, parts.state.snapshot
    well = parts.loop.rounds.generation > 0 and all(key.kind is Kind.LINK for key in parts.loop.failed)
    body = {
        "ok": well,
        "controller": parts.session.connected_to,
        "trouble": parts.session.trouble,
        "revision": str(snapshot.revision) if snapshot is not None else None,
        "applied": str(applied) if applied is not None else None,
        "endpoints": len(parts.attachments.endpoints()),
        "faults": _faults(parts),
    }
    return JSONResponse(body, status_code=200 if well else 503)


def _overlay(parts: Parts) -> Response:
    """DC/OS's overlay agent: GET /overlay-agent/overlay."""
    own, snapshot = parts.state.own, parts.state.snapshot
    if own is None or snapshot is None:
        error = Unreachable("this agent is not registered yet", "look whether the controller is reachable")
        return JSONResponse({"message": error.message, "cure": error.cure}, status_code=503)
    state = overlay_state(_faults(parts)) if parts.reports.applied or _faults(parts) else None
    return JSONResponse(agent_json(own, snapshot.networks.values(), snapshot.cluster.vtep, state))
