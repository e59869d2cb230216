"""`/v1`: our own API. Every answer names the revision that it is of; PUT /v1/config is the one that writes."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from hedgerow.config.problem import printable
from hedgerow.controller.apply import apply
from hedgerow.errors import BadInput, Conflict, Exhausted, HedgerowError, NotFound, Refused, Unreachable
from hedgerow.model.snapshot import Revision

from . import samples, shapes, why
from .asked import Asked
from .can import judged
from .render import why_shape
from .view import View

MAX_WAIT_S = 60.0
LONGEST_FILE = 200
"""Characters of a file's name in messages."""
_STATUSES: tuple[tuple[type[HedgerowError], int], ...] = (
    (BadInput, 400),
    (NotFound, 404),
    (Conflict, 409),
    (Exhausted, 409),
    (Refused, 403),
    (Unreachable, 503),
)
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


def build(view: View, version: str) -> FastAPI:
    """Swagger's pages load from elsewhere, which a cluster's hosts may not reach: only the description is served."""
    app = FastAPI(
        title="Hedgerow",
        version=version,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": shapes.Told} for status in (400, 401, 404)},
    )
    app.add_exception_handler(HedgerowError, told)
    app.add_exception_handler(RequestValidationError, _bad_request)
    app.add_exception_handler(HTTPException, _http_error)
    _add_networks(app, view)
    _add_config(app, view)
    _add_agents(app, view)
    _add_endpoints(app, view)
    _add_eyes(app, view)
    return app


def _add_networks(app: FastAPI, view: View) -> None:
    @app.get("/v1/networks")
    async def networks() -> shapes.Networks:
        """All networks, with the blocks that agents have of them."""
        return shapes.Networks(revision=view.revision, networks=await view.networks())

    @app.get("/v1/networks/{name}")
    async def network(name: str) -> shapes.NetworkShape:
        """One network."""
        return await view.network(name)

    @app.get("/v1/status")
    async def status() -> shapes.Status:
        """Whether anything needs somebody's attention."""
        return await view.status()


def _add_config(app: FastAPI, view: View) -> None:
    @app.put("/v1/config")
    async def config(request: Request, file: str = "config.yaml") -> shapes.AppliedConfig:
        """Applies a whole config.yaml, which is the body: all that it changes in one revision, or nothing. Only who may
        talk to whom can change; anything else is refused, each with its line. `file` is its name in messages.
        """
        outcome = await apply(view.store, view.watch, text_of(await request.body()), printable(file)[:LONGEST_FILE])
        return shapes.AppliedConfig(
            revision=str(Revision(view.store.epoch, outcome.revision)),
            changed=[shapes.ChangedKey(network=one.network, key=one.key) for one in outcome.changed],
            warnings=[str(warning) for warning in outcome.warnings],
        )

    @app.get("/v1/can")
    async def can(
        source: Annotated[str, Query(alias="from")], destination: Annotated[str, Query(alias="to")]
    ) -> shapes.CanShape:
        """Whether one may begin to talk to the other, by the configuration alone. Each is an endpoint, an address, an
        app or a network; `to` ends in a port, as `:5432`, `:53/udp` or `:icmp`, and without one anything will do.
        """
        return await judged(view.store, view.watch, source, destination)


def text_of(body: bytes) -> str:
    """Raises BadInput."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} of the body is no UTF-8", "send config.yaml as UTF-8") from error


def _add_agents(app: FastAPI, view: View) -> None:
    @app.get("/v1/agents")
    async def agents(wait: str | None = None, applied: str | None = None) -> shapes.Agents:
        """All agents. With `applied` answers as soon as all have applied that revision, or `wait` (as 10s) is over."""
        if applied is not None:
            await view.wait_applied(revision_number(applied), duration_s(wait or "0s"))
        return shapes.Agents(revision=view.revision, agents=await view.agents())

    @app.get("/v1/agents/{name}")
    async def agent(name: str, wait: str | None = None, applied: str | None = None) -> shapes.AgentShape:
        """One agent, by name or id. `wait` and `applied` as for all."""
        found = await view.agent(name)
        if applied is not None:
            identity = next(one for one in view.watch.agents if one == found.id)
            await view.wait_applied(revision_number(applied), duration_s(wait or "0s"), identity)
        return await view.agent(name)

    @app.get("/v1/drops")
    async def drops() -> shapes.Drops:
        """Dropped packets by agent, network and reason, counted by the agents' data paths."""
        found, silent = await view.drops()
        return shapes.Drops(revision=view.revision, drops=found, silent=silent)


def _add_endpoints(app: FastAPI, view: View) -> None:
    @app.get("/v1/endpoints")
    async def endpoints() -> shapes.Endpoints:
        """All endpoints, in the order of their addresses."""
        return shapes.Endpoints(revision=view.revision, endpoints=await view.endpoints())

    @app.get("/v1/endpoints/{which:path}")
    async def endpoint(which: str) -> shapes.EndpointShape:
        """One endpoint: by address, id, name, link, or the container's id or its beginning."""
        return await view.endpoint(which)


def _add_eyes(app: FastAPI, view: View) -> None:
    @app.get("/v1/drops/samples", response_class=PlainTextResponse)
    async def dropped(
        since: str = "10m",
        follow: bool = False,
        source: Annotated[str | None, Query(alias="from")] = None,
        destination: Annotated[str | None, Query(alias="to")] = None,
        reason: str | None = None,
        network: str | None = None,
        agent: str | None = None,
    ) -> Response:
        """Dropped packets one by one, of those that the data paths sample: a JSON object (Sample) a line, for ever with
        `follow`. `from` and `to` name an endpoint, an app, an address, a subnet, a network or an agent.
        """
        wanted = samples.Wanted(
            since_s=duration_s(since, samples.LONGEST_S),
            follow=follow,
            source=source,
            destination=destination,
            reason=reason,
            network=network,
            agent=agent,
        )
        lines = samples.Samples(view).lines(wanted)
        return samples.Lines(lines, media_type="application/x-ndjson")

    @app.get("/v1/why")
    async def asked(
        source: Annotated[str, Query(alias="from")],
        destination: Annotated[str, Query(alias="to")],
        protocol: Annotated[str, Query(pattern="^(tcp|udp|icmp)$")] = "icmp",
        port: Annotated[int, Query(ge=0, le=65535)] = 0,
    ) -> shapes.Why:
        """Whether one endpoint reaches another, by a probe that is really sent, and what stops it."""
        case, answer = await why.Why(view).ask(Asked(source, destination, protocol, port))
        return why_shape(view.revision, case, answer)


def duration_s(text: str, limit_s: float = MAX_WAIT_S) -> float:
    """`10s`, `500ms`, `1m`; seconds, at most `limit_s`. Raises BadInput."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)", text)
    if match is None:
        raise BadInput(f"{text!r} is no duration", "write 10s, 500ms or 1m")
    return min(float(match[1]) * _UNITS_S[match[2]], limit_s)


def revision_number(text: str) -> int:
    """Of `epoch.number` or `number`. Raises BadInput."""
    number = text.rpartition(".")[2]
    if not (number.isascii() and number.isdigit()) or len(number) > 19:
        raise BadInput(f"{text!r} is no revision", "write one as an answer's revision field has it")
    return int(number)


async def told(_: Request, error: Exception) -> JSONResponse:
    """The answer for a HedgerowError."""
    assert isinstance(error, HedgerowError)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return JSONResponse({"message": error.message, "cure": error.cure}, status)


async def _bad_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"message": "; ".join(faults), "cure": "see /v1/openapi.json"}, 400)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"message": message, "cure": "see /v1/openapi.json"}, error.status_code, error.headers)
