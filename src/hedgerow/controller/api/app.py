"""The controller's HTTP application."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from hedgerow.errors import HedgerowError

from . import outside, v1
from .guard import LOOPBACK, Guard
from .view import View


def build(view: View, version: str, extra: Sequence[BaseRoute], token: str, hosts: Collection[str] = ()) -> ASGIApp:
    """`extra` routes come before `/v1`; `hosts` are names of the API beside those of the loopback."""
    routes = [*outside.routes(view), *extra, Mount("/", v1.build(view, version))]
    app = Starlette(routes=routes, exception_handlers={HedgerowError: v1.told})
    return Guard(app, token, LOOPBACK | frozenset(hosts))
