"""Route netlink packed by hand, for the path where a container waits.

A request is the words one could type and the bytes of it. Several requests travel in one message and are answered
together: five of them take 0.2 ms, where a general library takes 0.5 to 2.5 ms for each. Only what an agent needs is
here (rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_link.h, linux/veth.h).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from .bpf import HANDLE, PRIORITY

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWQDISC, DELQDISC, NEWTFILTER, DELTFILTER = 36, 37, 44, 45
NEWNETCONF, ALL_LINKS = 80, -1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD = 1, 3, 4, 18, 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFF_UP = 1
IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PROTO_OURS = 72
"""Routing protocol number of our routes in a host's namespace, and our mark on them; nobody's in iproute2's list."""

_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _DUMP = 1, 4, 0x100, 0x200, 0x400, 0x300
_NLMSG_ERROR, _NLMSG_DONE, _DUMP_INTR = 2, 3, 0x10
_TRIES = 10
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_ACK_TLVS, _EXT_ACK_MESSAGE = 0x200, 1
_VETH_INFO_PEER, _ADDR_GEN_MODE, _GEN_MODE_NONE = 1, 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_TABLE_MAIN, _PROTO_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST, _ONLINK = 254, 4, 0, 253, 1, 4
_CLSACT, _CLSACT_HANDLE, _INGRESS, _ALL_PROTOCOLS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2, 3
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _DIRECT_ACTION = 1, 2, 6, 7, 8, 1
_NETCONF_INDEX, _NETCONF_FORWARDING = 1, 2
_BUFFER_BYTES = 1 << 16


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message's body, flags of the kind (nested, byte order) taken off."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


@dataclass(frozen=True, slots=True)
class Request:
    """One change. `words` is the command that does the same, for the log and for errors."""

    words: str
    kind: int
    flags: int
    body: bytes


def link_head(index: int = 0, flags: int = 0, change: int | None = None) -> bytes:
    """struct ifinfomsg. `change`: which of the flags to touch, those that are set unless said."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags if change is None else change)


def new_link(name: str, kind: str, *, mac: bytes, mtu: int, data: bytes) -> Request:
    """A link that is down. `data`: the kind's own attributes."""
    info = text(IFLA_INFO_KIND, kind) + attribute(IFLA_INFO_DATA, data)
    body = link_head() + text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, mac) + number(IFLA_MTU, mtu)
    words = f"ip link add {name} address {mac.hex(':')} mtu {mtu} type {kind}"
    return Request(words, NEWLINK, _CREATE | _EXCL, body + attribute(IFLA_LINKINFO, info))


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth pair: born in `namespace` (a descriptor), else beside the first."""

    name: str
    mac: bytes
    namespace: int | None = None


def new_veth(name: str, mac: bytes, mtu: int, peer: Peer) -> Request:
    """Both ends are down."""
    inner = link_head() + text(IFLA_IFNAME, peer.name) + attribute(IFLA_ADDRESS, peer.mac) + number(IFLA_MTU, mtu)
    if peer.namespace is not None:
        inner += number(IFLA_NET_NS_FD, peer.namespace)
    return new_link(name, "veth", mac=mac, mtu=mtu, data=attribute(_VETH_INFO_PEER, inner))


def set_up(index: int) -> Request:
    return Request(f"ip link set {index} up", SETLINK, 0, link_head(index, IFF_UP))


def set_mtu(index: int, mtu: int) -> Request:
    return Request(f"ip link set {index} mtu {mtu}", SETLINK, 0, link_head(index) + number(IFLA_MTU, mtu))


def without_link_local(index: int) -> Request:
    """A host's end needs no fe80 address, and each would say so to its container. Only where the link has IPv6."""
    mode = attribute(socket.AF_INET6, attribute(_ADDR_GEN_MODE, struct.pack("=B", _GEN_MODE_NONE)))
    body = link_head(index) + attribute(IFLA_AF_SPEC, mode)
    return Request(f"ip link set {index} addrgenmode none", SETLINK, 0, body)


def delete_link(index: int) -> Request:
    return Request(f"ip link delete {index}", DELLINK, 0, link_head(index))


def attach_program(index: int, program: int) -> tuple[Request, Request]:
    """At the ingress of a link that is new; `program` is a descriptor. As `bpf.attach_clsact`, which takes twice as
    long, since libbpf opens sockets of its own. Replacing is left to that one.
    """
    head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, index, _CLSACT_HANDLE, _CLSACT, 0)
    clsact = Request(f"tc qdisc add dev {index} clsact", NEWQDISC, _CREATE | _EXCL, head + text(_TCA_KIND, "clsact"))
    options = number(_TCA_BPF_FD, program) + text(_TCA_BPF_NAME, "hedgerow") + number(_TCA_BPF_FLAGS, _DIRECT_ACTION)
    body = _filter(index) + attribute(_TCA_OPTIONS, options)
    words = f"tc filter add dev {index} ingress prio {PRIORITY} handle {HANDLE:#x} bpf direct-action fd {program}"
    return clsact, Request(words, NEWTFILTER, _CREATE | _EXCL, body)


def delete_program(index: int) -> Request:
    """Ours alone: the link's clsact may be somebody else's too."""
    words = f"tc filter delete dev {index} ingress prio {PRIORITY} handle {HANDLE:#x} bpf"
    return Request(words, DELTFILTER, 0, _filter(index))


def _filter(index: int) -> bytes:
    """struct tcmsg of our handle and priority, all protocols."""
    priority = PRIORITY << 16 | socket.htons(_ALL_PROTOCOLS)
    return struct.pack("=BxxxiIII", socket.AF_UNSPEC, index, HANDLE, _INGRESS, priority) + text(_TCA_KIND, "bpf")


def family_of(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _address(index: int, address: IPAddress) -> bytes:
    """IPv6 without duplicate address detection: nobody else is on such a link, and till its end nothing can be sent."""
    flags = _IFA_F_NODAD if address.version == 6 else 0
    head = struct.pack("=BBBBI", family_of(address.version), address.max_prefixlen, flags, _SCOPE_UNIVERSE, index)
    return head + attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)


def replace_address(index: int, address: IPAddress) -> Request:
    words = f"ip address replace {address}/{address.max_prefixlen} dev {index}"
    return Request(words, NEWADDR, _CREATE | _REPLACE, _address(index, address))


def delete_address(index: int, address: IPAddress) -> Request:
    words = f"ip address delete {address}/{address.max_prefixlen} dev {index}"
    return Request(words, DELADDR, 0, _address(index, address))


@dataclass(frozen=True, slots=True)
class Route:
    """`via` None: what is on the link itself. `source` None: the kernel chooses. `onlink`: `via` needs no route."""

    to: IPNetwork
    index: int
    via: IPAddress | None = None
    source: IPAddress | None = None
    onlink: bool = False
    protocol: int = _PROTO_STATIC

    def __str__(self) -> str:
        via, source = (f" {word} {value}" if value else "" for word, value in (("via", self.via), ("src", self.source)))
        return f"{self.to}{via} dev {self.index}{' onlink' if self.onlink else ''}{source} proto {self.protocol}"


def _route(route: Route) -> bytes:
    scope = _SCOPE_UNIVERSE if route.via else _SCOPE_LINK
    length, protocol = route.to.prefixlen, route.protocol
    flags = _ONLINK if route.onlink else 0
    family = family_of(route.to.version)
    head = struct.pack("=BBBBBBBBI", family, length, 0, 0, _TABLE_MAIN, protocol, scope, _UNICAST, flags)
    body = attribute(_RTA_DST, route.to.network_address.packed) if length else b""
    body += attribute(_RTA_GATEWAY, route.via.packed) if route.via else b""
    body += attribute(_RTA_PREFSRC, route.source.packed) if route.source else b""
    return head + body + number(_RTA_OIF, route.index)


def replace_route(route: Route) -> Request:
    return Request(f"ip route replace {route}", NEWROUTE, _CREATE | _REPLACE, _route(route))


def delete_route(route: Route) -> Request:
    return Request(f"ip route delete {route}", DELROUTE, 0, _route(route))


@dataclass(frozen=True, slots=True)
class Event:
    """A message that the kernel sends unasked: what, of which link, and what tells whether it concerns us.

    Of NEWNETCONF `is_up` says whether the link forwards, and the index may be ALL_LINKS. `is_ipv6` is of addresses.
    """

    kind: int
    index: int = 0
    link: str = ""
    is_up: bool = False
    protocol: int = 0
    is_bridge: bool = False
    is_ipv6: bool = False


def messages(data: bytes) -> Iterator[Event]:
    """The events in what was received. Kinds that are not told apart come with their kind alone."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        yield _event(kind, data[offset + 16 : offset + length])
        offset += max((length + 3) & ~3, 16)


def _event(kind: int, body: bytes) -> Event:
    if len(body) < 12:  # shorter than the head of any kind that is told apart
        return Event(kind)
    if kind in (NEWLINK, DELLINK):
        index, flags = struct.unpack_from("=iI", body, 4)
        # A name is any bytes, and others give links theirs.
        found = attributes(body[16:])
        name = found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        info = attributes(found.get(IFLA_LINKINFO, b""))
        is_bridge = info.get(IFLA_INFO_KIND, b"").rstrip(b"\0") == b"bridge"
        return Event(kind, index, name, bool(flags & IFF_UP), is_bridge=is_bridge)
    if kind in (NEWADDR, DELADDR):
        return Event(kind, int(struct.unpack_from("=i", body, 4)[0]), is_ipv6=body[0] == socket.AF_INET6)
    if kind == DELROUTE:
        return Event(kind, protocol=body[5])
    if kind == NEWNETCONF:
        found = attributes(body[4:])
        index, forwards = (found.get(each) for each in (_NETCONF_INDEX, _NETCONF_FORWARDING))
        return Event(kind, int.from_bytes(index or b"", "little", signed=True), is_up=forwards != bytes(4))
    if kind in (DELQDISC, DELTFILTER):
        return Event(kind, int(struct.unpack_from("=i", body, 4)[0]))
    return Event(kind)


class Channel:
    """A socket into the namespace that the thread is in when it is opened. One thread uses it at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, *requests: Request) -> None:
        """All requests in one system call. Raises the first OSError; later requests were still carried out."""
        if not requests:
            return
        start = self._sequence
        frames = (self._frame(r.kind, r.flags | _ACK, r.body) for r in requests)
        self._socket.send(b"".join(frames))
        waiting, fault = len(requests), None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind != _NLMSG_ERROR or not start < sequence <= self._sequence:
                    continue
                waiting -= 1
                error = _error(body, flags, requests[sequence - start - 1].words)
                fault = fault or error
        if fault:
            raise fault

    def ask(self, kind: int, body: bytes, *, dump: bool = False, words: str = "netlink") -> list[bytes]:
        """The bodies of the answers: one, or (dump) all that fit.

        Raises OSError, also when a list changed on its way each time it was asked for: links may be missing from it.
        """
        for _ in range(_TRIES):
            found, is_whole = self._ask(kind, body, dump, words)
            if is_whole:
                return found
        raise InterruptedError(errno.EINTR, f"{words}: it changed while it was read, {_TRIES} times")

    def _ask(self, kind: int, body: bytes, dump: bool, words: str) -> tuple[list[bytes], bool]:
        """The bodies, and whether they are of one moment."""
        start, is_whole = self._sequence, True
        self._socket.send(self._frame(kind, _DUMP if dump else 0, body))
        found: list[bytes] = []
        while True:
            for answer, flags, sequence, payload in self._receive():
                if sequence != start + 1:
                    continue
                is_whole = is_whole and not flags & _DUMP_INTR
                if answer == _NLMSG_DONE:
                    return found, is_whole
                if answer == _NLMSG_ERROR:
                    raise _error(payload, flags, words) or OSError(0, words)
                found.append(payload)
            if not dump and found:
                return found, True

    def _frame(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return struct.pack("=IHHII", len(body) + 16, kind, flags | _REQUEST, self._sequence, 0) + body

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data, offset = self._socket.recv(_BUFFER_BYTES), 0
        while offset < len(data):
            length, kind, flags, sequence = struct.unpack_from("=IHHI", data, offset)
            yield kind, flags, sequence, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _error(body: bytes, flags: int, words: str) -> OSError | None:
    """struct nlmsgerr; with capped acknowledgements the kernel's own words follow the request's header."""
    (code,) = struct.unpack_from("=i", body)
    if not code:
        return None
    said = attributes(body[20:]).get(_EXT_ACK_MESSAGE, b"") if flags & _ACK_TLVS else b""
    reason = said.rstrip(b"\0").decode(errors="replace") or os.strerror(-code)
    return OSError(-code, f"{words}: {reason}")
