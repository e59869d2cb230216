"""The container's side of an endpoint: its interface's addresses and routes.

An address is a /32, or a /128: no neighbour is on the link but the gateway. The network's subnet leads to the gateway,
and so does everything else when the interface is the first and the network has a way out. IPv6 addresses are not looked
for at others (nobody else is on the link), and advertisements of routers are not listened to.
"""

from __future__ import annotations

from collections.abc import Collection

from hedgerow.errors import NotFound
from hedgerow.kernel import links, netlink, netns, sysctl
from hedgerow.kernel.netlink import Channel, Route
from hedgerow.model.endpoint import Address

from .objects import Inside

_LOOPBACK = 1


def set_up(namespace: int, inside: Inside, addresses: Collection[Address]) -> None:
    """`namespace` is a descriptor; the interface is there and down. Raises OSError, Refused without IPv6 where the
    network has it.
    """
    with netns.inside(f"/proc/self/fd/{namespace}"):
        channel, index = Channel(), links.index_of(inside.ifname)
        ipv6 = sysctl.has_ipv6(inside.mtu_bytes)
        if any(address.version == 6 for address in addresses):
            sysctl.check_ipv6(inside.ifname)
            sysctl.turn_on_ipv6(inside.ifname)
            sysctl.trust_no_router(inside.ifname)
    with channel:
        quiet = [netlink.without_link_local(index)] if ipv6 else []
        channel.send(
            netlink.set_up(_LOOPBACK),
            *quiet,
            *(netlink.replace_address(index, address) for address in addresses),
            netlink.set_up(index),
            *(netlink.replace_route(route) for route in _routes(inside, index)),
        )


def missing(namespace: int, inside: Inside, addresses: Collection[Address], mac: bytes) -> str:
    """What the container lacks, in words; empty when all is there. Raises OSError, NotFound without the interface."""
    with netns.inside(f"/proc/self/fd/{namespace}"):
        channel, index = Channel(), links.index_of(inside.ifname)
    with channel:
        if not index:
            raise NotFound(f"the container has no interface {inside.ifname}", "start the container anew")
        link = links.dump(channel).get(index)
        if link is None:
            raise NotFound(f"the container's interface {inside.ifname} has just gone", "start the container anew")
        if link.mac != mac:
            return f"MAC address {mac.hex(':')}, {inside.ifname} has {link.mac.hex(':')}"
        if not link.is_up:
            return f"{inside.ifname} up, it is down"
        for address in addresses:
            if address not in links.addresses(channel, index, address.version):
                return f"address {address} on {inside.ifname}"
        versions = {address.version for address in addresses}
        present = {
            (route.to, route.via) for version in versions for route in links.routes(channel, version, index=index)
        }
        absent = [route for route in _routes(inside, index) if (route.to, route.via) not in present]
        return f"route {absent[0].to} by {inside.ifname}" if absent else ""


def _routes(inside: Inside, index: int) -> list[Route]:
    return [Route(to, index, via=via) for to, via in inside.routes]
