"""What a tunnel may bring: only from a known agent, only what that agent owns, only into networks that may hear it.

S1, S3 and S4: strangers and rogues write VXLAN with plain sockets, and nothing of it is delivered. Both ways meet one
check.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from bpf.traffic import MASQUERADE, counted, inject, listening, nft, wait_until
from bpf.world import DEV, NETWORKS, OUTSIDE, PROD, TUNNEL_PORT, World

from bpf import packets as p
from hedgerow.kernel import netns
from hedgerow.kernel.maps import GATEWAY_MAC, IPAddress, Reason

TRIES = 1000


def say(where: Path, to: IPAddress, *messages: bytes, source: IPv4Address | None = None) -> None:
    """Datagrams to a tunnel's port from a plain socket."""
    with netns.open_socket(where, socket.AF_INET, socket.SOCK_DGRAM) as rogue:
        if source:
            rogue.bind((str(source), 0))
        for message in messages:
            rogue.sendto(message, (str(to), TUNNEL_PORT))


def from_three(world: World, vni: int, inner: bytes) -> None:
    """Host 3 is a real agent gone bad."""
    say(world.three.namespace, world.one.underlay, p.vxlan(vni, inner))


def test_an_agents_own_words_arrive(world: World) -> None:
    """Else the tests below would prove nothing."""
    heard = listening(world.a.container)
    from_three(world, DEV.vni, p.ping(world.d.mac, world.d.address, world.a.address))
    wait_until(lambda: len(heard()) == 1)


# ---- S1: not an agent, or not to us


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_a_stranger_on_the_underlay_delivers_nothing(world: World, network: object) -> None:
    """1,000 good inner frames for each network, from an address that is no agent's."""
    target = {DEV: world.a, PROD: world.p}.get(network, world.l)
    source = network.prefixes(3)[0][10]
    heard = listening(target.container)
    message = p.vxlan(network.vni, p.ping(world.d.mac, source, target.address))
    with counted(world.one, 0, Reason.UNKNOWN_AGENT, packets=TRIES):
        say(world.outside, world.one.underlay, *[message] * TRIES)
    assert not heard()


def test_a_tunnel_to_an_address_that_is_not_its_end_is_dropped(world: World) -> None:
    """Of this host or in transit, from an agent or not."""
    extra = IPv4Address("192.168.78.1")
    message = p.vxlan(DEV.vni, p.ping(world.d.mac, world.d.address, world.a.address))
    heard = listening(world.a.container)
    for to in (extra, world.two.underlay, OUTSIDE):
        datagram = p.ipv4(world.three.underlay, to, p.UDP, p.udp(world.three.underlay, to, TUNNEL_PORT, message))
        with counted(world.one, 0, Reason.FOREIGN_TUNNEL):
            inject(world.three.namespace, p.ethernet(GATEWAY_MAC, p.IPV4, datagram, to=world.one.mac))
    assert not heard()


def outer(*, flags: int = 0x08000000, keep: int | None = None, **lies: object) -> Callable[[World], bytes]:
    """Host 3's packet to host 1, its headers a lie, or cut after `keep` bytes of VXLAN."""

    def made(world: World) -> bytes:
        inner = p.vxlan(DEV.vni, p.ping(world.d.mac, world.d.address, world.a.address), flags=flags)
        body = p.udp(world.three.underlay, world.one.underlay, TUNNEL_PORT, inner[:keep])
        return p.ipv4(world.three.underlay, world.one.underlay, p.UDP, body, **lies)

    return made


OUTER = {
    "IPv4 options": outer(options=b"\1" * 4),
    "first fragment": outer(fragment=0x2000),
    "no VNI": outer(flags=0),
    "an unknown flag": outer(flags=0x0C000000),
    "group policy": outer(flags=0x88000001),
    "generic protocol": outer(flags=0x0C000003),
    "nothing in it": outer(keep=0),
    "half a header": outer(keep=4),
    "no inner frame": outer(keep=8),
    "half an inner frame": outer(keep=18),
}


@pytest.mark.parametrize("name", OUTER)
def test_a_tunnel_packet_that_no_agent_writes_is_dropped(world: World, name: str) -> None:
    frame = p.ethernet(GATEWAY_MAC, p.IPV4, OUTER[name](world), to=world.one.mac)
    heard = listening(world.a.container)
    with counted(world.one, 0, Reason.MALFORMED):
        inject(world.three.namespace, frame)
    assert not heard()


def test_what_is_no_tunnel_passes_the_underlays_link(world: World) -> None:
    with netns.open_socket(world.one.namespace, socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((str(world.one.underlay), 64001))
        receiver.settimeout(3)
        with netns.open_socket(world.outside, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x" * 3000, (str(world.one.underlay), 64001))
        assert len(receiver.recv(65536)) == 3000


# ---- S3: an agent that says what is not its own

ROGUE: dict[str, tuple[Callable[[World], bytes], int, int, Reason]] = {
    # what is inside, the VNI of the tunnel, the VNI it is counted under, why
    "a source of another agent": (lambda w: p.ping(w.c.mac, w.c.address, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "a source of the receiver's own": (lambda w: p.ping(w.b.mac, w.b.address, w.a.address), DEV.vni, 0,
                                       Reason.NOT_OWNER),
    "the receiver itself": (lambda w: p.ping(w.a.mac, w.a.address, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "a source that no agent owns": (lambda w: p.ping(w.d.mac, DEV.subnet[51000], w.a.address), DEV.vni, 0,
                                    Reason.NOT_OWNER),
    "a source outside all networks": (lambda w: p.ping(w.d.mac, OUTSIDE, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "the own underlay address": (lambda w: p.ping(w.d.mac, w.three.underlay, w.a.address), DEV.vni, 0,
                                 Reason.NOT_OWNER),
    "the gateway": (lambda w: p.ping(w.d.mac, DEV.gateway, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "the receiver's VTEP": (lambda w: p.ping(w.d.mac, w.one.vtep, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "the own VTEP": (lambda w: p.ping(w.d.mac, w.three.vtep, w.a.address), DEV.vni, 0, Reason.NOT_OWNER),
    "an IPv6 source of another agent": (lambda w: p.ping(w.c.mac, w.c.address6, w.a.address6), DEV.vni, 0,
                                        Reason.NOT_OWNER),
    "an own source v4-mapped": (lambda w: p.ping(w.d.mac, p.mapped(w.d.address), w.a.address6), DEV.vni, 0,
                                Reason.MALFORMED),
    "a target v4-mapped": (lambda w: p.ping(w.d.mac, w.d.address6, p.mapped(w.a.address)), DEV.vni, 0,
                           Reason.MALFORMED),
    "another network's VNI": (lambda w: p.ping(w.d.mac, w.d.address, w.a.address), PROD.vni, DEV.vni,
                              Reason.WRONG_VNI),
    "a VNI that nobody has": (lambda w: p.ping(w.d.mac, w.d.address, w.a.address), 0xABCDEF, DEV.vni,
                              Reason.WRONG_VNI),
    "VNI 0": (lambda w: p.ping(w.d.mac, w.d.address, w.a.address), 0, DEV.vni, Reason.WRONG_VNI),
    "the target's VNI across the wall": (lambda w: p.ping(w.d.mac, w.d.address, w.p.address), PROD.vni, DEV.vni,
                                         Reason.WRONG_VNI),
    "across the wall": (lambda w: p.ping(w.d.mac, w.d.address, w.p.address), DEV.vni, DEV.vni, Reason.ISOLATED),
    "across the wall, IPv6": (lambda w: p.ping(w.d.mac, w.d.address6, w.p.address6), DEV.vni, DEV.vni,
                              Reason.ISOLATED),
    "to nobody": (lambda w: p.ping(w.d.mac, w.d.address, DEV.prefixes(1)[0][99]), DEV.vni, DEV.vni,
                  Reason.NO_ENDPOINT),
    "to another agent's endpoint": (lambda w: p.ping(w.d.mac, w.d.address, w.c.address), DEV.vni, DEV.vni,
                                    Reason.NO_ENDPOINT),
    "to the host's VTEP": (lambda w: p.ping(w.d.mac, w.d.address, w.one.vtep), DEV.vni, DEV.vni, Reason.NO_ENDPOINT),
    "to the host's underlay address": (lambda w: p.ping(w.d.mac, w.d.address, w.one.underlay), DEV.vni, DEV.vni,
                                       Reason.NO_ENDPOINT),
    "to the outside": (lambda w: p.ping(w.d.mac, w.d.address, OUTSIDE), DEV.vni, DEV.vni, Reason.NO_ENDPOINT),
    "to broadcast": (lambda w: p.ping(w.d.mac, w.d.address, IPv4Address("255.255.255.255")), DEV.vni, DEV.vni,
                     Reason.NO_ENDPOINT),
    "a VLAN tag": (lambda w: p.vlan(5, p.ping(w.d.mac, w.d.address, w.a.address)), DEV.vni, 0, Reason.VLAN),
    "ARP": (lambda w: p.arp(1, w.d.mac, w.d.address, w.a.address), DEV.vni, 0, Reason.NOT_IP),
    "LLDP": (lambda w: p.ethernet(w.d.mac, 0x88CC, bytes(64)), DEV.vni, 0, Reason.NOT_IP),
    "a lying length": (lambda w: p.ethernet(w.d.mac, p.IPV4, p.ipv4(w.d.address, w.a.address, 1, bytes(8), length=999)),
                       DEV.vni, 0, Reason.MALFORMED),
    "VXLAN in VXLAN": (lambda w: p.frame(w.d.mac, p.ipv4(w.three.underlay, w.a.address, p.UDP, p.udp(
        w.three.underlay, w.a.address, TUNNEL_PORT))), DEV.vni, 0, Reason.NOT_OWNER),
}  # fmt: skip


@pytest.mark.parametrize("name", ROGUE)
def test_an_agent_cannot_say_what_is_not_its_own(world: World, name: str) -> None:
    inner, vni, counted_vni, reason = ROGUE[name]
    ears = [listening(end.container) for end in (world.a, world.b, world.p, world.l)]
    with counted(world.one, counted_vni, reason):
        from_three(world, vni, inner(world))
    assert not any(heard() for heard in ears)


def test_a_flood_of_forged_sources_from_a_real_agent_delivers_nothing(world: World) -> None:
    heard = listening(world.a.container)
    message = p.vxlan(DEV.vni, p.ping(world.c.mac, world.c.address, world.a.address))
    with counted(world.one, 0, Reason.NOT_OWNER, packets=TRIES):
        say(world.three.namespace, world.one.underlay, *[message] * TRIES)
    assert not heard()


def test_a_pair_that_is_allowed_may_cross_and_a_third_network_still_may_not(world: World) -> None:
    with world.allowed(DEV, PROD):
        heard = listening(world.p.container)
        from_three(world, DEV.vni, p.ping(world.d.mac, world.d.address, world.p.address))
        wait_until(lambda: len(heard()) == 1)
        with counted(world.one, DEV.vni, Reason.ISOLATED):
            from_three(world, DEV.vni, p.ping(world.d.mac, world.d.address, world.l.address))


def test_an_agent_that_was_removed_is_a_stranger(world: World) -> None:
    row = world.one.maps.agents.get(world.three.underlay)
    rows = {prefix: world.one.maps.prefixes.get(prefix) for prefix in DEV.prefixes(3)}
    world.one.maps.agents.delete(world.three.underlay)
    world.one.maps.prefixes.delete_many(rows)
    try:
        with counted(world.one, 0, Reason.UNKNOWN_AGENT):
            from_three(world, DEV.vni, p.ping(world.d.mac, world.d.address, world.a.address))
    finally:
        world.one.maps.agents.put(world.three.underlay, row)
        world.one.maps.prefixes.put_many(rows)


# ---- S4: a container that would speak as its host


def test_a_container_cannot_speak_as_its_host(world: World) -> None:
    """Masqueraded, its VXLAN would come from a known agent: to every agent, its own host too, nothing leaves."""
    rogue = world.endpoint(world.one, DEV, world.spare())
    message = p.vxlan(PROD.vni, p.ping(world.p.mac, world.p.address, world.q.address))
    ears = [listening(end.container) for end in (world.q, world.c)]
    for host in world.hosts:
        with counted(world.one, DEV.vni, Reason.TUNNEL_PORT, packets=TRIES // 10):
            for _ in range(TRIES // 10):
                with contextlib.suppress(OSError):  # the refusals come back to the socket
                    say(rogue.container, host.underlay, message)
    assert not any(heard() for heard in ears)


def test_the_tunnels_port_of_others_is_nobodys_business(world: World) -> None:
    """People run VXLAN in containers; only agents are out of bounds."""
    with netns.open_socket(world.outside, socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((str(OUTSIDE), TUNNEL_PORT))
        receiver.settimeout(3)
        with nft(world.one.name, MASQUERADE):
            say(world.a.container, OUTSIDE, b"hello")
            assert receiver.recv(100) == b"hello"


# ---- the host's own stack is no way round


HOST: dict[str, tuple[Callable[[World], bytes], Reason]] = {
    "as an endpoint of its own": (lambda w: p.ping(w.one.vtep_mac, w.b.address, w.a.address), Reason.SOURCE_ADDRESS),
    "as another host's endpoint": (lambda w: p.ping(w.one.vtep_mac, w.c.address, w.a.address), Reason.SOURCE_ADDRESS),
    "as an address of a network that is free": (lambda w: p.ping(w.one.vtep_mac, DEV.subnet[51000], w.a.address),
                                                Reason.SOURCE_ADDRESS),
    "as another host's VTEP": (lambda w: p.ping(w.one.vtep_mac, w.two.vtep, w.a.address), Reason.SOURCE_ADDRESS),
    "with a container's MAC": (lambda w: p.ping(w.a.mac, w.one.vtep, w.a.address), Reason.SOURCE_MAC),
    "with a VLAN tag": (lambda w: p.vlan(5, p.ping(w.one.vtep_mac, w.one.vtep, w.a.address)), Reason.VLAN),
    "to another host's endpoint": (lambda w: p.ping(w.one.vtep_mac, w.one.vtep, w.c.address), Reason.CLOSED),
    "to nobody": (lambda w: p.ping(w.one.vtep_mac, w.one.vtep, DEV.prefixes(1)[0][99]), Reason.NO_ENDPOINT),
    "to the outside": (lambda w: p.ping(w.one.vtep_mac, w.one.vtep, OUTSIDE), Reason.CLOSED),
    "to itself": (lambda w: p.ping(w.one.vtep_mac, w.one.vtep, DEV.gateway), Reason.CLOSED),
}  # fmt: skip


@pytest.mark.parametrize("name", HOST)
def test_the_hosts_stack_cannot_pass_as_a_container(world: World, name: str) -> None:
    frame, reason = HOST[name]
    ears = [listening(end.container) for end in (world.a, world.b, world.c)]
    with counted(world.one, 0, reason):
        inject(world.one.namespace, frame(world), interface="hr-host")
    assert not any(heard() for heard in ears)


def test_a_packet_routed_in_from_outside_under_a_containers_address_reaches_nobody(world: World) -> None:
    """The attacker knows the way: it routes 10.1.0.0/16 through the host."""
    packet = p.ping(GATEWAY_MAC, world.c.address, world.a.address)[14:]
    heard = listening(world.a.container)
    world.one.sysctl("ipv4/conf/all/rp_filter", "0")
    try:
        with counted(world.one, 0, Reason.SOURCE_ADDRESS):
            inject(world.outside, p.ethernet(GATEWAY_MAC, p.IPV4, packet, to=world.one.mac), interface="bridge")
        assert not heard()
    finally:
        world.one.sysctl("ipv4/conf/all/rp_filter", "1")
