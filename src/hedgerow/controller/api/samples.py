"""Dropped packets one by one: every agent's samples, put together, with names in place of addresses.

Without `follow` what the agents still have, in the order of time; with it that, and then what comes, also from agents
that connect later, for as long as somebody reads. One JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from hedgerow.errors import HedgerowError
from hedgerow.model.agent import Agent, AgentId

from . import names, shapes
from .names import Names
from .view import View

log = logging.getLogger(__name__)

LONGEST_S = 600.0
"""How far back an agent's samples go."""
ANSWER_S = 3.0
"""For an agent to say what it has."""
MAX_FOLLOW_S = 24 * 3600.0
MAX_WAITING = 1000
"""Lines that wait for a slow reader; the agents wait behind them."""
LOOK_AGAIN_S = 1.0
"""How soon an agent that connects is heard, and a container that starts has its name."""
MAX_LINE_BYTES = 1 << 16
MAX_SAMPLES = 10_000
"""Of one agent that are not followed: more than one keeps."""
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`since_s` is an age. None filters nothing."""

    since_s: float
    follow: bool = False
    source: str | None = None
    destination: str | None = None
    reason: str | None = None
    network: str | None = None
    agent: str | None = None


class Lines(StreamingResponse):
    """Closes what it reads from in the task that reads: a reader that leaves ends its tasks and calls at once."""

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().stream_response(send)


class Samples:
    def __init__(self, view: View) -> None:
        self._view = view

    async def lines(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._follow(wanted) if wanted.follow else self._kept(wanted)) as samples:
            async for sample in samples:
                yield sample.model_dump_json().encode() + b"\n"

    async def _kept(self, wanted: Wanted) -> AsyncGenerator[shapes.Sample, None]:
        known = await self._names()
        lists = await asyncio.gather(*(self._all_of(agent, wanted, known) for agent in self._agents(wanted)))
        for sample in sorted((one for each in lists for one in each), key=lambda one: one.time_s):
            yield sample

    async def _all_of(self, agent: Agent, wanted: Wanted, known: Names) -> list[shapes.Sample]:
        found: list[shapes.Sample] = []
        try:
            async with aclosing(self._said(agent, wanted, ANSWER_S)) as said:
                async for row in said:
                    found += _chosen(row, agent, wanted, known)
                    if len(found) > MAX_SAMPLES:
                        break
        except HedgerowError as error:
            log.debug("no samples of %s: %s", agent.name, error)
        return found

    async def _follow(self, wanted: Wanted) -> AsyncGenerator[shapes.Sample, None]:
        queue: asyncio.Queue[shapes.Sample] = asyncio.Queue(MAX_WAITING)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(wanted, queue), name="samples of all agents")
            with suppress(GeneratorExit):  # who reads has left; the group would make a fault of it
                while True:
                    yield await queue.get()
            listening.cancel()

    async def _listen(self, wanted: Wanted, queue: asyncio.Queue[shapes.Sample]) -> None:
        """To every agent that is connected, and to those that will be."""
        listening: dict[AgentId, asyncio.Task[None]] = {}
        fresh = _Fresh(self._names)
        async with asyncio.TaskGroup() as group:
            while True:
                for agent in self._agents(wanted):
                    task = listening.get(agent.id)
                    if agent.id in self._view.sessions.connected and (task is None or task.done()):
                        age_s = wanted.since_s if task is None else LOOK_AGAIN_S
                        listening[agent.id] = group.create_task(
                            self._hear(agent, wanted, age_s, fresh, queue), name=f"samples of {agent.name}"
                        )
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _hear(
        self, agent: Agent, wanted: Wanted, age_s: float, fresh: _Fresh, queue: asyncio.Queue[shapes.Sample]
    ) -> None:
        try:
            async with aclosing(self._said(agent, wanted, MAX_FOLLOW_S, age_s)) as said:
                async for row in said:
                    for sample in _chosen(row, agent, wanted, await fresh.names()):
                        await queue.put(sample)
        except HedgerowError as error:
            log.debug("no more samples of %s: %s", agent.name, error)

    async def _said(
        self, agent: Agent, wanted: Wanted, deadline_s: float, age_s: float | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Its lines. What is none ends it: one agent must not spoil what the others say."""
        arguments = {"since_s": wanted.since_s if age_s is None else age_s, "follow": wanted.follow}
        rest = b""
        async with aclosing(self._view.sessions.call(agent.id, "samples", arguments, deadline_s)) as pieces:
            async for piece in pieces:
                *lines, rest = (rest + piece).split(b"\n")
                if len(rest) > MAX_LINE_BYTES:
                    return
                for line in lines:
                    row = _row(line)
                    if row is None:
                        return
                    yield row

    def _agents(self, wanted: Wanted) -> Iterator[Agent]:
        return (agent for agent in self._view.ordered() if wanted.agent in (None, agent.name, agent.id))

    async def _names(self) -> Names:
        return await names.read(self._view.store, self._view.watch)


class _Fresh:
    """Names that are at most LOOK_AGAIN_S old: reading them for every packet would be too much."""

    def __init__(self, read: Callable[[], Awaitable[Names]]) -> None:
        self._read = read
        self._known: Names | None = None
        self._read_s = 0.0

    async def names(self) -> Names:
        if self._known is None or time.monotonic() - self._read_s > LOOK_AGAIN_S:
            self._read_s = time.monotonic()
            self._known = await self._read()
        return self._known


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _chosen(row: dict[str, Any], agent: Agent, wanted: Wanted, known: Names) -> list[shapes.Sample]:
    """The sample, with names, when it is wanted. Nothing for a row that is no sample."""
    try:
        source, destination = _end(row, "source", known), _end(row, "destination", known)
        sample = shapes.Sample(
            time_s=row["time_s"],
            agent=agent.name,
            network=row["network"],
            reason=row["reason"],
            protocol=PROTOCOLS.get(row["protocol"], str(row["protocol"])),
            source=source,
            destination=destination,
            packets=row["packets"],
        )
    except (KeyError, TypeError, ValueError):
        return []
    asked = ((wanted.reason, sample.reason), (wanted.network, sample.network))
    is_wanted = all(one in (None, other) for one, other in asked)
    is_wanted = is_wanted and _means(wanted.source, source, known) and _means(wanted.destination, destination, known)
    return [sample] if is_wanted else []


def _end(row: dict[str, Any], which: str, known: Names) -> shapes.SampleEnd:
    address = ip_address(row[which])
    party, network = known.at(address), known.network_of(address)
    return shapes.SampleEnd(
        address=address,
        port=row[f"{which}_port"],
        name=party.name if party else "",
        network=network.name if network else "",
        agent=party.agent.name if party else "",
    )


def _means(which: str | None, end: shapes.SampleEnd, known: Names) -> bool:
    return which is None or names.is_meant(which, str(end.address), known.at(end.address), end.network)
