"""What a controller asks for `hedgerow why`: facts of this host, a probe from here, what is seen of one from afar."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from hedgerow.errors import BadInput, Exhausted, HedgerowError, NotFound
from hedgerow.why.facts import Probe, Question, Step
from hedgerow.wire.codec import from_json, to_json

from . import facts
from .facts import Here
from .probe import Outcome, Packet, flow_of, reaches
from .trace import Traces

MAX_AT_ONCE = 8
SETTLE_S = 0.05
"""After the answer: for the last steps of it to come."""
WATCHED_S = 5.0
"""Longest that a probe of another host is waited for."""
_PROTOCOLS = ("tcp", "udp", "icmp")
_PROBED_MTU_OVERHEAD = {4: 50, 6: 70}
_SMALL_BYTES = 64


class Why:
    """`here` is what is known of this host, as of now; it is asked for in the event loop's thread."""

    def __init__(self, here: Callable[[], Here], traces: Traces) -> None:
        self._here = here
        self._traces = traces
        self._asking = 0

    async def look(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The call `why.look`: a Question; one HostFacts."""
        question = _question(arguments)
        yield to_json(await self._look(question))

    async def _look(self, question: Question) -> object:
        if self._asking >= MAX_AT_ONCE:
            raise Exhausted(f"{MAX_AT_ONCE} questions are being answered", "ask again in a moment")
        self._asking += 1
        try:
            return await asyncio.to_thread(facts.look, self._here(), question)
        except OSError as error:
            raise HedgerowError(f"the kernel does not say what it has: {error}", "ask again") from error
        finally:
            self._asking -= 1

    async def watch(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The call `why.watch`: a Question; an empty line when the flow is followed, then a Step a line."""
        async with self._traces.follow(flow_of(_question(arguments))) as trace:
            yield b"\n"
            told = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCHED_S):
                    while True:
                        seen = trace.news.generation
                        for step in trace.steps[told:]:
                            yield to_json(step) + b"\n"
                            told += 1
                        await trace.news.changed(seen)

    async def probe(self, arguments: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The call `why.probe`: a Question whose source is here; one Probe."""
        question = _question(arguments)
        if not question.source_port:
            raise BadInput("a probe without a source port", "name one in source_port")
        place = await asyncio.to_thread(facts.place_of, self._here(), ip_address(question.source))
        if not place:
            raise NotFound(f"no namespace of {question.source} can be found here", "is its container running?")
        found, small, full = await asyncio.gather(self._send(question, place), *self._pings(question))
        outcome, steps = found
        yield to_json(
            Probe(
                outcome=outcome.word,
                error=outcome.error,
                took_ms=outcome.took_ms,
                steps=tuple(steps),
                reaches_host=small,
                carries_full=full,
            )
        )

    async def _send(self, question: Question, place: str) -> tuple[Outcome, list[Step]]:
        try:
            packet = Packet(question, place)
        except OSError as error:
            return Outcome("unsent", error.strerror or str(error)), []
        try:
            async with self._traces.follow(flow_of(question)) as trace:
                outcome = await packet.send()
                await asyncio.sleep(SETTLE_S)
                return outcome, trace.steps
        finally:
            packet.close()

    def _pings(self, question: Question) -> list[Any]:
        """To the other host: a small one, and one as large as the largest tunnel packet."""
        row = self._here().maps.host.get(0)
        if not question.peer or row is None or not row.inner_mtu_bytes:
            return [_untried(), _untried()]
        source = str(row.underlay)
        full = row.inner_mtu_bytes + _PROBED_MTU_OVERHEAD[ip_address(question.peer).version]
        return [reaches(source, question.peer, size) for size in (_SMALL_BYTES, full)]


async def _untried() -> None:
    return None


def _question(arguments: dict[str, Any]) -> Question:
    """Raises BadInput."""
    question = from_json(json.dumps(arguments).encode(), Question)
    try:
        versions = {ip_address(one).version for one in (question.source, question.destination)}
        ip_address(question.peer or question.source)
    except ValueError as error:
        raise BadInput(str(error), "ask about two IP addresses") from error
    ports_fit = all(0 <= port <= 0xFFFF for port in (question.port, question.source_port))
    if len(versions) != 1 or question.protocol not in _PROTOCOLS or not ports_fit:
        raise BadInput(f"{arguments!r} is no question", "ask about two addresses of one family, tcp, udp or icmp")
    return question
