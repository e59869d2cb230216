"""The agent, put together: one task group, each task with a name.

It takes hold of the kernel from what it saved, and only then takes calls: they have waited in sockets that somebody
else holds. Tasks without which it would be no agent end it when they end (it is started again at once); those that
serve one engine are started again by themselves. Ending takes nothing down: programs, maps and links work on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

from starlette.applications import Starlette

from hedgerow.config.agent import AgentSettings
from hedgerow.errors import BadInput, HedgerowError
from hedgerow.model.agent import AgentId
from hedgerow.reconcile.loop import Loop
from hedgerow.wire import tls
from hedgerow.wire.http import serve
from hedgerow.wire.listen import bind, split_address, take_all_descriptors
from hedgerow.wire.stream import Stream, dial

from . import events, host, http
from .attach import Attachments
from .connections import Connections
from .desired import Wanted
from .drops import Drops
from .engines import cni, conflists, docker, docker_networks
from .facts import Here
from .instances import own_instances
from .objects import Kind
from .passes import Passes, read_secret
from .publish import Publisher
from .reports import Reports
from .runner import Runner
from .samples import Samples
from .session import Session
from .state import State
from .trace import Traces
from .why import Why
from .worker import Removals

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_KEEP_ALIVE_S = 3600
"""Whoever calls keeps its connection; a closing one would look like an answer that never came."""
_STEADY_S = 60.0
"""A task that ran this long had no trouble at its start."""

Task = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Core:
    """What everything else stands on."""

    settings: AgentSettings
    state: State
    wanted: Wanted
    loop: Loop
    reports: Reports
    attachments: Attachments
    drops: Drops
    connections: Connections
    samples: Samples
    traces: Traces
    held: host.Host


async def run(settings: AgentSettings, sockets: Mapping[str, socket.socket], started_s: float) -> None:
    """Until SIGTERM or SIGINT. `started_s`: when this process began, by time.monotonic(). Raises HedgerowError."""
    missing = _needed(settings) - sockets.keys()
    if missing:
        raise BadInput(
            f"no socket was passed under the name {', '.join(sorted(missing))}",
            "start the agent by hedgerow-agent.socket, or by whatever else holds its sockets",
        )
    take_all_descriptors()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with (
        ThreadPoolExecutor(1, thread_name_prefix="kernel") as worker,
        ThreadPoolExecutor(1, thread_name_prefix="removals") as removals,
    ):
        core = _build(settings, worker, removals)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await _live(core, sockets, stop, started_s)
        finally:
            worker.submit(core.state.close).result()  # behind what is under way there
    log.info("ends; the data path stays")


def _needed(settings: AgentSettings) -> set[str]:
    return {"agent", "calls"} if "docker" in settings.engines else {"agent"}


def _build(settings: AgentSettings, worker: ThreadPoolExecutor, removals: ThreadPoolExecutor) -> Core:
    secret = read_secret(settings.certificates)
    state = State(settings.state / "state.db", worker)
    passes = Passes(secret, lambda: own_instances(state.snapshot, state.own) if state.snapshot and state.own else {})
    wanted = Wanted(state, host.look(settings))
    reports = Reports(state, way=lambda: "wire" if wanted.local.fast and held.can_send_fast else "device")
    held = host.take_hold(
        lambda: wanted.local,
        worker,
        Removals(removals),
        recorded=lambda: [placed.endpoint.link for placed in state.placed()],
        remade=state.relink,
        published=lambda: wanted.rows(Kind.PUBLISHED),
        sysctls=lambda: [key.name for key in wanted.rows(Kind.SYSCTL)],
    )

    async def before_round() -> None:
        try:
            known, wanted.local = wanted.local, await state.run(lambda: host.look(settings))
            if known.addresses != wanted.local.addresses:
                state.reportable.change()
        except (HedgerowError, OSError) as error:
            log.warning("the underlay's link cannot be looked at: %s", error)
        reports.round_begins()

    loop = Loop(held.targets, wanted, before_round=before_round, after_round=reports.round_done)
    publisher = Publisher(state, loop, held.published, held.links.removals, lambda: wanted.local.tunnel_port)
    attachments = Attachments(state, wanted, loop, held.links, publisher, passes)
    connections = Connections(
        held.maps,
        here=lambda: [address for placed in state.placed() for address in placed.endpoint.addresses],
        is_local=lambda address: state.own is not None and any(address in p.block for p in state.own.all_prefixes),
        rules=wanted.rules,
    )
    attachments.gone = connections.endpoint_gone
    drops = Drops(state, held.maps)
    samples, traces = Samples(drops.names), Traces(held.maps, state.run)
    return Core(settings, state, wanted, loop, reports, attachments, drops, connections, samples, traces, held)


async def _live(core: Core, sockets: Mapping[str, socket.socket], stop: asyncio.Event, started_s: float) -> None:
    settings, state, attachments = core.settings, core.state, core.attachments
    runner = _runner(core)
    session = _session(core, runner)
    plugin = cni.Plugin(attachments, state)
    local, listener = http.app(_shown(core, session), _hosts(settings)), bind(settings.http)
    async with asyncio.TaskGroup() as group:

        def vital(name: str, task: Awaitable[None]) -> None:
            group.create_task(_never_ends(name, task), name=name)

        def kept(name: str, task: Task) -> None:
            group.create_task(_again_and_again(name, task), name=name)

        vital("loop", core.loop.run())
        vital("wanted", _wake_at_changes(core))
        vital("links", events.watch_links(state, lambda: core.wanted.local, core.loop.wake))
        vital("tables", events.watch_tables(core.held.published.own_port, core.loop.wake))
        await core.loop.first_round()
        await core.traces.reset()
        vital("session", session.run())
        vital("agent.sock", serve(Starlette(routes=plugin.routes()), sockets["agent"], keep_alive_s=_KEEP_ALIVE_S))
        vital("http", serve(local, listener, keep_alive_s=_KEEP_ALIVE_S))
        kept("cni queue", plugin.keep_queue)
        kept("conflists", lambda: conflists.keep(state))
        kept("runner", runner.run)
        kept("connections", core.connections.keep)
        kept("samples", lambda: core.samples.read(core.held.maps))
        if "docker" in settings.engines:
            calls = docker.app(attachments, state)
            vital("calls.sock", serve(calls, sockets["calls"], keep_alive_s=_KEEP_ALIVE_S))
            kept("docker networks", lambda: docker_networks.keep(attachments, state))
        ready_ms = (time.monotonic() - started_s) * 1e3
        log.info("ready after %.0f ms, %d endpoints adopted", ready_ms, len(attachments.endpoints()))
        await stop.wait()
        raise asyncio.CancelledError


def _runner(core: Core) -> Runner:
    def changed() -> None:
        core.state.reportable.change()
        core.loop.wake()  # who is a member may be another question now

    options = core.attachments.passes.options
    runner = Runner(core.attachments, core.state, core.settings, changed, options)
    core.wanted.claimed = runner.claimed
    core.reports.instances = runner.statuses
    return runner


def _shown(core: Core, session: Session) -> http.Parts:
    return http.Parts(
        state=core.state,
        loop=core.loop,
        reports=core.reports,
        session=session,
        attachments=core.attachments,
        drops=core.drops,
        connections=core.connections,
    )


def _session(core: Core, runner: Runner) -> Session:
    settings = core.settings
    context = tls.client_context(settings.certificates)

    async def connect(address: str) -> Stream:
        return await dial(*split_address(address), context)

    session = Session(
        settings,
        identity(settings, core.state),
        core.state,
        core.reports,
        dial=connect,
        random=Random(),
    )
    session.addresses = lambda: core.wanted.local.addresses
    why = Why(lambda: _here(core), core.traces)
    session.served = {
        "drops": core.drops.call,
        "samples": core.samples.call,
        "logs": runner.logs,
        "why.look": why.look,
        "why.watch": why.watch,
        "why.probe": why.probe,
    }
    return session


def _here(core: Core) -> Here:
    faults = (f"{key}: {failed.reason}" for key, failed in sorted(core.loop.failed.items()))
    return Here(
        name=core.settings.name,
        maps=core.held.maps,
        local=core.wanted.local,
        programs=core.held.programs,
        placed=tuple(core.state.placed()),
        faults=tuple(faults),
    )


def identity(settings: AgentSettings, state: State) -> AgentId:
    """The id in the certificate. Raises BadInput when what is remembered is another agent's: a host that was cloned
    would give out the first one's addresses a second time.
    """
    certificate = settings.certificates / "agent.pem"
    id = AgentId(tls.common_name(certificate))
    remembered = state.own.id if state.own is not None else id
    if remembered != id:
        raise BadInput(
            f"{settings.state} is the memory of agent {remembered}, {certificate} is of agent {id}",
            f"put the old certificate back; if this host is a clone, end its containers and remove {settings.state}",
        )
    return id


def _hosts(settings: AgentSettings) -> list[str]:
    return [split_address(settings.http)[0], "127.0.0.1", "localhost", settings.name]


async def _wake_at_changes(core: Core) -> None:
    seen = core.state.generation
    while True:
        seen = await core.state.changed(seen)
        core.loop.wake()


async def _never_ends(name: str, task: Awaitable[None]) -> None:
    await task
    raise RuntimeError(f"the task {name} ended")


async def _again_and_again(name: str, task: Task) -> None:
    """Whatever ends it, it starts again, with growing pauses while it keeps failing at once."""
    pause_s = FIRST_PAUSE_S
    while True:
        began_s = time.monotonic()
        try:
            await task()
            reason = "it ended"
        except HedgerowError as error:
            reason = str(error)
        except Exception as error:
            log.exception("task %s", name)
            reason = str(error)
        task_itself = asyncio.current_task()
        if task_itself is not None and task_itself.cancelling():
            raise asyncio.CancelledError  # a task group inside may have swallowed it (Python 3.11)
        if time.monotonic() - began_s > _STEADY_S:
            pause_s = FIRST_PAUSE_S
        log.warning("task %s starts again in %.1f s: %s", name, pause_s, reason)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
