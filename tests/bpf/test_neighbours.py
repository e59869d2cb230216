"""S6: of all the talk by which neighbours and routers are found, a container gets answers to ARP requests and neighbour
solicitations; nothing else it says of that kind changes what anybody knows.

The frames are those of an attacker: gratuitous ARP, advertisements, redirects, DHCP. `test_what_is_held_back_would_do
harm` delivers some of the same frames past the data path, and there they do what the others must not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bpf.traffic import ETH_P_ALL, inject, listening, raw_socket, wait_until
from bpf.world import DEV, GATEWAY6, Endpoint, World, run

from bpf import packets as p
from hedgerow.kernel.maps import GATEWAY_MAC, IPAddress

if TYPE_CHECKING:
    from conftest import Proof

ALL_MACS, NO_MAC = b"\xff" * 6, bytes(6)
ALL_NODES, ALL_ROUTERS = IPv6Address("ff02::1"), IPv6Address("ff02::2")
ROGUE = IPv6Address("fe80::bad")
"""What the attacker calls itself: a router of the link."""
REQUEST, REPLY = 1, 2
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT, REDIRECT6 = 133, 134, 135, 136, 137
ROUTER, SOLICITED, OVERRIDE = 0x80000000, 0x40000000, 0x20000000
SOURCE_MAC_OPTION, TARGET_MAC_OPTION = b"\1\1", b"\2\1"
DHCP_COOKIE = b"\x63\x82\x53\x63"

Frame = Callable[[World, Endpoint], bytes]
"""What an endpoint of the world sends."""


@pytest.fixture(scope="module")
def rogue(world: World) -> Endpoint:
    """On host 1 in dev, whose own kernel has asked for nobody: what comes in was asked for by the test."""
    return world.endpoint(world.one, DEV, world.spare())


# ---- frames ---------------------------------------------------------------------------------------------------------


def arp(operation: int, sender: tuple[bytes, IPv4Address], target: tuple[bytes, IPv4Address], to: bytes) -> bytes:
    body = struct.pack("!HHBBH", 1, p.IPV4, 6, 4, operation) + sender[0] + sender[1].packed
    return p.ethernet(sender[0], p.ARP, body + target[0] + target[1].packed + p.MARK, to=to)


def announcement(address: Callable[[World], IPv4Address], operation: int, to: bytes = ALL_MACS) -> Frame:
    """Gratuitous ARP: "this address is at my MAC" (RFC 5227, 3)."""
    return lambda w, e: arp(operation, (e.mac, address(w)), (e.mac, address(w)), to)


def icmp6(
    mac: bytes, source: IPAddress, target: IPAddress, kind: int, body: bytes, *, to: bytes = GATEWAY_MAC, code: int = 0
) -> bytes:
    """A message of RFC 4861, which is worth nothing unless its hop limit is 255."""
    message = struct.pack("!BBH", kind, code, 0) + body
    total = p.checksum(p.pseudo_header(source, target, p.ICMP6, len(message)) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    return p.ethernet(mac, p.IPV6, p.ipv6(source, target, p.ICMP6, message, hops=255), to=to)


def router_advertisement(mac: bytes, source: IPAddress, target: IPAddress, to: bytes) -> bytes:
    """A default router for half an hour, and a prefix to make addresses of."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + IPv6Address("2001:db8:bad::").packed
    body = struct.pack("!BBHII", 64, 0, 1800, 0, 0) + SOURCE_MAC_OPTION + mac + prefix
    return icmp6(mac, source, target, ROUTER_ADVERTISEMENT, body, to=to)


def advertisement(e: Endpoint, claimed: IPAddress, source: IPAddress, target: IPAddress, behind: bytes = b"") -> bytes:
    """`behind`: a hop-by-hop header, under which it may hide."""
    body = struct.pack("!I", ROUTER | OVERRIDE) + claimed.packed + TARGET_MAC_OPTION + e.mac
    frame = icmp6(e.mac, source, target, ADVERTISEMENT, body, to=ALL_MACS)
    if not behind:
        return frame
    return p.ethernet(e.mac, p.IPV6, p.ipv6(source, target, 0, behind + frame[14 + 40 :], hops=255))


def solicitation(e: Endpoint, asked: IPv6Address, source: IPAddress) -> bytes:
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(asked) & 0xFFFFFF)
    return icmp6(e.mac, source, group, SOLICITATION, bytes(4) + asked.packed + SOURCE_MAC_OPTION + e.mac, to=ALL_MACS)


def redirect6(e: Endpoint, source: IPAddress, victim: IPAddress, destination: IPAddress) -> bytes:
    body = bytes(4) + e.address6.packed + destination.packed + TARGET_MAC_OPTION + e.mac
    return icmp6(e.mac, source, victim, REDIRECT6, body)


def redirect(e: Endpoint, source: IPv4Address, victim: IPv4Address, destination: IPv4Address) -> bytes:
    """RFC 792: "to the destination rather by me"."""
    sent = p.ipv4(victim, destination, p.UDP, p.udp(victim, destination, 53))[:28]
    body = struct.pack("!BBH", 5, 1, 0) + e.address.packed + sent
    body = body[:2] + struct.pack("!H", p.checksum(body)) + body[4:]
    return p.ethernet(e.mac, p.IPV4, p.ipv4(source, victim, p.ICMP, body))


def dhcp_offer(e: Endpoint, source: IPv4Address, target: IPv4Address, to: bytes) -> bytes:
    """An address, with the attacker as the router and the name server."""
    head = struct.pack("!BBBBIHH", 2, 1, 6, 0, 7, 0, 0x8000) + bytes(4) + DEV.prefixes(1)[0][99].packed
    options = b"\x35\1\2" + b"\3\4" + e.address.packed + b"\6\4" + e.address.packed + b"\xff"
    message = head + e.address.packed + bytes(4 + 16 + 192) + DHCP_COOKIE + options
    return p.ethernet(e.mac, p.IPV4, p.ipv4(source, target, p.UDP, p.udp(source, target, 68, message, sport=67)), to=to)


def dhcp6_advertise(e: Endpoint, source: IPAddress, target: IPAddress) -> bytes:
    return p.frame(e.mac, p.ipv6(source, target, p.UDP, p.udp(source, target, 546, b"\2\0\0\7" + bytes(20), sport=547)))


def gateway(w: World) -> IPv4Address:
    return DEV.gateway


# ---- answers --------------------------------------------------------------------------------------------------------

ASKED: dict[str, Callable[[World], IPAddress]] = {
    "the gateway": gateway,
    "a neighbour on the host": lambda w: w.b.address,
    "a neighbour on another host": lambda w: w.c.address,
    "an address that nobody has": lambda w: IPv4Address("10.1.200.7"),
    "the IPv6 gateway": lambda w: GATEWAY6,
    "an IPv6 neighbour": lambda w: w.b.address6,
}


def arrived(rogue: Endpoint) -> Callable[[], list[bytes]]:
    """A function that returns what has come in on the link since."""
    raw = raw_socket(rogue.container, "eth0", ETH_P_ALL)

    def heard() -> list[bytes]:
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, direction, *_) = raw.recvfrom(65536)
                if direction != socket.PACKET_OUTGOING:
                    found.append(frame)
        return found

    heard()
    return heard


def is_own_talk(frame: bytes) -> bool:
    """Answers what the container's own kernel asks, whenever it likes: for its gateway, and whether anybody has its
    link-local address.
    """
    about_gateway = frame[12:14] == struct.pack("!H", p.ARP) and frame[28:32] == DEV.gateway.packed
    return about_gateway or (frame[54:55] == bytes([ADVERTISEMENT]) and frame[62:64] == b"\xfe\x80")


@pytest.mark.parametrize("asked", ASKED)
def test_who_asks_for_a_neighbour_gets_the_gateways_mac(world: World, rogue: Endpoint, asked: str) -> None:
    address, heard, frames = ASKED[asked](world), arrived(rogue), set[bytes]()
    if isinstance(address, IPv4Address):
        inject(rogue.container, arp(REQUEST, (rogue.mac, rogue.address), (NO_MAC, address), ALL_MACS))
    else:
        inject(rogue.container, solicitation(rogue, address, rogue.address6))
    wait_until(lambda: frames.update(found for found in heard() if address.packed in found) or frames, asked)
    [answer] = frames
    assert (answer[:6], answer[6:12]) == (rogue.mac, GATEWAY_MAC)
    if isinstance(address, IPv4Address):
        assert answer[20:22] == struct.pack("!H", REPLY)
        assert answer[22:42] == GATEWAY_MAC + address.packed + rogue.mac + rogue.address.packed
    else:
        assert answer[14 + 40] == ADVERTISEMENT
        assert answer[14 + 48 : 14 + 64] == address.packed
        assert GATEWAY_MAC in answer[14 + 64 :]


SILENT: dict[str, Frame] = {
    "ARP answer": lambda w, e: arp(REPLY, (e.mac, e.address), (w.b.mac, w.b.address), w.b.mac),
    "announcement of the own address": lambda w, e: announcement(lambda w: e.address, REQUEST)(w, e),
    "is the own address free?": lambda w, e: arp(REQUEST, (e.mac, IPv4Address(0)), (NO_MAC, e.address), ALL_MACS),
    "is a link-local address free?": lambda w, e: arp(
        REQUEST, (e.mac, IPv4Address(0)), (NO_MAC, IPv4Address("169.254.7.7")), ALL_MACS
    ),
    "is the own IPv6 address free?": lambda w, e: solicitation(e, e.address6, IPv6Address(0)),
    "router solicitation": lambda w, e: icmp6(e.mac, ROGUE, ALL_ROUTERS, ROUTER_SOLICITATION, bytes(4), to=ALL_MACS),
    "router advertisement": lambda w, e: router_advertisement(e.mac, ROGUE, ALL_NODES, ALL_MACS),
    "neighbour advertisement": lambda w, e: advertisement(e, e.address6, e.address6, ALL_NODES),
    "redirect": lambda w, e: redirect6(e, GATEWAY6, w.b.address6, w.c.address6),
    "DHCP discover": lambda w, e: p.datagram(e.mac, IPv4Address(0), IPv4Address("255.255.255.255"), 67),
    "solicitation under another's address": lambda w, e: solicitation(e, w.c.address6, w.b.address6),
}


@pytest.mark.parametrize("name", SILENT)
def test_nothing_else_is_answered(world: World, rogue: Endpoint, name: str) -> None:
    """An ARP request behind it is the fence: by its answer all before it was seen."""
    heard, frames = arrived(rogue), []
    fence = arp(REQUEST, (rogue.mac, rogue.address), (NO_MAC, IPv4Address("10.1.99.99")), ALL_MACS)
    inject(rogue.container, SILENT[name](world, rogue), fence)
    wait_until(lambda: frames.extend(found for found in heard() if not is_own_talk(found)) or frames, name)
    [answer] = frames
    assert answer[28:32] == IPv4Address("10.1.99.99").packed


# ---- what others know -----------------------------------------------------------------------------------------------

HARM: dict[str, Frame] = {
    "the gateway is at my MAC": announcement(gateway, REPLY),
    "the gateway is at my MAC, as a request": announcement(gateway, REQUEST),
    "the gateway is at my MAC, to the neighbour alone": lambda w, e: announcement(gateway, REPLY, w.b.mac)(w, e),
    "the neighbour is at my MAC": announcement(lambda w: w.b.address, REPLY),
    "the one on another host is at my MAC": announcement(lambda w: w.c.address, REQUEST),
    "the host's next hop is at my MAC": announcement(lambda w: IPv4Address("169.254.0.1"), REPLY),
    "the host's VTEP is at my MAC": announcement(lambda w: w.one.vtep, REPLY),
    "another agent is at my MAC": announcement(lambda w: w.two.underlay, REPLY),
    "ARP answer to the neighbour": lambda w, e: arp(REPLY, (e.mac, DEV.gateway), (w.b.mac, w.b.address), w.b.mac),
    "advertisement of the gateway": lambda w, e: advertisement(e, GATEWAY6, ROGUE, ALL_NODES),
    "advertisement of the gateway from the own address": lambda w, e: advertisement(e, GATEWAY6, e.address6, ALL_NODES),
    "advertisement to the neighbour": lambda w, e: advertisement(e, GATEWAY6, GATEWAY6, w.b.address6),
    "advertisement to the neighbour from the own address": lambda w, e: advertisement(
        e, GATEWAY6, e.address6, w.b.address6
    ),
    "advertisement behind another header": lambda w, e: advertisement(
        e, GATEWAY6, e.address6, w.b.address6, behind=p.extension(p.ICMP6)
    ),
    "advertisement to the host": lambda w, e: advertisement(e, GATEWAY6, ROGUE, w.one.vtep6),
    "solicitation that tells a MAC for the gateway": lambda w, e: solicitation(e, w.b.address6, GATEWAY6),
    "router advertisement": lambda w, e: router_advertisement(e.mac, ROGUE, ALL_NODES, ALL_MACS),
    "router advertisement as the gateway": lambda w, e: router_advertisement(e.mac, GATEWAY6, ALL_NODES, ALL_MACS),
    "router advertisement to the neighbour": lambda w, e: router_advertisement(e.mac, ROGUE, w.b.address6, GATEWAY_MAC),
    "router advertisement to another host's": lambda w, e: router_advertisement(e.mac, ROGUE, w.c.address6, w.c.mac),
    "router advertisement to the host": lambda w, e: router_advertisement(e.mac, ROGUE, w.one.vtep6, GATEWAY_MAC),
    "router advertisement from the own address": lambda w, e: router_advertisement(
        e.mac, e.address6, w.b.address6, GATEWAY_MAC
    ),
    "redirect as the gateway": lambda w, e: redirect(e, DEV.gateway, w.b.address, w.c.address),
    "redirect from the own address": lambda w, e: redirect(e, e.address, w.b.address, w.c.address),
    "redirect to another host's": lambda w, e: redirect(e, DEV.gateway, w.c.address, w.b.address),
    "redirect of the host": lambda w, e: redirect(e, e.address, w.one.vtep, w.c.address),
    "IPv6 redirect as the gateway": lambda w, e: redirect6(e, GATEWAY6, w.b.address6, w.c.address6),
    "IPv6 redirect from the own address": lambda w, e: redirect6(e, e.address6, w.b.address6, w.c.address6),
    "IPv6 redirect of the host": lambda w, e: redirect6(e, ROGUE, w.one.vtep6, w.c.address6),
    "DHCP offer to all": lambda w, e: dhcp_offer(e, e.address, IPv4Address("255.255.255.255"), ALL_MACS),
    "DHCP offer to all as the gateway": lambda w, e: dhcp_offer(
        e, DEV.gateway, IPv4Address("255.255.255.255"), ALL_MACS
    ),
    "DHCP offer to the neighbour": lambda w, e: dhcp_offer(e, e.address, w.b.address, w.b.mac),
    "DHCP offer to another host's": lambda w, e: dhcp_offer(e, e.address, w.c.address, GATEWAY_MAC),
    "DHCPv6 advertise": lambda w, e: dhcp6_advertise(e, ROGUE, w.b.address6),
    "DHCPv6 advertise from the own address": lambda w, e: dhcp6_advertise(e, e.address6, w.b.address6),
}


def known(where: Path) -> frozenset[tuple[str, ...]]:
    """What a kernel holds true: its addresses, its routes, learned ones too, and who is at which MAC."""

    def rows(*words: str) -> list[dict[str, Any]]:
        said = run("ip", "-n", where.name, "-j", *words)
        return list(json.loads(said)) if said.strip() else []

    routes = [
        json.dumps({key: row[key] for key in sorted(row) if key not in CHANGING})
        for family in ("-4", "-6")
        for words in (("table", "all"), ("cache",))
        for row in rows(family, "route", "show", *words)
    ]
    addresses = [(link["ifname"], each["local"]) for link in rows("address") for each in link.get("addr_info", [])]
    neighbours = [(row["dst"], row["dev"], row["lladdr"]) for row in rows("neighbour") if "lladdr" in row]
    return frozenset(
        [("route", each) for each in routes]
        + [("address", *each) for each in addresses]
        + [("neighbour", *each) for each in neighbours]
    )


def changes(before: frozenset[tuple[str, ...]], after: frozenset[tuple[str, ...]], mac: str) -> list[tuple[str, ...]]:
    """What came and what went. Hosts find each other on the underlay meanwhile: of neighbours, those count that were
    known under another MAC, and whoever is at this one.
    """
    had = {row[1] for row in before if row[0] == "neighbour"}
    came = [row for row in after - before if row[0] != "neighbour" or row[1] in had or row[-1] == mac]
    return sorted(came + [row for row in before - after if row[0] != "neighbour"])


CHANGING = ("expires", "users", "age", "used", "cache", "metrics", "flags")
"""Of a route: what changes by its use."""


def warm(world: World, rogue: Endpoint, *targets: Endpoint) -> None:
    """They have answered somebody: their neighbours and routes are what they are at work."""
    for target in targets:
        for mine, theirs in ((rogue.address, target.address), (rogue.address6, target.address6)):
            heard = arrived(rogue)
            inject(rogue.container, p.ping(rogue.mac, mine, theirs))
            wait_until(lambda heard=heard: any(p.MARK in frame for frame in heard()), theirs)


def unsettled(where: Path) -> bool:
    """Whether its kernel is still asking if an address of its own is free."""
    links = json.loads(run("ip", "-n", where.name, "-j", "address"))
    return any(each.get("tentative") for link in links for each in link.get("addr_info", []))


def everybody(world: World) -> dict[str, Path]:
    ends = {"b": world.b, "c": world.c, "d": world.d, "p": world.p, "l": world.l}
    hosts = {"host 1": world.one.namespace, "host 2": world.two.namespace, "outside": world.outside}
    return {name: end.container for name, end in ends.items()} | hosts


def test_a_container_cannot_change_what_others_know(world: World, rogue: Endpoint, proof: Proof) -> None:
    rounds = proof.count("S6", small=len(HARM), full=100 * len(HARM)) // len(HARM)
    frames = [frame(world, rogue) for frame in HARM.values()]
    warm(world, rogue, world.b, world.c)
    wait_until(lambda: not any(unsettled(where) for where in everybody(world).values()), "addresses are settled")
    before = {name: known(where) for name, where in everybody(world).items()}
    assert ("neighbour", str(DEV.gateway), "eth0", GATEWAY_MAC.hex(":")) in before["b"]
    for _ in range(rounds):
        inject(rogue.container, *frames)
    warm(world, rogue, world.b, world.c)
    after = {name: known(where) for name, where in everybody(world).items()}
    changed = {name: changes(before[name], after[name], rogue.mac.hex(":")) for name in before}
    assert not any(changed.values()), changed


@pytest.fixture
def victim(world: World) -> Endpoint:
    return world.endpoint(world.one, DEV, world.spare())


def test_what_is_held_back_would_do_harm(world: World, rogue: Endpoint, victim: Endpoint) -> None:
    """Past the data path, out of the host's own end of the victim's link, the same frames are believed."""
    warm(world, rogue, victim)
    before = known(victim.container)
    believed = [announcement(gateway, REPLY)(world, rogue), router_advertisement(rogue.mac, ROGUE, ALL_NODES, ALL_MACS)]
    heard = listening(victim.container)
    inject(world.one.namespace, *believed, interface=victim.link)
    assert heard()
    wrong = {("neighbour", str(DEV.gateway), "eth0", rogue.mac.hex(":"))}
    wait_until(lambda: wrong <= known(victim.container) - before, "its gateway at the rogue's MAC")
    wait_until(lambda: any(str(ROGUE) in row[1] for row in known(victim.container) - before), "a route by the rogue")
