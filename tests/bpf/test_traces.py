"""A traced flow tells what becomes of each of its packets, on both hosts; other flows tell nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from bpf.packets import ICMP, TCP, UDP
from bpf.rules import configured
from bpf.traffic import dial, echo, inject, server, wait_until
from bpf.world import DNS_ADDRESS, Host, World

from bpf import packets as p
from hedgerow.kernel import bpf
from hedgerow.kernel.events import Program, Stage, TraceEvent
from hedgerow.kernel.flows import FlowKey
from hedgerow.kernel.maps import ConfigFlag, FastWay, Reason, probe_fast_way

Told = Callable[[], list[tuple[Program, Stage, int]]]


@contextlib.contextmanager
def tracing(host: Host, *flows: FlowKey, number: int = 7) -> Iterator[Told]:
    """A function that returns what the host's programs have told since: program, stage, reason."""
    events: list[TraceEvent] = []
    ring = bpf.Ring(host.maps.traces, lambda data: events.append(TraceEvent.unpack(data)))
    host.maps.traced.put_many(dict.fromkeys(flows, number))

    def told() -> list[tuple[Program, Stage, int]]:
        ring.consume()
        assert all(event.id == number for event in events)
        return [(event.program, event.stage, event.reason) for event in events]

    try:
        with configured(host, flags=host.maps.host.get(0).flags | ConfigFlag.TRACING):
            yield told
    finally:
        host.maps.traced.delete_many(flows)
        ring.close()


def test_a_packet_tells_of_its_way_from_host_to_host(world: World) -> None:
    flow = FlowKey(world.a.address, world.c.address, 0, 80, UDP)
    is_wire = world.fast and FastWay.SEND in probe_fast_way(world.one.object)
    sent = Stage.WIRE if is_wire else Stage.DEVICE
    came = Program.UNDERLAY if world.fast else Program.TUNNEL
    with tracing(world.one, flow) as here, tracing(world.two, flow) as there:
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, world.c.address, 80))
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, world.c.address, 81))
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, world.d.address, 80))
        wait_until(lambda: len(there()) >= 2)
        assert here() == [(Program.CONTAINER, Stage.SEEN, 0), (Program.CONTAINER, sent, 0)]
        assert there() == [(came, Stage.SEEN, 0), (came, Stage.DELIVERED, 0)]


def test_a_refusal_tells_its_reason_and_that_it_was_answered(world: World) -> None:
    with tracing(world.one, FlowKey(world.a.address, world.p.address, 0, 80, TCP)) as told:
        with contextlib.suppress(ConnectionRefusedError):
            dial(world.a.container, world.p.address, 80)
        assert told() == [
            (Program.CONTAINER, Stage.SEEN, 0),
            (Program.CONTAINER, Stage.DROPPED, Reason.ISOLATED),
            (Program.CONTAINER, Stage.ANSWERED, Reason.ISOLATED),
        ]


def test_a_ping_is_traced_there_and_back_by_its_identifier(world: World) -> None:
    flow = FlowKey(world.a.address, world.b.address, 7, 7, ICMP)
    with tracing(world.one, flow, flow.reversed) as told:
        inject(world.a.container, p.ping(world.a.mac, world.a.address, world.b.address))
        wait_until(lambda: len(told()) == 4)
        assert told() == [(Program.CONTAINER, stage, 0) for stage in (Stage.SEEN, Stage.DELIVERED)] * 2


def test_what_goes_to_the_host_tells_so(world: World) -> None:
    with tracing(world.one, FlowKey(world.a.address, DNS_ADDRESS, 0, 53, UDP)) as told:
        inject(world.a.container, p.datagram(world.a.mac, world.a.address, DNS_ADDRESS, 53))
        assert told() == [(Program.CONTAINER, Stage.SEEN, 0), (Program.CONTAINER, Stage.HOST, 0)]


def test_an_arrival_for_nobody_tells_on_both_programs(world: World) -> None:
    flow = FlowKey(world.a.address, world.c.network.prefixes(2)[0][99], 0, 80, UDP)
    with tracing(world.two, flow) as told:
        inject(world.a.container, p.datagram(world.a.mac, flow.source, flow.destination, 80))
        dropped = (Program.TUNNEL, Stage.DROPPED, Reason.NO_ENDPOINT)
        wait_until(lambda: dropped in told())
        by_underlay = [stage for program, stage, _ in told() if program == Program.UNDERLAY]
        assert by_underlay == ([Stage.SEEN, Stage.DEVICE] if world.fast else [])


def test_nothing_is_told_while_nobody_traces(world: World) -> None:
    flow = FlowKey(world.a.address, world.c.address, 0, 80, TCP)
    with (
        tracing(world.one, flow) as told,
        configured(world.one, flags=world.one.maps.host.get(0).flags & ~ConfigFlag.TRACING),
    ):
        with server(world.c.container, 80):
            assert echo(world.a.container, world.c.address, 80, b"x") == b"x"
        assert told() == []
