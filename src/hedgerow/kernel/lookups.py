"""What the kernel would do with a packet: which route it takes, whether the next hop is known, how a link stands.

Questions for people who look for a fault, asked of the namespace that the thread is in; nothing is changed.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from . import netlink
from .netlink import Channel

Address = IPv4Address | IPv6Address

_GETNEIGH, _GETTFILTER, _GETNSID = 30, 46, 90
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY, _RTA_METRICS, _RTA_VIA = 1, 2, 3, 4, 5, 8, 18
_RTAX_MTU = 2
_NDA_DST, _NDA_LLADDR = 1, 2
_NETNSA_NSID, _NETNSA_FD = 1, 3
_TCA_KIND, _TCA_OPTIONS, _TCA_BPF_NAME, _INGRESS = 1, 2, 7, 0xFFFFFFF2
_IFLA_LINK, _IFLA_LINK_NETNSID = 5, 37
_LOWER_UP = 0x10000
_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_STATES = {
    1: "incomplete",
    2: "reachable",
    4: "stale",
    8: "delay",
    16: "probe",
    32: "failed",
    64: "noarp",
    128: "permanent",
}


@dataclass(frozen=True, slots=True)
class LinkState:
    """`has_carrier`: the other end is up, too. Of a veth, `peer_index` is the other end's, and `peer_namespace` this
    namespace's number for the one that it is in, -1: this one.
    """

    index: int
    name: str
    mac: str
    mtu_bytes: int
    is_up: bool
    has_carrier: bool
    peer_index: int = 0
    peer_namespace: int = -1


@dataclass(frozen=True, slots=True)
class RouteTo:
    """`kind` is unicast, local, blackhole, unreachable, prohibit or none. `link` is a name; `via` None: on that link.
    `mtu_bytes` is the route's own, 0 without one.
    """

    kind: str
    link: str = ""
    via: str | None = None
    mtu_bytes: int = 0


def link_state(channel: Channel, index: int) -> LinkState | None:
    """None: there is no such link. Raises OSError."""
    try:
        body = channel.ask(netlink.GETLINK, netlink.link_head(index), words=f"ip link show {index}")[0]
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENOENT):
            return None
        raise
    index, flags = struct.unpack_from("=iI", body, 4)
    found = netlink.attributes(body[16:])
    peer = found.get(_IFLA_LINK_NETNSID)
    return LinkState(
        index=index,
        name=found[netlink.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"),
        mac=found.get(netlink.IFLA_ADDRESS, b"").hex(":"),
        mtu_bytes=int.from_bytes(found[netlink.IFLA_MTU], "little"),
        is_up=bool(flags & netlink.IFF_UP),
        has_carrier=bool(flags & _LOWER_UP),
        peer_index=int.from_bytes(found.get(_IFLA_LINK, b""), "little"),
        peer_namespace=struct.unpack("=i", peer)[0] if peer else -1,
    )


def route_to(channel: Channel, address: Address, *, source: Address | None = None, came_in: int = 0) -> RouteTo:
    """Which route a packet to `address` takes; `came_in` is the index of the link of one that is forwarded."""
    is4 = isinstance(address, IPv4Address)
    family, bits = (socket.AF_INET, 32) if is4 else (socket.AF_INET6, 128)
    head = struct.pack("=BBBBBBBBI", family, bits, bits if source else 0, 0, 0, 0, 0, 0, 0)
    body = head + netlink.attribute(_RTA_DST, address.packed)
    body += netlink.attribute(_RTA_SRC, source.packed) if source else b""
    body += netlink.number(_RTA_IIF, came_in) if came_in else b""
    try:
        answer = channel.ask(netlink.GETROUTE, body, words=f"ip route get {address}")[0]
    except OSError as error:
        kinds = {errno.EHOSTUNREACH: "unreachable", errno.EINVAL: "blackhole", errno.EACCES: "prohibit"}
        return RouteTo(kinds.get(error.errno or 0, "none"))
    found = netlink.attributes(answer[12:])
    gateway = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[2:]
    metrics = netlink.attributes(found.get(_RTA_METRICS, b""))
    return RouteTo(
        kind=_KINDS.get(answer[7], str(answer[7])),
        link=name_of(int.from_bytes(found.get(_RTA_OIF, b""), "little")),
        via=str(ip_address(gateway)) if gateway else None,
        mtu_bytes=int.from_bytes(metrics.get(_RTAX_MTU, b""), "little"),
    )


def neighbour(channel: Channel, index: int, address: Address) -> tuple[str, str]:
    """State (reachable, failed, permanent, ...; empty: nobody asked for it yet) and MAC of a next hop."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    head = struct.pack("=BxxxiHBB", family, index, 0, 0, 0)
    try:
        answer = channel.ask(_GETNEIGH, head + netlink.attribute(_NDA_DST, address.packed), words="ip neighbour get")[0]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return "", ""
        raise
    (state,) = struct.unpack_from("=H", answer, 8)
    return _STATES.get(state, str(state)), netlink.attributes(answer[12:]).get(_NDA_LLADDR, b"").hex(":")


def namespace_number(channel: Channel, namespace: int) -> int:
    """This namespace's number for the one that the descriptor is of; -1: it has none, so no link leads there."""
    body = struct.pack("=Bxxx", socket.AF_UNSPEC) + netlink.attribute(_NETNSA_FD, struct.pack("=I", namespace))
    answer = channel.ask(_GETNSID, body, words="ip netns list-id")[0]
    return int(struct.unpack("=i", netlink.attributes(answer[4:])[_NETNSA_NSID])[0])


def filters(channel: Channel, index: int) -> list[tuple[int, str]]:
    """What classifies packets at a link's ingress, ours among them: priority, and its kind or its program's name."""
    head = struct.pack("=BxxxiIII", socket.AF_UNSPEC, index, 0, _INGRESS, 0)
    try:
        bodies = channel.ask(_GETTFILTER, head, dump=True, words=f"tc filter show dev {index} ingress")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENODEV):  # it has no such place
            return []
        raise
    found = []
    for body in bodies:
        (info,) = struct.unpack_from("=I", body, 16)
        known = netlink.attributes(body[20:])
        name = netlink.attributes(known.get(_TCA_OPTIONS, b"")).get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode()
        kind = known.get(_TCA_KIND, b"").rstrip(b"\0").decode()
        found.append((info >> 16, f"{kind} {name}".strip()))
    return found


def name_of(index: int) -> str:
    """Of a link; empty for 0. One that is gone is called by its number."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"link {index}, which is gone" if index else ""
