"""What is refused is refused at once, with the protocol's own answer; what is dropped is counted and can be seen."""

from __future__ import annotations

import errno
import select
import struct
import time
from ipaddress import IPv4Address, ip_address

import pytest
from bpf.packets import TCP, UDP
from bpf.traffic import ETH_P_ALL, SLOWNESS, counted, dial, echo, inject, listening, raw_socket, soon, wait_until
from bpf.world import DEV, LONE, OUTSIDE, PROD, World

from bpf import packets
from hedgerow.kernel import bpf
from hedgerow.kernel.events import DropEvent
from hedgerow.kernel.maps import Port, PortFlag, Reason

families = pytest.mark.parametrize("version", [4, 6])


def is_refusal(error: OSError) -> bool:
    return error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH)


@families
@pytest.mark.parametrize("there", ["p", "q", "l", "m"])
def test_another_network_is_refused_at_once(world: World, version: int, there: str) -> None:
    def refused() -> None:
        with pytest.raises(ConnectionRefusedError):
            dial(world.a.container, getattr(world, there).of(version), 80)

    with counted(world.one, DEV.vni, Reason.ISOLATED):
        soon(refused)


@families
@pytest.mark.parametrize("there", ["p", "q"])
def test_a_datagram_to_another_network_is_answered_with_admin_prohibited(
    world: World, version: int, there: str
) -> None:
    with dial(world.a.container, getattr(world, there).of(version), 53, UDP) as client:
        client.send(b"x")
        expected = errno.EHOSTUNREACH if version == 4 else errno.EACCES
        with pytest.raises(OSError, check=lambda error: error.errno == expected):
            client.recv(1)


@pytest.mark.parametrize("target", ["10.1.1.99", "10.1.2.99", "10.1.200.1", "fd00:1:0:1::99", "fd00:1:0:2::99"])
def test_an_address_that_nobody_has_is_unreachable_at_once(world: World, target: str) -> None:
    def refused() -> None:
        with pytest.raises(OSError, check=is_refusal):
            dial(world.a.container, ip_address(target), 80)

    soon(refused)


def test_an_internal_network_has_no_way_out_and_its_own_members_are_reached(world: World) -> None:
    def refused() -> None:
        with pytest.raises(ConnectionRefusedError):
            dial(world.l.container, OUTSIDE, 80)

    with counted(world.one, LONE.vni, Reason.INTERNAL):
        soon(refused)
    heard = listening(world.m.container)
    inject(world.l.container, packets.ping(world.l.mac, world.l.address, world.m.address))
    wait_until(lambda: len(heard()) == 1)


def test_nothing_from_outside_enters_an_internal_network(world: World) -> None:
    strange = packets.ping(world.one.vtep_mac, OUTSIDE, world.l.address)
    heard = listening(world.l.container)
    with counted(world.one, 0, Reason.INTERNAL):
        inject(world.one.namespace, strange, interface="hr-host")
    assert not heard()


@pytest.mark.parametrize("target", ["169.254.169.254", "169.254.64.2", "44.128.0.2", "169.254.1.2"])
@pytest.mark.parametrize("kind", [TCP, UDP])
def test_metadata_link_local_and_other_hosts_virtual_addresses_are_refused_at_once(
    world: World, target: str, kind: int
) -> None:
    def refused() -> None:
        with pytest.raises(OSError, check=is_refusal):
            echo(world.a.container, IPv4Address(target), 80, b"x", kind)

    soon(refused)


@families
@pytest.mark.parametrize("length", [0, 4, 20, 40])
def test_a_refused_connection_is_reset_whatever_its_tcp_options(world: World, version: int, length: int) -> None:
    source, target = world.a.of(version), world.p.of(version)
    raw = raw_socket(world.a.container, "eth0", ETH_P_ALL)
    listening(world.a.container)
    raw.send(packets.syn(world.a.mac, source, target, 80, bytes(range(1, length + 1))))
    tcp = b""
    while tcp[2:4] != struct.pack("!H", 4321):
        assert select.select([raw], [], [], 2 * SLOWNESS)[0]
        frame = raw.recv(2048)
        ip = frame[14:]
        tcp = ip[20:] if version == 4 else ip[40:]
    assert len(tcp) == 20
    assert struct.unpack("!HHIIBB", tcp[:14]) == (80, 4321, 0, 1000, 0x50, 0x14)
    assert packets.checksum(packets.pseudo_header(target, source, TCP, len(tcp)) + tcp) == 0
    if version == 4:
        assert packets.checksum(ip[:20]) == 0
        assert struct.unpack_from("!H", ip, 2) == (40,)


@pytest.mark.parametrize("length", [4, 40])
def test_packets_with_ipv4_options_pass_and_are_refused_without_an_answer(world: World, length: int) -> None:
    options = b"\1" * length

    def made(target: IPv4Address) -> bytes:
        body = packets.udp(world.a.address, target, 80)
        return packets.frame(world.a.mac, packets.ipv4(world.a.address, target, UDP, body, options=options))

    for there in (world.b, world.c):
        heard = listening(there.container)
        inject(world.a.container, made(there.address))
        wait_until(lambda heard=heard: len(heard()) == 1)
    heard = listening(world.a.container)
    with counted(world.one, DEV.vni, Reason.ISOLATED):
        inject(world.a.container, made(world.p.address))
    assert not heard()


def test_no_error_answers_an_error(world: World) -> None:
    error = struct.pack("!BBHI", 3, 3, 0, 0) + packets.MARK * 2
    frame = packets.frame(world.a.mac, packets.ipv4(world.a.address, world.p.address, packets.ICMP, error))
    heard = listening(world.a.container)
    with counted(world.one, DEV.vni, Reason.ISOLATED):
        inject(world.a.container, frame)
    assert not heard()


def test_a_flood_of_refused_packets_is_not_answered_one_by_one(world: World) -> None:
    asker = world.endpoint(world.one, PROD, world.spare())
    frame = packets.ping(asker.mac, asker.address, world.a.address)
    before = [world.one.packets(PROD.vni, reason) for reason in (Reason.ISOLATED, Reason.UNANSWERED)]
    started = time.monotonic()
    inject(asker.container, *[frame] * 500)
    took = time.monotonic() - started
    refused, unanswered = (
        world.one.packets(PROD.vni, reason) - old
        for reason, old in zip((Reason.ISOLATED, Reason.UNANSWERED), before, strict=True)
    )
    assert refused == 500
    assert 100 <= refused - unanswered <= 100 + 100 * took + 5
    with pytest.raises(ConnectionRefusedError):  # others are not made to wait for it
        dial(world.a.container, world.p.address, 80)


def test_drops_can_be_watched(world: World) -> None:
    """A sample of them: where many are dropped, this one may have to be sent again."""
    events: list[DropEvent] = []
    ring = bpf.Ring(world.one.maps.drops, lambda data: events.append(DropEvent.unpack(data)))

    def is_seen() -> bool:
        with pytest.raises(ConnectionRefusedError):
            dial(world.a.container, world.p.address, 8080)
        select.select([ring.fd], [], [], 0.05)
        ring.consume()
        return any(event.destination_port == 8080 for event in events)

    try:
        wait_until(is_seen)
    finally:
        ring.close()
    event = next(event for event in events if event.destination_port == 8080)
    assert (event.source, event.destination) == (world.a.address, world.p.address)
    assert (event.vni, event.protocol, event.reason) == (DEV.vni, TCP, Reason.ISOLATED)
    assert event.ifindex == world.a.ifindex
    assert abs(event.time_ns - time.monotonic_ns()) < 10e9 * SLOWNESS


def test_a_container_without_an_ipv6_address_sends_none(world: World) -> None:
    """Not even from `::`, which stands for none in its record."""
    endpoint = world.endpoint(world.one, DEV, world.spare())
    world.one.maps.ports.put(endpoint.ifindex, Port(DEV.vni, PortFlag.NONE, endpoint.mac, endpoint.address))
    heard = listening(world.b.container)
    for source in (ip_address("::"), endpoint.address6):
        with counted(world.one, DEV.vni, Reason.SOURCE_ADDRESS):
            inject(endpoint.container, packets.ping(endpoint.mac, source, world.b.address6))
    assert not heard()


def test_a_link_without_a_record_lets_nothing_through(world: World) -> None:
    endpoint = world.endpoint(world.one, DEV, world.spare())
    world.one.maps.ports.delete(endpoint.ifindex)
    heard = listening(world.b.container)
    with counted(world.one, 0, Reason.NOT_SET_UP):
        inject(endpoint.container, packets.ping(endpoint.mac, endpoint.address, world.b.address))
    assert not heard()


def test_what_a_kernel_says_of_its_own_link_is_dropped_and_not_counted(world: World) -> None:
    """Group reports and the question for routers; a report to a wider group is no link's matter."""

    def said(kind: int, to: str, behind: bytes = b"") -> bytes:
        body = bytes([kind, 0, 0, 0]) + bytes(20) + packets.MARK
        first = 0 if behind else packets.ICMP6
        packet = packets.ipv6(ip_address("fe80::7"), ip_address(to), first, behind + body, hops=1)
        return packets.frame(world.a.mac, packet)

    alert = packets.extension(packets.ICMP6)
    heard, before = listening(world.b.container), world.one.packets(DEV.vni, Reason.MULTICAST)
    for kind in (131, 132, 143):
        inject(world.a.container, said(kind, "ff02::16", alert), said(kind, "ff02::16"))
    inject(world.a.container, said(133, "ff02::2"))
    with counted(world.one, DEV.vni, Reason.MULTICAST, packets=2):
        inject(world.a.container, said(143, "ff0e::16", alert), said(134, "ff02::1"))
    assert world.one.packets(DEV.vni, Reason.MULTICAST) == before + 2
    assert not heard()
