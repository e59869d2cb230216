"""Traces: what the programs of this host did with the packets of one flow, while somebody wants to know.

The flow and its way back are written into the map `traced`, the programs are told to look there, and what they say
comes by a ring. Nothing is paid for it while nobody asks; an agent that died while tracing leaves the flag to the next
one, which takes it back.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from hedgerow.errors import Exhausted
from hedgerow.kernel.bpf import Ring
from hedgerow.kernel.events import Program, Stage, TraceEvent
from hedgerow.kernel.flows import FlowKey
from hedgerow.kernel.maps import ConfigFlag, Maps, Reason
from hedgerow.reconcile.signal import Signal
from hedgerow.why.facts import Step

log = logging.getLogger(__name__)

MAX_FLOWS = 16
"""Half the map: each has a row for either direction."""
PROGRAMS = {Program.CONTAINER: "from_container", Program.UNDERLAY: "from_underlay", Program.TUNNEL: "from_tunnel"}

Run = Callable[[Callable[[], None]], Awaitable[None]]
"""Work done in the thread that writes the maps."""


@dataclass(slots=True)
class Trace:
    """What came so far; `news` changes with each step."""

    steps: list[Step] = field(default_factory=list)
    news: Signal = field(default_factory=Signal)


class Traces:
    def __init__(self, maps: Maps, run: Run) -> None:
        self._maps = maps
        self._run = run
        self._numbers = itertools.count(2, 2)
        self._open: dict[int, Trace] = {}
        self._ring: Ring | None = None

    async def reset(self) -> None:
        """Nothing is traced: of what an earlier agent wanted, nobody hears any more."""

        def reset() -> None:
            self._maps.traced.delete_many([flow for flow, _ in self._maps.traced.items()])
            self._set_flag(False)

        await self._run(reset)

    @asynccontextmanager
    async def follow(self, flow: FlowKey) -> AsyncIterator[Trace]:
        """Within the block every packet of the flow, and of its answers, is followed. Raises Exhausted, OSError."""
        if len(self._open) >= MAX_FLOWS:
            raise Exhausted(f"{MAX_FLOWS} flows are traced already", "ask again in a moment")
        number, trace = next(self._numbers) & 0xFFFFFFFE, Trace()
        self._open[number] = trace
        try:
            self._listen()
            await self._run(lambda: self._begin(flow, number))
            yield trace
        finally:
            del self._open[number]
            last = not self._open
            await self._run(lambda: self._end(flow, last))
            if not self._open:
                self._be_silent()

    def _begin(self, flow: FlowKey, number: int) -> None:
        self._maps.traced.put(flow, number)
        self._maps.traced.put(flow.reversed, number + 1)
        self._set_flag(True)

    def _end(self, flow: FlowKey, last: bool) -> None:
        self._maps.traced.delete_many([flow, flow.reversed])
        if last and not self._open:
            self._set_flag(False)

    def _set_flag(self, on: bool) -> None:
        """A host without settings has no programs that would read it."""
        row = self._maps.host.get(0)
        if row is None or not row.tunnel_ifindex or (ConfigFlag.TRACING in row.flags) == on:
            return
        flags = row.flags | ConfigFlag.TRACING if on else row.flags & ~ConfigFlag.TRACING
        self._maps.host.put(0, replace(row, flags=flags))

    def _listen(self) -> None:
        if self._ring is None:
            self._ring = Ring(self._maps.traces, self._take)
            asyncio.get_running_loop().add_reader(self._ring.fd, self._ring.consume)

    def _be_silent(self) -> None:
        if self._ring is not None:
            asyncio.get_running_loop().remove_reader(self._ring.fd)
            self._ring.close()
            self._ring = None

    def _take(self, data: bytes) -> None:
        try:
            event = TraceEvent.unpack(data)
            step = _step(event)
        except ValueError as error:  # of a newer data path
            log.debug("a step of a trace cannot be read: %s", error)
            return
        trace = self._open.get(event.id & 0xFFFFFFFE)
        if trace is not None:
            trace.steps.append(step)
            trace.news.change()


def _step(event: TraceEvent) -> Step:
    dropped = event.stage in (Stage.DROPPED, Stage.ANSWERED)
    return Step(
        program=PROGRAMS[event.program],
        stage=event.stage.name.lower(),
        reason=Reason(event.reason).name.lower() if dropped else "",
        back=bool(event.id & 1),
    )
