"""More shapes for S5: what a packet may say, crossed with how it says it. Each must die for the reason beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

from bpf.packets import ICMP, ICMP6, TCP, UDP
from bpf.world import DEV, OUTSIDE, World

from bpf import packets as p
from hedgerow.kernel.maps import IPAddress, Reason

Shape = Callable[[World], bytes]
Crossed = tuple[str, Shape, Reason]
Where = Callable[[World], IPAddress]

SCTP = 132
PROTOCOLS = {"IGMP": 2, "IPv4 in IP": 4, "IPv6 in IP": 41, "GRE": 47, "ESP": 50, "AH": 51, "OSPF": 89, "VRRP": 112,
             "L2TP": 115, "SCTP": SCTP, "UDP-Lite": 136, "an unknown protocol": 253}  # fmt: skip

WITH_PORTS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}


def body(protocol: int, source: IPAddress, to: IPAddress, port: int = 80) -> bytes:
    match protocol:
        case 6:
            return p.tcp(source, to, port)
        case 17:
            return p.udp(source, to, port)
        case 1 | 58:
            return p.echo_request(source, to)
        case 132:
            return p.sctp(4321, port)
        case _:
            return bytes(20) + p.MARK


def said(w: World, source: IPAddress, to: IPAddress, protocol: int, port: int = 80) -> bytes:
    return p.frame(w.a.mac, p.ip(source, to, protocol, body(protocol, source, to, port)))


def own(w: World, to: IPAddress) -> IPAddress:
    return w.a.of(to.version)


def fixed(text: str) -> Where:
    return lambda w: IPv6Address(text) if ":" in text else IPv4Address(text)


def shapes() -> Iterator[Crossed]:
    yield from lies()
    yield from nowhere()
    yield from other_networks()
    yield from hosts()
    yield from pieces()
    yield from hidden()
    yield from frames()


LIES: dict[str, Where] = {
    "a neighbour": lambda w: w.b.address,
    "another host's container": lambda w: w.d.address,
    "another network's container": lambda w: w.p.address,
    "the outside": lambda w: OUTSIDE,
    "the gateway": lambda w: DEV.gateway,
    "a neighbour, IPv6": lambda w: w.b.address6,
    "another network's container, IPv6": lambda w: w.q.address6,
    "the host, IPv6": lambda w: w.one.vtep6,
}


def lies() -> Iterator[Crossed]:
    """Whatever the protocol, the address must be the sender's."""
    for (name, source), (kind, number) in itertools.product(
        LIES.items(), {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}.items()
    ):
        yield (f"{kind} as {name}", lambda w, s=source, n=number: said(w, s(w), w.c.of(s(w).version), n),
               Reason.SOURCE_ADDRESS)  # fmt: skip


NOWHERE = {"0.0.0.0": Reason.DESTINATION_ADDRESS, "127.0.0.1": Reason.DESTINATION_ADDRESS,
           "255.255.255.255": Reason.MULTICAST, "224.0.0.1": Reason.MULTICAST, "ff02::1": Reason.MULTICAST,
           "::1": Reason.DESTINATION_ADDRESS, "fe80::2": Reason.LINK_LOCAL, "169.254.169.254": Reason.LINK_LOCAL,
           "fd00:ec2::254": Reason.LINK_LOCAL}  # fmt: skip


def nowhere() -> Iterator[Crossed]:
    for (text, reason), (kind, number) in itertools.product(NOWHERE.items(), {"UDP": UDP, "SCTP": SCTP}.items()):
        yield f"{kind} to {text}", lambda w, t=text, n=number: said(w, own(w, fixed(t)(w)), fixed(t)(w), n), reason
    yield "to the own address", lambda w: said(w, w.a.address, w.a.address, UDP), Reason.DESTINATION_ADDRESS
    yield "to the own IPv6 address", lambda w: said(w, w.a.address6, w.a.address6, UDP), Reason.DESTINATION_ADDRESS


def other_networks() -> Iterator[Crossed]:
    """Across a wall nothing passes, not even what has no ports, here and on another host."""
    ends: dict[str, Where] = {"here": lambda w: w.p.address, "there": lambda w: w.q.address,
                              "here, IPv6": lambda w: w.p.address6, "there, IPv6": lambda w: w.q.address6}  # fmt: skip
    for (place, target), (kind, number) in itertools.product(ends.items(), PROTOCOLS.items()):
        yield (f"{kind} to another network {place}", lambda w, t=target, n=number: said(w, own(w, t(w)), t(w), n),
               Reason.ISOLATED)  # fmt: skip


def hosts() -> Iterator[Crossed]:
    """A host is no network's: only what its wall opens."""
    ends: dict[str, Where] = {"the own host": lambda w: w.one.vtep, "the own host, IPv6": lambda w: w.one.vtep6,
                              "the own host's underlay address": lambda w: w.one.underlay,
                              "another host": lambda w: w.two.underlay}  # fmt: skip
    for (place, target), (kind, number) in itertools.product(
        ends.items(), {"TCP": TCP, "UDP": UDP, **PROTOCOLS}.items()
    ):
        yield (f"{kind} to {place}", lambda w, t=target, n=number: said(w, own(w, t(w)), t(w), n), Reason.TO_HOST)
    yield "SCTP to a tunnel's port", lambda w: said(w, w.a.address, w.two.underlay, SCTP, 64000), Reason.TO_HOST
    for kind in (5, 9, 10, 13, 17, 30):
        yield (f"ICMP type {kind} to the own host", lambda w, k=kind: p.frame(
            w.a.mac, p.ip(w.a.address, w.one.vtep, ICMP, p.icmp(k, 0))), Reason.TO_HOST)  # fmt: skip


def pieces() -> Iterator[Crossed]:
    """A fragment shows no more than its addresses, and those are judged."""
    for name, offset in {"first": 0x2000, "middle": 0x2010, "last": 0x0010, "overlapping": 0x2001}.items():
        for kind, number in WITH_PORTS.items():
            yield (f"{name} fragment of {kind} to another network", lambda w, n=number, o=offset: p.frame(
                w.a.mac, p.ipv4(w.a.address, w.q.address, n, body(n, w.a.address, w.q.address), fragment=o)),
                Reason.ISOLATED)  # fmt: skip
        yield (f"{name} IPv6 fragment to another network", lambda w, o=offset & 0x1FFF: p.frame(w.a.mac, p.ipv6(
            w.a.address6, w.q.address6, 44, p.fragment_header(UDP, offset=o, more=True) + p.MARK)),
            Reason.ISOLATED)  # fmt: skip


def hidden() -> Iterator[Crossed]:
    """IPv6 extension headers, in every order of two, hide neither a lie nor a wall."""
    for chain in itertools.permutations((0, 43, 60), 2):
        name = " and ".join(str(kind) for kind in chain)
        yield f"a lie behind {name}", lambda w, c=chain: behind(w, w.b.address6, w.c.address6, c), Reason.SOURCE_ADDRESS
        yield f"a wall behind {name}", lambda w, c=chain: behind(w, w.a.address6, w.q.address6, c), Reason.ISOLATED
        yield f"a host behind {name}", lambda w, c=chain: behind(w, w.a.address6, w.one.vtep6, c), Reason.TO_HOST


def behind(w: World, source: IPv6Address, to: IPv6Address, chain: tuple[int, ...]) -> bytes:
    following = [*chain[1:], UDP]
    headers = b"".join(p.extension(after) for after in following)
    return p.frame(w.a.mac, p.ipv6(source, to, chain[0], headers + p.udp(source, to, 80)))


ETHERTYPES = {
    "X.25": 0x0805,
    "wake on LAN": 0x0842,
    "AppleTalk": 0x809B,
    "EAPOL": 0x888E,
    "PTP": 0x88F7,
    "FCoE": 0x8906,
    "MACsec": 0x88E5,
    "TRILL": 0x22F3,
    "loopback test": 0x9000,
    "batman": 0x4305,
    "802.3 length": 0x0040,
}


def frames() -> Iterator[Crossed]:
    for name, kind in ETHERTYPES.items():
        yield name, lambda w, k=kind: p.ethernet(w.a.mac, k, bytes(60) + p.MARK), Reason.NOT_IP
    for kind in (133, 134, 136, 137):
        yield (f"ICMPv6 type {kind} to a neighbour", lambda w, k=kind: p.frame(w.a.mac, p.ipv6(
            w.a.address6, w.b.address6, ICMP6, bytes([k, 0, 0, 0]) + bytes(20) + p.MARK, hops=255)),
            Reason.LINK_LOCAL)  # fmt: skip
