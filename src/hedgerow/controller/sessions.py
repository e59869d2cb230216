"""Sessions: the agents that are connected, one task each.

Hello, registration, welcome; then two directions at once: state to the agent as it changes and as fast as it reads,
reports and calls back. The certificate's name is the agent's id, whatever it says of itself. A second connection of one
agent ends the first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from hedgerow.errors import BadInput, HedgerowError, Unreachable
from hedgerow.model.agent import Agent, AgentId
from hedgerow.model.snapshot import Revision
from hedgerow.store.base import Store
from hedgerow.wire.calls import CONTROLLERS_FIRST_CHANNEL, DEADLINE_S, Calls
from hedgerow.wire.messages import PROTOCOL_MAX, PROTOCOL_MIN, STATE_CHANNEL, Hello, Refusal, Report, Welcome
from hedgerow.wire.stream import Closed, Stream

from .allotment import Rejected
from .registration import Registration
from .reports import Reports
from .watch import Watch

log = logging.getLogger(__name__)

HELLO_S = 10.0
PAUSE_S = 0.05
"""After each delta: what changes meanwhile goes into the next one."""
SNAPSHOTS_AT_ONCE = 8
"""Each is a frame of up to 64 MiB while it is under way."""


class Session:
    """One agent's connection, after its registration."""

    def __init__(self, stream: Stream, store: Store, watch: Watch, hello: Hello, group: asyncio.TaskGroup) -> None:
        self.stream = stream
        self.reports = Reports(store, watch, hello.agent)
        self.calls = Calls(stream, group, {}, first_channel=CONTROLLERS_FIRST_CHANNEL)
        self.ended = asyncio.Event()
        self._watch = watch
        self._agent = hello.agent
        self._sent: Revision | None = hello.revision

    @property
    def applied(self) -> Revision | None:
        """What the agent has applied; the newest revision when nothing of what came since concerns it."""
        applied, sent = self.reports.applied, self._sent
        if applied is None or sent is None or applied != sent or self._watch.concerns(self._agent, sent.number):
            return applied
        return self._watch.revision

    async def feed(self, snapshots: asyncio.Semaphore) -> None:
        """State as it changes. The first message comes at once, even an empty delta: it makes what was saved live."""
        first = True
        while True:
            newest = self._watch.newest
            delta = self._watch.delta(self._agent, self._sent)
            if delta is None:
                async with snapshots:
                    revision, frame = self._watch.revision, self._watch.snapshot(self._agent)
                    await self.stream.send_packed(frame)
                self._sent = revision
            elif first or self._sent is None or self._watch.concerns(self._agent, self._sent.number):
                await self.stream.send(STATE_CHANNEL, delta)
                self._sent = delta.revision
            first = False
            await asyncio.sleep(PAUSE_S)
            await self._watch.news(newest)

    async def receive(self, progress: Callable[[], None]) -> None:
        """Reports and calls, until the connection is over. Raises Closed, BadInput."""
        while True:
            channel, message = await self.stream.receive()
            if channel != STATE_CHANNEL:
                self.calls.take(channel, message)
            elif isinstance(message, Report):
                self.reports.take(message)
                progress()
            else:
                raise BadInput(f"agent {self._agent} sent {type(message).__name__} instead of a report")


class Sessions:
    """`changed` is called when an agent comes or goes."""

    def __init__(self, store: Store, watch: Watch, registration: Registration) -> None:
        self.connected: dict[AgentId, Session] = {}
        self.changed: Callable[[], None] = lambda: None
        self._store = store
        self._watch = watch
        self._registration = registration
        self._snapshots = asyncio.Semaphore(SNAPSHOTS_AT_ONCE)
        self._progress = asyncio.Event()

    async def accept(self, stream: Stream) -> None:
        """A connection from its first frame to its end."""
        try:
            async with asyncio.timeout(HELLO_S):
                _, hello = await stream.receive()
        except TimeoutError as error:
            raise BadInput(f"{stream.peer} said nothing in {HELLO_S:g} s") from error
        try:
            if not isinstance(hello, Hello):
                raise BadInput(f"{stream.peer} began with {type(hello).__name__}", "an agent begins with hello")
            check_hello(hello, stream.identity)
            own = await self._registration.register(hello)
        except Rejected as error:
            log.warning("%s is refused: %s", stream.peer, error)
            await stream.send(STATE_CHANNEL, Refusal(error.code, error.message, error.cure))
            return
        await self._replace(hello.agent)
        await self._attend(stream, hello, own)

    async def call(
        self, agent: AgentId, method: str, arguments: Mapping[str, Any], deadline_s: float = DEADLINE_S
    ) -> AsyncGenerator[bytes, None]:
        """Ask an agent. Raises Unreachable when it is not connected or does not answer in time."""
        session = self.connected.get(agent)
        if session is None:
            known = self._watch.agents.get(agent)
            name = known.name if known else agent
            raise Unreachable(f"agent {name} is not connected", f"see to it: hedgerow agent show {name}")
        async with aclosing(session.calls.call(method, arguments, deadline_s=deadline_s)) as answer:
            async for piece in answer:
                yield piece

    def applied(self, agent: AgentId) -> Revision | None:
        session = self.connected.get(agent)
        return session.applied if session else None

    async def progress(self) -> None:
        """Waits until an agent has reported, come or gone."""
        await self._progress.wait()

    def _step(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    async def _replace(self, agent: AgentId) -> None:
        while (older := self.connected.get(agent)) is not None:
            log.info("%s connects anew, its older connection ends", agent)
            await older.stream.close()
            await older.ended.wait()

    async def _attend(self, stream: Stream, hello: Hello, own: Agent) -> None:
        session = None
        try:
            async with asyncio.TaskGroup() as group:
                session = self.connected[own.id] = Session(stream, self._store, self._watch, hello, group)
                log.info("agent %s connected from %s", own.name, stream.peer)
                self._came_or_went()
                await stream.send(STATE_CHANNEL, Welcome(PROTOCOL_MAX, own))
                group.create_task(session.feed(self._snapshots), name=f"state for {own.name}")
                group.create_task(session.reports.run(), name=f"reports of {own.name}")
                await session.receive(self._step)
        except* Closed as closed:
            log.info("agent %s: %s", own.name, closed.exceptions[0])
        except* HedgerowError as errors:
            log.warning("agent %s: connection ended: %s", own.name, errors.exceptions[0])
        finally:
            if session is not None:
                session.calls.close()
                del self.connected[own.id]
                session.ended.set()
                self._came_or_went()

    def _came_or_went(self) -> None:
        self._step()
        self.changed()


def check_hello(hello: Hello, identity: str) -> None:
    """Raises Rejected: `protocol` and `certificate`."""
    if not hello.protocol_min <= PROTOCOL_MAX or not hello.protocol_max >= PROTOCOL_MIN:
        raise Rejected(
            "protocol",
            f"the agent speaks protocol {hello.protocol_min} to {hello.protocol_max},"
            f" this controller {PROTOCOL_MIN} to {PROTOCOL_MAX}",
            "install releases that are at most one apart",
        )
    if not identity or hello.agent != identity:
        raise Rejected(
            "certificate",
            f"the certificate is of {identity or 'nobody'}, the agent says it is {hello.agent}",
            "give the agent the certificate that was issued for it",
        )
