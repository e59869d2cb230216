"""Tracing is paid for while somebody asks, and whatever an agent left of it is taken back by the next."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from kernel.hosts import Host

from hedgerow.agent.trace import MAX_FLOWS, Traces
from hedgerow.errors import Exhausted
from hedgerow.kernel.flows import FlowKey
from hedgerow.kernel.maps import ConfigFlag

FLOW = FlowKey(IPv4Address("9.0.1.2"), IPv4Address("9.0.1.3"), 40000, 80, 6)


async def at_once(work: Callable[[], None]) -> None:
    work()


def is_tracing(host: Host) -> bool:
    row = host.maps.host.get(0)
    assert row is not None
    return ConfigFlag.TRACING in row.flags


def traced(host: Host) -> set[FlowKey]:
    return {flow for flow, _ in host.maps.traced.items()}


def test_the_flag_and_the_rows_are_there_while_somebody_asks(host: Host) -> None:
    async def case() -> None:
        traces = Traces(host.maps, at_once)
        async with traces.follow(FLOW):
            other = FlowKey(FLOW.source, FLOW.destination, 40001, 80, 6)
            async with traces.follow(other):
                assert traced(host) == {FLOW, FLOW.reversed, other, other.reversed}
            assert (traced(host), is_tracing(host)) == ({FLOW, FLOW.reversed}, True)
        assert (traced(host), is_tracing(host)) == (set(), False)

    asyncio.run(case())


def test_the_steps_of_a_packet_are_told(host: Host) -> None:
    """Of one container to another of this host, and of the answer."""
    one, other = host.container(), host.container()
    source, destination = IPv4Address(one.add()), IPv4Address(other.add())

    async def case() -> list[tuple[str, bool]]:
        flow = FlowKey(source, destination, 0, 0, 1)
        async with Traces(host.maps, at_once).follow(flow) as trace:
            assert await asyncio.to_thread(one.reaches, str(destination))
            while not any(step.back and step.stage == "delivered" for step in trace.steps):
                await trace.news.changed(trace.news.generation)
            return [(step.stage, step.back) for step in trace.steps]

    assert asyncio.run(asyncio.wait_for(case(), 20)) == [
        ("seen", False),
        ("delivered", False),
        ("seen", True),
        ("delivered", True),
    ]


def test_there_is_a_limit(host: Host) -> None:
    async def case() -> None:
        traces = Traces(host.maps, at_once)
        traces._open = dict.fromkeys(range(MAX_FLOWS))  # type: ignore[arg-type]
        with pytest.raises(Exhausted):
            async with traces.follow(FLOW):
                pass

    asyncio.run(case())


def test_what_a_dead_agent_traced_is_taken_back(own_host: Host) -> None:
    row = own_host.maps.host.get(0)
    assert row is not None
    own_host.maps.traced.put(FLOW, 7)
    own_host.maps.host.put(0, replace(row, flags=row.flags | ConfigFlag.TRACING))
    own_host.stop_agent(signal.SIGKILL)
    assert is_tracing(own_host)
    own_host.start_agent()
    assert (traced(own_host), is_tracing(own_host)) == (set(), False)
