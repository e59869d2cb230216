"""The controller: store, watch, registration, the agents' connections, the API and the apps, in one task group.

Everything it knows is in the store, so it may be killed at any moment: the next one reads it again, agents and clients
come back. A task that ends with an error ends the process; whoever supervises it starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hedgerow.apps import wiring
from hedgerow.errors import BadInput, HedgerowError
from hedgerow.store.sqlite import SqliteStore
from hedgerow.wire.http import serve
from hedgerow.wire.listen import bind, held_sockets, split_address, take_all_descriptors
from hedgerow.wire.stream import serve as serve_agents
from hedgerow.wire.tls import server_context

from .api import app as api
from .api.view import View
from .core import Core
from .networks import open_cluster

log = logging.getLogger(__name__)

MIN_TOKEN_CHARACTERS = 16
SHUTDOWN_S = 2
"""Streams (logs that are followed) would otherwise hold the process for as long as their readers like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Addresses are `host:port`; they are not used for sockets that were passed (`agents`, `api`)."""

    config: Path
    state: Path
    certificates: Path
    token_file: Path
    agents_address: str
    api_address: str
    version: str


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises HedgerowError for what keeps it from starting, or ends it."""
    stopped = False
    task = asyncio.current_task()

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await _run(settings)
    except asyncio.CancelledError:
        if not stopped:
            raise
        log.info("stopped")
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors


async def _run(settings: Settings) -> None:
    context, token = server_context(settings.certificates), read_token(settings.token_file)
    take_all_descriptors()
    held = held_sockets()
    agents = held.get("agents") or bind(settings.agents_address)
    listener = held.get("api") or bind(settings.api_address)
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await SqliteStore.open(settings.state / "store.db", new_epoch=int(time.time()))
    try:
        await open_cluster(store, settings.config, secrets.randbits)
        async with asyncio.TaskGroup() as group:
            core = Core(store)
            apps = wiring.build(store, core.sessions.call, lambda: core.sessions.connected)
            core.sessions.changed = apps.wake
            await core.start(group)
            view = View(store, core.watch, core.sessions, settings.config, apps.damaged)
            hosts = {split_address(settings.api_address)[0]} - {"0.0.0.0", "::"}
            served = api.build(view, settings.version, apps.routes, token, hosts)
            group.create_task(apps.run(), name="apps")
            group.create_task(serve(served, listener, grace_s=SHUTDOWN_S), name="api")
            server = await serve_agents(agents, context, core.sessions.accept, group)
            try:
                log.info("ready: %d agents, %d networks", len(core.watch.agents), len(core.watch.networks))
                await asyncio.Event().wait()
            finally:
                server.close()
    finally:
        await store.close()


def read_token(path: Path) -> str:
    """The API's token. Raises BadInput."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} cannot be read: {getattr(error, 'strerror', error)}",
            f"make one: (umask 077; head -c 32 /dev/urandom | base64 > {path})",
        ) from error
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise BadInput(
            f"{path} holds no token of at least {MIN_TOKEN_CHARACTERS} printable characters",
            f"make one: (umask 077; head -c 32 /dev/urandom | base64 > {path})",
        )
    return token


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to tell a person: the first HedgerowError, else the first of all."""
    leaves = list(_leaves(errors))
    return next((error for error in leaves if isinstance(error, HedgerowError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
