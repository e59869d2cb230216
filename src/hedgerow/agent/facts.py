"""Facts: what this host's kernel has for one flow, for `hedgerow why`. Looked up, never listed: with a hundred thousand
rows in the maps it takes as long as with ten.

Blocking, for a thread of its own: a container that starts must not wait behind it. Maps may be read from any thread.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

from hedgerow.errors import HedgerowError
from hedgerow.kernel import bpf, chains, links, listeners, lookups, netns, nsfs, sysctl
from hedgerow.kernel.flows import GROUP_CLOSED, AllowFlag, AllowKey
from hedgerow.kernel.listeners import Listener
from hedgerow.kernel.lookups import RouteTo
from hedgerow.kernel.maps import ConfigFlag, Maps, PortFlag, PrefixRow
from hedgerow.kernel.netlink import Channel
from hedgerow.why.facts import (
    CURRENT,
    NONE,
    OTHER,
    AddressRows,
    Attachment,
    HostFacts,
    Inside,
    PortRow,
    Question,
    Settings,
    Stack,
    Underlay,
)

from .objects import HOST_LINK, HOST_PEER, TABLE, TUNNEL_LINK, Local, Placed

Address = IPv4Address | IPv6Address

_NAMED = (Path("/run/docker/netns"), Path("/run/netns"))
"""Where engines keep namespaces that no process may be in."""
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
_TUNNEL_HOOKS = ("ingress", "egress", "input", "output", "prerouting", "postrouting")
"""What the VXLAN device's packets come by; those of the fast way meet no chain."""
_MAX_LISTENERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What is known of this host without looking: `programs` are the ids of those that this process loaded."""

    name: str
    maps: Maps
    local: Local
    programs: Mapping[str, int]
    placed: tuple[Placed, ...]
    faults: tuple[str, ...]


def look(here: Here, question: Question) -> HostFacts:
    """Raises OSError when the kernel cannot be asked."""
    ends = [ip_address(question.source), ip_address(question.destination)]
    with Channel() as channel:
        attached = [_attachment(here, channel, one, other) for one, other in (ends, ends[::-1])]
        is_outside = attached[0] is not None and not question.peer and attached[1] is None
        source, destination = attached
        if destination is not None and destination.inside is not None:
            destination = _with_listeners(destination, question.protocol)
        return HostFacts(
            agent=here.name,
            underlay=_underlay(here, channel, question.peer),
            settings=_settings(here.maps),
            programs=_programs(here),
            rows={str(one): _rows(here.maps, one) for one in ends},
            opens=_opens(here.maps, ends[0], ends[1], question),
            faults=here.faults,
            source=source,
            destination=destination,
            stack=_stack(channel, ends[0], ends[1]) if is_outside else None,
        )


def place_of(here: Here, address: Address) -> str:
    """A path of the network namespace of the endpoint that has the address; empty when none can be found."""
    placed = _placed(here, address)
    index = links.index_of(placed.endpoint.link) if placed is not None else 0
    if placed is None or not index:
        return ""
    with Channel() as channel:
        link = lookups.link_state(channel, index)
        return _place(channel, placed, link.peer_namespace) if link is not None else ""


def _placed(here: Here, address: Address) -> Placed | None:
    return next((one for one in here.placed if address in one.endpoint.addresses), None)


def _underlay(here: Here, channel: Channel, peer: str) -> Underlay:
    index = links.index_of(here.local.link)
    link = lookups.link_state(channel, index) if index else None
    if not peer:
        return Underlay(link=link)
    address = ip_address(peer)
    route = lookups.route_to(channel, address)
    hop = ip_address(route.via) if route.via else address
    out = links.index_of(route.link)
    return Underlay(
        link=link,
        route=route,
        neighbour=lookups.neighbour(channel, out, hop) if out else ("", ""),
        knows_peer=here.maps.agents.get(address) is not None,
        before=_before(channel, index),
        chains=() if here.local.fast else chains.dropping(_TUNNEL_HOOKS, but=TABLE),
    )


def _settings(maps: Maps) -> Settings | None:
    row = maps.host.get(0)
    if row is None or not row.tunnel_ifindex:
        return None
    return Settings(
        tunnel_link=lookups.name_of(row.tunnel_ifindex),
        underlay_link=lookups.name_of(row.underlay_ifindex),
        underlay=str(row.underlay),
        inner_mtu_bytes=row.inner_mtu_bytes,
        port=row.tunnel_port,
        fast=ConfigFlag.FAST in row.flags,
    )


def _programs(here: Here) -> dict[str, str]:
    wanted = {here.local.link: "from_underlay", TUNNEL_LINK: "from_tunnel", HOST_PEER: "from_container"}
    return {link: _program(here, links.index_of(link), program) for link, program in wanted.items()}


def _program(here: Here, index: int, program: str) -> str:
    attached = bpf.attached_id(index) if index else 0
    return NONE if not attached else CURRENT if attached == here.programs[program] else OTHER


def _before(channel: Channel, index: int) -> tuple[str, ...]:
    """Others' filters at the link's ingress that see packets before ours, and may keep them."""
    found = lookups.filters(channel, index) if index else []
    return tuple(dict.fromkeys(f"{name}, priority {order}" for order, name in found if order < bpf.PRIORITY))


def _rows(maps: Maps, address: Address) -> AddressRows:
    endpoint, prefix = maps.endpoints.get(address), _prefix(maps, address)
    return AddressRows(
        link=lookups.name_of(endpoint.ifindex) if endpoint else "",
        mac=endpoint.mac.hex(":") if endpoint else "",
        vni=endpoint.vni if endpoint else 0,
        kind=prefix.kind.name.lower() if prefix else "",
        prefix_vni=prefix.vni if prefix else 0,
        agent=str(prefix.agent) if prefix and prefix.agent else "",
        outer=_outer(prefix.template) if prefix and prefix.template else None,
        group=_group(maps, address),
    )


def _prefix(maps: Maps, address: Address) -> PrefixRow | None:
    """The longest that has the address, as the data path finds it."""
    return maps.prefixes.get(ip_network(address))


def _outer(template: bytes) -> tuple[str, str, int]:
    """Of the IPv4 header and the UDP header that precede a packet."""
    source, destination = IPv4Address(template[12:16]), IPv4Address(template[16:20])
    return str(source), str(destination), struct.unpack_from("!H", template, 22)[0]


def _group(maps: Maps, address: Address) -> int:
    endpoint = maps.endpoints.get(address)
    if endpoint is not None:
        return endpoint.group
    prefix = _prefix(maps, address)
    if prefix is None:
        return 0
    member = maps.members.get(address) if prefix.group & GROUP_CLOSED else None
    return member.group if member is not None else prefix.group


def _opens(maps: Maps, source: Address, destination: Address, question: Question) -> bool:
    """Whether the rows let the source begin, as the data path would decide for a packet that belongs to no flow yet."""
    one, other = _group(maps, source), _group(maps, destination)
    if one == other and not one & GROUP_CLOSED:
        return True
    row = maps.allowed.get(AllowKey(one, other))
    if row is None:
        return False
    protocol = _PROTOCOLS[question.protocol]
    covers = (each.protocol in (0, protocol) and each.low <= question.port <= each.high for each in row.ranges)
    return AllowFlag.BOTH in row.flags or any(covers)


def _attachment(here: Here, channel: Channel, address: Address, other: Address) -> Attachment | None:
    """The endpoint that has the address, when it is one of this host."""
    placed = _placed(here, address)
    if placed is None:
        return None
    name, index = placed.endpoint.link, links.index_of(placed.endpoint.link)
    link = lookups.link_state(channel, index) if index else None
    if link is None:
        return Attachment(name=name, link=None)
    row = here.maps.ports.get(index)
    port = None
    if row is not None:
        addresses = tuple(str(one) for one in (row.address, row.address6) if one is not None)
        port = PortRow(
            vni=row.vni, mac=row.mac.hex(":"), addresses=addresses, is_internal=PortFlag.INTERNAL in row.flags
        )
    place = _place(channel, placed, link.peer_namespace)
    inside = _inside(place, link.peer_index, other) if place else None
    return Attachment(
        name=name,
        link=link,
        program=_program(here, index, "from_container"),
        before=_before(channel, index),
        port=port,
        inside=inside,
    )


def _inside(place: str, index: int, other: Address) -> Inside:
    with netns.inside(place), Channel() as channel:
        link = lookups.link_state(channel, index)
        addresses = [one for version in (4, 6) for one in links.addresses(channel, index, version)] if link else []
        return Inside(
            place=place,
            link=link,
            addresses=tuple(map(str, addresses)),
            route=lookups.route_to(channel, other),
            firewall=chains.dropping(("input", "output", "prerouting", "postrouting", "ingress", "egress")),
        )


def _with_listeners(attachment: Attachment, protocol: str) -> Attachment:
    inside = attachment.inside
    if inside is None or protocol == "icmp":
        return attachment
    found: tuple[Listener, ...] | None = None
    with contextlib.suppress(OSError), netns.inside(inside.place):
        heard = listeners.listeners(protocol)[:_MAX_LISTENERS]
        found = tuple(listeners.with_processes(heard, Path(inside.place).stat().st_ino))
    return replace(attachment, inside=replace(inside, listeners=found))


def _place(channel: Channel, placed: Placed, number: int) -> str:
    """A path of the namespace that the link's other end is in; empty when there is none to be found.

    An engine that moves the end itself does not say where to: the kernel has a number for it, and knows the number of
    every namespace that can be seen in /proc or where engines keep them.
    """
    if placed.netns:
        with contextlib.suppress(HedgerowError, OSError), nsfs.opened(placed.netns) as known:
            if placed.endpoint.netns_inode in (0, nsfs.inode(known)):
                return placed.netns
    return next(_searched(channel, number), "") if number >= 0 else ""


def _searched(channel: Channel, number: int) -> Iterator[str]:
    for path in _namespaces():
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if lookups.namespace_number(channel, fd) == number:
                    yield path
            finally:
                os.close(fd)


def _namespaces() -> Iterator[str]:
    """One path of each network namespace."""
    seen = {netns.OWN.stat().st_ino}
    for path in (*_processes(), *_kept()):
        with contextlib.suppress(OSError):
            inode = Path(path).stat().st_ino
            if inode not in seen:
                seen.add(inode)
                yield path


def _processes() -> Iterator[str]:
    return (f"{entry}/ns/net" for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _kept() -> Iterable[str]:
    for place in _NAMED:
        with contextlib.suppress(OSError):
            yield from map(str, place.iterdir())


def _stack(channel: Channel, source: Address, destination: Address) -> Stack:
    came_in = links.index_of(HOST_LINK)
    route = lookups.route_to(channel, destination, source=source, came_in=came_in) if came_in else RouteTo("none")
    return Stack(
        forwarding_off=next((name for name in _forwarding(source, route) if sysctl.read(name) == "0"), ""),
        has_table=bool(chains.has_table("inet", TABLE)),
        route=route,
        chains=chains.dropping(("forward", "prerouting", "postrouting"), but=TABLE),
    )


def _forwarding(source: Address, route: RouteTo) -> Iterator[str]:
    """What the kernel asks: of IPv4 the link by which a packet comes in, be it the answer's, of IPv6 one for all."""
    if isinstance(source, IPv4Address):
        yield from (f"ipv4/conf/{link}/forwarding" for link in (HOST_LINK, route.link) if link)
    else:
        yield "ipv6/conf/all/forwarding"
