"""Routes from the host to its containers: each network's subnet by way of hr-host.

Not only our own blocks: an address of another host's must be refused by the data path, not leave by the default route.
Ours: protocol number 72.   Needs: hr-host.   Missing: answers from outside do not come back to containers.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from hedgerow.agent.objects import HOST_LINK, ONLINK_VIA, ONLINK_VIA6, HostRoute, Kind
from hedgerow.kernel import links, netlink
from hedgerow.kernel.netlink import PROTO_OURS, Channel, Route
from hedgerow.model.endpoint import Address, Subnet
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Remove, Set

_VIA: dict[int, Address] = {4: ONLINK_VIA, 6: ONLINK_VIA6}
_ELSEWHERE: dict[int, Address] = {4: IPv4Address("0.0.0.0"), 6: IPv6Address("::")}
"""Stands for a route of ours that leads somewhere else: it is never what is wanted."""


class Routes:
    kind = Kind.ROUTE

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self) -> Rows:
        index = links.index_of(HOST_LINK)
        found: dict[Key, object] = {}
        for route in self._ours():
            version = route.to.version
            right = route.index == index and route.via == _VIA[version]
            found[Key(self.kind, str(route.to))] = HostRoute(route.to, route.source if right else _ELSEWHERE[version])
        return found

    def _ours(self) -> list[Route]:
        return [route for version in (4, 6) for route in links.routes(self._channel, version, protocol=PROTO_OURS)]

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, _, HostRoute(to, source)):
                self._channel.send(netlink.replace_route(_route(to, links.index_of(HOST_LINK), source)))
            case Remove(_, HostRoute(to)):
                for route in self._ours():
                    if route.to == to:
                        self._channel.send(netlink.delete_route(route))


def _route(to: Subnet, index: int, source: Address | None) -> Route:
    return Route(to, index, via=_VIA[to.version], source=source, onlink=True, protocol=PROTO_OURS)
