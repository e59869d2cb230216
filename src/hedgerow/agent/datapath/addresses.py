"""Addresses of the host that its containers know: the gateways of the networks, DNS, and the VTEP's own.

Ours: every address on hr-host.   Needs: hr-host.   Missing: a container gets no answer from its gateway.
"""

from __future__ import annotations

from collections.abc import Sequence

from hedgerow.agent.objects import HOST_LINK, HostAddress, Kind
from hedgerow.kernel import links, netlink, sysctl
from hedgerow.kernel.netlink import Channel
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Remove, Set


class Addresses:
    kind = Kind.ADDRESS

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self) -> Rows:
        index = links.index_of(HOST_LINK)
        if not index:
            return {}
        found = [address for version in (4, 6) for address in links.addresses(self._channel, index, version)]
        return {Key(self.kind, str(address)): HostAddress(address) for address in found}

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        index = links.index_of(HOST_LINK)
        match op:
            case Set(_, _, HostAddress(address)):
                if address.version == 6:
                    sysctl.check_ipv6(HOST_LINK)
                self._channel.send(netlink.replace_address(index, address))
            case Remove(_, HostAddress(address)) if index:
                self._channel.send(netlink.delete_address(index, address))
