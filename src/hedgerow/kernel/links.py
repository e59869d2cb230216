"""Links, addresses and routes of a namespace: what is there, and the tunnel's device.

Dumps are asked for with the kernel's own filters (strict checking, kernel 4.20), so looking after a handful of objects
stays cheap on a host with thousands.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from . import netlink
from .netlink import Channel, IPAddress, IPNetwork, Request, Route, family_of

_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PORT, _IFLA_VXLAN_METADATA = 7, 15, 25
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_NO_STATISTICS = netlink.number(29, 8)  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS: they are most of a link's answer
_GROUPS = 1 | 8 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, _TC, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_ of both
_NETCONF_GROUPS = 1 << 23 | 1 << 24  # RTNLGRP_IPV4_NETCONF, _IPV6_NETCONF


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel shows it. `tunnel_port` is that of a VXLAN device in external mode, else None."""

    index: int
    name: str
    mac: bytes
    mtu_bytes: int
    is_up: bool
    kind: str = ""
    tunnel_port: int | None = None


def index_of(name: str) -> int:
    """0: there is no such link."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def find(channel: Channel, name: str) -> Link | None:
    """Raises OSError for anything but a missing link."""
    index = index_of(name)
    if not index:
        return None
    try:
        answer = channel.ask(netlink.GETLINK, netlink.link_head(index) + _NO_STATISTICS, words=f"ip link show {name}")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):  # gone since
            return None
        raise
    return _link(answer[0])


def dump(channel: Channel) -> dict[int, Link]:
    """All links by index."""
    bodies = channel.ask(netlink.GETLINK, netlink.link_head() + _NO_STATISTICS, dump=True, words="ip link show")
    return {link.index: link for link in map(_link, bodies)}


def _link(body: bytes) -> Link:
    index, flags = struct.unpack_from("=iI", body, 4)
    found = netlink.attributes(body[16:])
    info = netlink.attributes(found.get(netlink.IFLA_LINKINFO, b""))
    data = netlink.attributes(info.get(netlink.IFLA_INFO_DATA, b""))
    port = None
    if data.get(_IFLA_VXLAN_METADATA) == b"\1":
        port = int.from_bytes(data[_IFLA_VXLAN_PORT])
    return Link(
        index=index,
        name=_string(found[netlink.IFLA_IFNAME]),
        mac=found.get(netlink.IFLA_ADDRESS, b""),
        mtu_bytes=int.from_bytes(found[netlink.IFLA_MTU], "little"),
        is_up=bool(flags & netlink.IFF_UP),
        kind=_string(info.get(netlink.IFLA_INFO_KIND, b"")),
        tunnel_port=port,
    )


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")  # a name is any bytes, and containers give links theirs


def remove(channel: Channel, index: int) -> None:
    """What is gone already is removed. Waits some 30 ms, for RCU. Raises OSError."""
    try:
        channel.send(netlink.delete_link(index))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def new_tunnel(name: str, *, mac: bytes, mtu: int, port: int) -> Request:
    """A VXLAN device in external mode: one for all networks, each packet brings its own key."""
    data = (
        netlink.attribute(_IFLA_VXLAN_METADATA, b"\1")
        + netlink.attribute(_IFLA_VXLAN_LEARNING, b"\0")
        + netlink.attribute(_IFLA_VXLAN_PORT, port.to_bytes(2))
    )
    return netlink.new_link(name, "vxlan", mac=mac, mtu=mtu, data=data)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: its link, and the subnet that is on that link by it."""

    index: int
    subnet: IPNetwork


def addresses(channel: Channel, index: int = 0, version: int = 4) -> dict[IPAddress, Place]:
    """The namespace's addresses of one IP version; with `index` only those of one link."""
    head = struct.pack("=BBBBI", family_of(version), 0, 0, 0, index)
    found: dict[IPAddress, Place] = {}
    for body in channel.ask(netlink.GETADDR, head, dump=True, words="ip address show"):
        known = netlink.attributes(body[8:])
        local = known.get(_IFA_LOCAL) or known.get(_IFA_ADDRESS)  # IPv6 says it only where the link has a peer
        if local:
            (holder,) = struct.unpack_from("=I", body, 4)
            found[ip_address(local)] = Place(holder, ip_network((local, body[1]), strict=False))
    return found


def routes(channel: Channel, version: int = 4, *, index: int = 0, protocol: int = 0) -> list[Route]:
    """Routes of the main table of one IP version, those of one link and one protocol if named."""
    head = struct.pack("=BBBBBBBBI", family_of(version), 0, 0, 0, 254, protocol, 0, 0, 0)
    only = netlink.number(_RTA_OIF, index) if index else b""
    bodies = channel.ask(netlink.GETROUTE, head + only, dump=True, words="ip route show")
    return [_route(body) for body in bodies]


def _route(body: bytes) -> Route:
    length, protocol = body[1], body[5]
    (flags,) = struct.unpack_from("=I", body, 8)
    found = netlink.attributes(body[12:])
    to = ip_address(found.get(_RTA_DST, bytes(4 if body[0] == socket.AF_INET else 16)))
    via, source = found.get(_RTA_GATEWAY), found.get(_RTA_PREFSRC)
    return Route(
        to=ip_network((to, length)),
        index=int.from_bytes(found.get(_RTA_OIF, b""), "little"),
        via=ip_address(via) if via else None,
        source=ip_address(source) if source else None,
        onlink=bool(flags & 4),
        protocol=protocol,
    )


def events() -> socket.socket:
    """Readable when a link, a traffic filter, an address, a route or a link's forwarding changes in this namespace."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    channel.bind((0, _GROUPS | _NETCONF_GROUPS))
    channel.setblocking(False)
    return channel
