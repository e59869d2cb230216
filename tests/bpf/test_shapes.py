"""S5: every odd shape that a container with CAP_NET_RAW can put on its link, each dropped for its own reason.

A row is what is sent and why it must die. Nothing of it arrives anywhere: not at the address it names, not at a
neighbour, not at the host, not outside. That the data path is no desert is shown by `GOOD`.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import pytest
from bpf.traffic import counted, inject, listening, wait_until
from bpf.world import DEV, NETWORKS, Endpoint, World

from bpf import crossed
from bpf import packets as p
from hedgerow.kernel.maps import GATEWAY_MAC, AgentRow, Reason

if TYPE_CHECKING:
    from conftest import Proof

Shape = Callable[[World], bytes]
ZERO, BROADCAST = IPv4Address(0), IPv4Address("255.255.255.255")
ZERO6, ALL_NODES = IPv6Address(0), IPv6Address("ff02::1")
LINK_LOCAL6, ROUTER = IPv6Address("fe80::1234"), IPv6Address("fe80::1")


def ping(source: Callable[[World], object], to: Callable[[World], object], mac: str = "a") -> Shape:
    """An echo request between addresses that may be lies."""
    return lambda w: p.ping(getattr(w, mac).mac, ip_address(str(source(w))), ip_address(str(to(w))))


def own(w: World) -> IPv4Address:
    return w.a.address


def own6(w: World) -> IPv6Address:
    return w.a.address6


def there(w: World) -> IPv4Address:
    return w.c.address


def there6(w: World) -> IPv6Address:
    return w.c.address6


def fixed(text: str) -> Callable[[World], object]:
    return lambda w: text


def ipv4(**lies: int) -> Shape:
    """An echo request to c whose IPv4 header lies."""

    def made(w: World) -> bytes:
        body = p.echo_request(w.a.address, w.c.address)
        return p.ethernet(w.a.mac, p.IPV4, p.ipv4(w.a.address, w.c.address, p.ICMP, body, **lies))

    return made


def ipv6(**lies: int) -> Shape:
    def made(w: World) -> bytes:
        body = p.echo_request(w.a.address6, w.c.address6)
        return p.ethernet(w.a.mac, p.IPV6, p.ipv6(w.a.address6, w.c.address6, p.ICMP6, body, **lies))

    return made


def good(w: World) -> bytes:
    return p.ping(w.a.mac, w.a.address, w.c.address)


def good6(w: World) -> bytes:
    return p.ping(w.a.mac, w.a.address6, w.c.address6)


def ether(kind: int, payload: bytes = bytes(64), mac: str = "a") -> Shape:
    return lambda w: p.ethernet(getattr(w, mac).mac, kind, payload + p.MARK)


def icmp6(kind: int, source: Callable[[World], object], to: Callable[[World], object], hops: int = 255) -> Shape:
    def made(w: World) -> bytes:
        head, tail = ip_address(str(source(w))), ip_address(str(to(w)))
        body = struct.pack("!BBHI", kind, 0, 0, 0) + w.b.address6.packed + p.MARK
        total = p.checksum(p.pseudo_header(head, tail, p.ICMP6, len(body)) + body)
        body = body[:2] + struct.pack("!H", total) + body[4:]
        return p.ethernet(w.a.mac, p.IPV6, p.ipv6(head, tail, p.ICMP6, body, hops=hops))

    return made


def spoofed_fragment(offset: int) -> Shape:
    def made(w: World) -> bytes:
        packet = p.ipv4(w.b.address, w.c.address, p.UDP, p.udp(w.b.address, w.c.address, 53), fragment=offset)
        return p.ethernet(w.a.mac, p.IPV4, packet)

    return made


def extended(source: Callable[[World], IPv6Address], to: IPv6Address | None, kinds: list[int]) -> Shape:
    """UDP to the tunnel's port behind extension headers."""

    def made(w: World) -> bytes:
        head, tail = source(w), to or w.c.address6
        body = p.udp(head, tail, 64000)
        following = [*kinds[1:], p.UDP]
        chain = b"".join(
            p.fragment_header(after, offset=0, more=True) if kind == 44 else p.extension(after)
            for kind, after in zip(kinds, following, strict=True)
        )
        return p.ethernet(w.a.mac, p.IPV6, p.ipv6(head, tail, kinds[0], chain + body))

    return made


def to_agent(fragment: int, options: bytes = b"") -> Shape:
    """VXLAN, or a piece of it, to another agent's tunnel port."""

    def made(w: World) -> bytes:
        inner = p.vxlan(DEV.vni, p.ping(w.b.mac, w.b.address, w.c.address))
        body = p.udp(w.a.address, w.two.underlay, 64000, inner + p.MARK)
        packet = p.ipv4(w.a.address, w.two.underlay, p.UDP, body, fragment=fragment, options=options)
        return p.ethernet(w.a.mac, p.IPV4, packet)

    return made


NEW_AGENT6 = IPv6Address("2001:db8::2")
"""Made an agent by the test: agents with an IPv6 underlay are for later, the wall is there."""

SHAPES: dict[str, tuple[Shape, Reason]] = {
    # the sender's MAC
    "another endpoint's MAC": (lambda w: p.ping(w.b.mac, own(w), there(w)), Reason.SOURCE_MAC),
    "another endpoint's MAC and address": (lambda w: p.ping(w.b.mac, w.b.address, there(w)), Reason.SOURCE_MAC),
    "the gateway's MAC": (lambda w: p.ping(GATEWAY_MAC, own(w), there(w)), Reason.SOURCE_MAC),
    "the broadcast MAC": (lambda w: p.ping(b"\xff" * 6, own(w), there(w)), Reason.SOURCE_MAC),
    "no MAC": (lambda w: p.ping(bytes(6), own(w), there(w)), Reason.SOURCE_MAC),
    "another endpoint's MAC, IPv6": (lambda w: p.ping(w.b.mac, own6(w), there6(w)), Reason.SOURCE_MAC),
    "ARP with another's MAC": (lambda w: p.arp(1, w.b.mac, w.b.address, w.c.address), Reason.SOURCE_MAC),
    # the sender's address
    "a neighbour's address": (ping(lambda w: w.b.address, there), Reason.SOURCE_ADDRESS),
    "a neighbour's address to the neighbour": (ping(lambda w: w.c.address, there), Reason.SOURCE_ADDRESS),
    "an address of another network": (ping(lambda w: w.p.address, there), Reason.SOURCE_ADDRESS),
    "an address of another network to that network": (ping(lambda w: w.q.address, lambda w: w.p.address),
                                                      Reason.SOURCE_ADDRESS),
    "a free address of the own block": (ping(lambda w: DEV.prefixes(1)[0][77], there), Reason.SOURCE_ADDRESS),
    "the gateway's address": (ping(lambda w: DEV.gateway, there), Reason.SOURCE_ADDRESS),
    "the host's VTEP": (ping(lambda w: w.one.vtep, there), Reason.SOURCE_ADDRESS),
    "the host's underlay address": (ping(lambda w: w.one.underlay, there), Reason.SOURCE_ADDRESS),
    "an outside address": (ping(fixed("203.0.113.9"), there), Reason.SOURCE_ADDRESS),
    "no address": (ping(fixed("0.0.0.0"), there), Reason.SOURCE_ADDRESS),
    "loopback": (ping(fixed("127.0.0.1"), there), Reason.SOURCE_ADDRESS),
    "a multicast address": (ping(fixed("224.0.0.1"), there), Reason.SOURCE_ADDRESS),
    "the broadcast address": (ping(fixed("255.255.255.255"), there), Reason.SOURCE_ADDRESS),
    "a link-local address": (ping(fixed("169.254.7.7"), there), Reason.SOURCE_ADDRESS),
    "a neighbour's IPv6 address": (ping(lambda w: w.b.address6, there6), Reason.SOURCE_ADDRESS),
    "an IPv6 address of another network": (ping(lambda w: w.p.address6, there6), Reason.SOURCE_ADDRESS),
    "an outside IPv6 address": (ping(fixed("2001:db8::9"), there6), Reason.SOURCE_ADDRESS),
    "no IPv6 address": (ping(fixed("::"), there6), Reason.SOURCE_ADDRESS),
    "IPv6 loopback": (ping(fixed("::1"), there6), Reason.SOURCE_ADDRESS),
    "own IPv4 address in the old compatible form": (ping(lambda w: IPv6Address(int(own(w))), there6),
                                                    Reason.SOURCE_ADDRESS),
    "own address from another veth": (lambda w: p.ping(w.a.mac, w.b.address, w.c.address), Reason.SOURCE_ADDRESS),
    # v4-mapped: in our maps it would be the IPv4 address
    "own address v4-mapped": (ping(lambda w: p.mapped(own(w)), there6), Reason.MALFORMED),
    "a neighbour v4-mapped as source": (ping(lambda w: p.mapped(w.b.address), there6), Reason.MALFORMED),
    "a neighbour v4-mapped as destination": (ping(own6, lambda w: p.mapped(there(w))), Reason.MALFORMED),
    "another network v4-mapped as destination": (ping(own6, lambda w: p.mapped(w.p.address)), Reason.MALFORMED),
    "both v4-mapped": (ping(lambda w: p.mapped(own(w)), lambda w: p.mapped(there(w))), Reason.MALFORMED),
    # where nothing is sent to
    "to 0.0.0.0": (ping(own, fixed("0.0.0.0")), Reason.DESTINATION_ADDRESS),
    "to 0.1.2.3": (ping(own, fixed("0.1.2.3")), Reason.DESTINATION_ADDRESS),
    "to loopback": (ping(own, fixed("127.0.0.1")), Reason.DESTINATION_ADDRESS),
    "to the end of loopback": (ping(own, fixed("127.255.255.254")), Reason.DESTINATION_ADDRESS),
    "to reserved 240.0.0.1": (ping(own, fixed("240.0.0.1")), Reason.DESTINATION_ADDRESS),
    "to IPv6 unspecified": (ping(own6, fixed("::")), Reason.DESTINATION_ADDRESS),
    "to IPv6 loopback": (ping(own6, fixed("::1")), Reason.DESTINATION_ADDRESS),
    "to broadcast": (ping(own, fixed("255.255.255.255")), Reason.MULTICAST),
    "to a multicast group": (ping(own, fixed("224.0.0.251")), Reason.MULTICAST),
    "to the last multicast group": (ping(own, fixed("239.255.255.255")), Reason.MULTICAST),
    "to all IPv6 nodes": (ping(own6, fixed("ff02::1")), Reason.MULTICAST),
    "to a global IPv6 group": (ping(own6, fixed("ff0e::1234")), Reason.MULTICAST),
    "DHCP discover": (lambda w: p.datagram(w.a.mac, ZERO, BROADCAST, 67), Reason.MULTICAST),
    "DHCP offer": (lambda w: p.ethernet(w.a.mac, p.IPV4, p.ipv4(own(w), BROADCAST, p.UDP,
                   p.udp(own(w), BROADCAST, 68, sport=67))), Reason.MULTICAST),
    "mDNS": (lambda w: p.datagram(w.a.mac, own(w), IPv4Address("224.0.0.251"), 5353), Reason.MULTICAST),
    "to the network's own broadcast": (ping(own, fixed("10.1.255.255")), Reason.NO_ENDPOINT),
    # link-local
    "to the metadata service": (ping(own, fixed("169.254.169.254")), Reason.LINK_LOCAL),
    "to a link-local neighbour": (ping(own, fixed("169.254.7.7")), Reason.LINK_LOCAL),
    "to another network's gateway": (ping(own, lambda w: NETWORKS[1].gateway), Reason.ISOLATED),
    "to a link-local IPv6 neighbour": (ping(own6, fixed("fe80::9")), Reason.LINK_LOCAL),
    "from a link-local IPv6 address": (ping(lambda w: LINK_LOCAL6, there6), Reason.LINK_LOCAL),
    "router advertisement to all nodes": (icmp6(134, lambda w: LINK_LOCAL6, lambda w: ALL_NODES), Reason.MULTICAST),
    "router advertisement to a neighbour": (icmp6(134, lambda w: LINK_LOCAL6, there6), Reason.LINK_LOCAL),
    "redirect": (icmp6(137, lambda w: ROUTER, there6), Reason.LINK_LOCAL),
    "neighbour advertisement": (icmp6(136, lambda w: LINK_LOCAL6, lambda w: ALL_NODES), Reason.MULTICAST),
    "neighbour advertisement under the own address": (icmp6(136, own6, there6), Reason.LINK_LOCAL),
    "router advertisement under the own address": (icmp6(134, own6, there6), Reason.LINK_LOCAL),
    "redirect under the own address": (icmp6(137, own6, there6), Reason.LINK_LOCAL),
    "solicitation as another": (icmp6(135, lambda w: w.c.address6, fixed("ff02::1:ff00:b")), Reason.SOURCE_ADDRESS),
    "router advertisement behind a hop-by-hop header": (
        lambda w: p.ethernet(w.a.mac, p.IPV6, p.ipv6(LINK_LOCAL6, w.c.address6, 0,
                             p.extension(p.ICMP6) + bytes([134, 0, 0, 0]) + bytes(12) + p.MARK)), Reason.LINK_LOCAL),
    # frames
    "VLAN tag": (lambda w: p.vlan(5, good(w)), Reason.VLAN),
    "VLAN tag 0": (lambda w: p.vlan(0, good(w)), Reason.VLAN),
    "priority tag": (lambda w: p.vlan(0xE000, good(w)), Reason.VLAN),
    "service tag": (lambda w: p.vlan(5, good(w), 0x88A8), Reason.VLAN),
    "two tags": (lambda w: p.vlan(5, p.vlan(6, good(w)), 0x88A8), Reason.VLAN),
    "VLAN tag, IPv6": (lambda w: p.vlan(5, good6(w)), Reason.VLAN),
    "VLAN tag and another's MAC": (lambda w: p.vlan(5, p.ping(w.b.mac, own(w), there(w))), Reason.VLAN),
    "ARP answer": (lambda w: p.arp(2, w.a.mac, w.b.address, w.c.address), Reason.NOT_IP),
    "reverse ARP": (ether(0x8035), Reason.NOT_IP),
    "short ARP": (lambda w: p.ethernet(w.a.mac, p.ARP, bytes(8)), Reason.NOT_IP),
    "LLDP": (ether(0x88CC), Reason.NOT_IP),
    "spanning tree": (ether(0x0026), Reason.NOT_IP),
    "PPPoE": (ether(0x8864), Reason.NOT_IP),
    "MPLS": (ether(0x8847), Reason.NOT_IP),
    "IPX": (ether(0x8137), Reason.NOT_IP),
    "experimental ethertype": (ether(0x88B5), Reason.NOT_IP),
    # headers that lie
    "IPv4 says version 6": (ipv4(first=0x65), Reason.MALFORMED),
    "IPv4 says version 0": (ipv4(first=0x05), Reason.MALFORMED),
    "IPv4 header of 16 bytes": (ipv4(first=0x44), Reason.MALFORMED),
    "IPv4 header of 0 bytes": (ipv4(first=0x40), Reason.MALFORMED),
    "IPv4 header longer than the packet": (ipv4(first=0x4F, length=40), Reason.MALFORMED),
    "IPv4 longer than the frame": (ipv4(length=1400), Reason.MALFORMED),
    "IPv4 of length 0": (ipv4(length=0), Reason.MALFORMED),
    "IPv4 shorter than its header": (ipv4(length=12), Reason.MALFORMED),
    "IPv4 cut": (lambda w: good(w)[:14 + 12], Reason.MALFORMED),
    "IPv4 without anything": (lambda w: good(w)[:14], Reason.MALFORMED),
    "IPv6 says version 4": (ipv6(version=4), Reason.MALFORMED),
    "IPv6 longer than the frame": (ipv6(length=1300), Reason.MALFORMED),
    "IPv6 cut": (lambda w: good6(w)[:14 + 30], Reason.MALFORMED),
    "IPv6 ethertype on an IPv4 packet": (lambda w: p.ethernet(w.a.mac, p.IPV6, good(w)[14:]), Reason.MALFORMED),
    "IPv4 ethertype on an IPv6 packet": (lambda w: p.ethernet(w.a.mac, p.IPV4, good6(w)[14:]), Reason.MALFORMED),
    # fragments and extension headers hide nothing
    "spoofed first fragment": (spoofed_fragment(0x2000), Reason.SOURCE_ADDRESS),
    "spoofed later fragment": (spoofed_fragment(0x2001), Reason.SOURCE_ADDRESS),
    "spoofed last fragment": (spoofed_fragment(0x0010), Reason.SOURCE_ADDRESS),
    "spoofed behind hop-by-hop": (extended(lambda w: w.b.address6, None, [0]), Reason.SOURCE_ADDRESS),
    "spoofed behind routing": (extended(lambda w: w.b.address6, None, [43]), Reason.SOURCE_ADDRESS),
    "spoofed behind a fragment header": (extended(lambda w: w.b.address6, None, [44]), Reason.SOURCE_ADDRESS),
    # S4: the tunnel's port of a host of the cluster
    "VXLAN to an agent": (to_agent(0), Reason.TUNNEL_PORT),
    "first fragment of VXLAN to an agent": (to_agent(0x2000), Reason.TUNNEL_PORT),
    "later fragment of VXLAN to an agent": (to_agent(0x2001), Reason.TUNNEL_PORT),
    "last fragment of VXLAN to an agent": (to_agent(0x0002), Reason.TUNNEL_PORT),
    "VXLAN behind IPv4 options to an agent": (to_agent(0, options=b"\1" * 8), Reason.TUNNEL_PORT),
    "VXLAN to the own host": (lambda w: p.datagram(w.a.mac, own(w), w.one.underlay, 64000), Reason.TUNNEL_PORT),
    "VXLAN behind 1 extension header": (extended(own6, NEW_AGENT6, [60]), Reason.TUNNEL_PORT),
    "VXLAN behind 4 extension headers": (extended(own6, NEW_AGENT6, [0, 60, 43, 60]), Reason.TUNNEL_PORT),
    "VXLAN behind a fragment header": (extended(own6, NEW_AGENT6, [44]), Reason.TUNNEL_PORT),
    "5 extension headers": (extended(own6, NEW_AGENT6, [0, 60, 43, 60, 60]), Reason.MALFORMED),
    "UDP cut before its port": (lambda w: p.ethernet(w.a.mac, p.IPV4, p.ipv4(own(w), w.two.underlay, p.UDP, b"\0\1")),
                                Reason.MALFORMED),
}  # fmt: skip

GOOD: dict[str, tuple[Shape, Callable[[World], Endpoint]]] = {
    "echo request": (good, lambda w: w.c),
    "echo request, IPv6": (good6, lambda w: w.c),
    "to the neighbour": (lambda w: p.ping(w.a.mac, own(w), w.b.address), lambda w: w.b),
    "neighbour discovery that came over a hop": (icmp6(136, own6, there6, hops=254), lambda w: w.c),
    "hop limit 255": (lambda w: p.ethernet(w.a.mac, p.IPV6, p.ipv6(own6(w), there6(w), p.ICMP6,
                      p.echo_request(own6(w), there6(w)), hops=255)), lambda w: w.c),
    "a later fragment": (lambda w: p.ethernet(w.a.mac, p.IPV4, p.ipv4(own(w), there(w), p.UDP, p.MARK, fragment=1)),
                         lambda w: w.c),
    "behind extension headers": (extended(own6, None, [0, 60, 43]), lambda w: w.c),
    "the tunnel's port of a container": (lambda w: p.datagram(w.a.mac, own(w), there(w), 64000), lambda w: w.c),
    "padding behind the packet": (lambda w: good(w) + bytes(20), lambda w: w.c),
    "an unknown protocol": (lambda w: p.frame(w.a.mac, p.ipv4(own(w), there(w), 253, p.MARK)), lambda w: w.c),
}  # fmt: skip


for crossed_name, crossed_shape, crossed_reason in crossed.shapes():
    assert crossed_name not in SHAPES
    SHAPES[crossed_name] = crossed_shape, crossed_reason


def test_there_are_at_least_two_hundred_shapes() -> None:
    assert len(SHAPES) >= 200
    assert {reason for _, reason in SHAPES.values()} >= {
        Reason.MALFORMED, Reason.NOT_IP, Reason.VLAN, Reason.SOURCE_MAC, Reason.SOURCE_ADDRESS, Reason.MULTICAST,
        Reason.DESTINATION_ADDRESS, Reason.LINK_LOCAL, Reason.TUNNEL_PORT,
    }  # fmt: skip


@pytest.fixture(scope="module")
def world_with_ipv6_agent(world: World) -> World:
    world.one.maps.agents.put(NEW_AGENT6, AgentRow())
    return world


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_no_honest_container_sends_is_dropped_for_its_own_reason(
    world_with_ipv6_agent: World, name: str
) -> None:
    world = world_with_ipv6_agent
    shape, reason = SHAPES[name]
    places = [(end.container, "eth0") for end in (world.b, world.c, world.d, world.p, world.q)]
    places += [(world.one.namespace, "hr-host"), (world.two.namespace, "eth0"), (world.outside, "bridge")]
    ears = [listening(where, link) for where, link in places]
    with counted(world.one, DEV.vni, reason):
        inject(world.a.container, shape(world))
    assert not any(heard() for heard in ears)


def test_no_shape_arrives_however_many_come_in_whatever_order(world_with_ipv6_agent: World, proof: Proof) -> None:
    world, seed = world_with_ipv6_agent, 5
    count = proof.count("S5", small=5 * len(SHAPES), full=100 * len(SHAPES), seed=seed)
    frames = [shape(world) for shape, _ in SHAPES.values()] * (count // len(SHAPES))
    random.Random(seed).shuffle(frames)
    ends = (world.b, world.c, world.d, world.p, world.q)
    ears = [listening(end.container) for end in ends] + [listening(world.outside, "bridge")]
    before = dropped(world)
    inject(world.a.container, *frames)
    wait_until(lambda: dropped(world) - before >= count, "every one counted")
    assert not any(heard() for heard in ears)
    inject(world.a.container, good(world))
    wait_until(lambda: len(ears[1]()) == 1, "an honest one arrives")


def dropped(world: World) -> int:
    """Of dev, on the sender's host; a refusal that went unanswered was counted before."""
    rows = world.one.maps.counters().items()
    return sum(packets for (vni, reason), (packets, _) in rows if vni == DEV.vni and reason != Reason.UNANSWERED)


@pytest.mark.parametrize("name", GOOD)
def test_a_shape_that_is_odd_and_honest_arrives(world: World, name: str) -> None:
    shape, receiver = GOOD[name]
    heard = listening(receiver(world).container)
    inject(world.a.container, shape(world))
    wait_until(lambda: len(heard()) == 1, name)
