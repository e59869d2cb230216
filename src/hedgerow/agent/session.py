"""The session: one connection to any of the controllers, kept up for ever.

Say hello with what is remembered, be registered, take a snapshot or deltas, report. Each step is repeatable, so a
broken connection is only a reason to dial the next controller, after a pause that grows and is drawn at random, lest
all agents come back at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from random import Random
from types import MappingProxyType

from hedgerow.config.agent import AgentSettings
from hedgerow.errors import HedgerowError, Refused
from hedgerow.kernel.maps import LAYOUT
from hedgerow.model.agent import AgentId
from hedgerow.model.endpoint import Address
from hedgerow.wire.calls import AGENTS_FIRST_CHANNEL, Calls, Served
from hedgerow.wire.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    STATE_CHANNEL,
    Delta,
    Hello,
    Message,
    Refusal,
    Welcome,
)
from hedgerow.wire.messages import State as Whole
from hedgerow.wire.stream import Closed, Stream

from .reports import Reports, Said
from .state import State

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
HELLO_S = 15.0
COALESCE_S = 0.02
"""Changes within this time go into one report: a container that starts makes three."""

Dial = Callable[[str], Awaitable[Stream]]


class Session:
    """`id` is the one in our certificate. `served` are the calls that a controller may make."""

    served: Mapping[str, Served] = MappingProxyType({})

    def __init__(
        self,
        settings: AgentSettings,
        id: AgentId,
        state: State,
        reports: Reports,
        *,
        dial: Dial,
        random: Random,
    ) -> None:
        self._settings = settings
        self._id = id
        self._state = state
        self._reports = reports
        self._dial = dial
        self._random = random
        self.addresses: Callable[[], tuple[Address, ...]] = tuple
        """The host's, as they are now."""
        self.connected_to: str | None = None
        self.trouble = "not dialled yet"

    async def run(self) -> None:
        pause_s, turn = FIRST_PAUSE_S, 0
        while True:
            address = self._settings.controllers[turn % len(self._settings.controllers)]
            try:
                await self._converse(address)
            except* (HedgerowError, LookupError) as group:
                error = _first(group)
                if str(error) != self.trouble:
                    log.warning("controller %s: %s", address, error)
                self.trouble = str(error)
            _heed_cancel()
            if self.connected_to is not None:
                pause_s = FIRST_PAUSE_S
            self.connected_to = None
            turn += 1
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _converse(self, address: str) -> None:
        stream = await self._dial(address)
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(stream.keep_alive(), name=f"keep {address} alive")
                try:
                    await self._greet(stream)
                    self.connected_to, self.trouble = address, ""
                    log.info("registered with controller %s", address)
                    await self._listen(stream, group)
                finally:
                    keeping.cancel()
        finally:
            await stream.close()

    async def _greet(self, stream: Stream) -> None:
        own, snapshot = self._state.own, self._state.snapshot
        self._said = self.addresses()
        hello = Hello(
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            agent=self._id,
            name=self._settings.name,
            underlay=self._settings.underlay,
            boot_id=self._state.boot_id,
            incarnation=own.incarnation if own is not None else None,
            revision=snapshot.revision if snapshot is not None else None,
            map_layout=LAYOUT,
            addresses4=tuple(each for each in self._said if isinstance(each, IPv4Address)),
            addresses6=tuple(each for each in self._said if isinstance(each, IPv6Address)),
        )
        await stream.send(STATE_CHANNEL, hello)
        try:
            async with asyncio.timeout(HELLO_S):
                _, answer = await stream.receive()
        except TimeoutError as error:
            raise Closed(f"no answer to our hello in {HELLO_S:g} s") from error
        match answer:
            case Welcome(_, own):
                await self._state.register(own)
            case Refusal(code, message, cure):
                raise Refused(f"refused ({code}): {message}", cure)
            case _:
                raise Closed(f"{type(answer).__name__} instead of a welcome")

    async def _listen(self, stream: Stream, group: asyncio.TaskGroup) -> None:
        calls = Calls(stream, group, self.served, first_channel=AGENTS_FIRST_CHANNEL)
        reporting = group.create_task(self._report(stream), name="report")
        try:
            while True:
                channel, message = await stream.receive()
                if channel == STATE_CHANNEL:
                    await self._learn(message)
                else:
                    calls.take(channel, message)
        finally:
            calls.close()
            reporting.cancel()

    async def _learn(self, message: Message) -> None:
        match message:
            case Whole(snapshot):
                await self._state.replace_snapshot(snapshot)
            case Delta():
                await self._state.apply_delta(message)
            case Refusal(code, reason, cure):
                raise Refused(f"refused ({code}): {reason}", cure)
            case _:
                raise Closed(f"{type(message).__name__} on the state's channel")

    async def _report(self, stream: Stream) -> None:
        said = Said()
        while True:
            seen = self._state.reportable.generation
            if set(self.addresses()) != set(self._said):
                raise Closed("this host has other addresses now, and says hello again")
            report = self._reports.next(said)
            if report is not None:
                await stream.send(STATE_CHANNEL, report)
            await self._state.reportable.changed(seen)
            await asyncio.sleep(COALESCE_S)


def _heed_cancel() -> None:
    """A task group of Python 3.11 that fails in the moment in which it is cancelled raises its fault alone."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
