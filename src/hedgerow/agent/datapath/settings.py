"""Settings: what the programs must know of their host, and what the host itself may send.

Ours: the map "host", and hr-peer's row of "ports".   Needs: hedge0, hr-host.   Missing: every packet is dropped, reason
not_set_up.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from hedgerow.agent.objects import CONFIG_HOST, CONFIG_PORT, HOST_LINK, HOST_PEER, HostPort, HostSettings, Kind
from hedgerow.errors import HedgerowError
from hedgerow.kernel import links
from hedgerow.kernel.maps import ConfigFlag, HostConfig, Maps, Port, PortFlag
from hedgerow.reconcile.loop import Faults, Rows, one_by_one
from hedgerow.reconcile.plan import Key, Op, Set


class Settings:
    kind = Kind.CONFIG

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    def read(self) -> Rows:
        found: dict[Key, object] = {}
        row = self._maps.host.get(0)
        if row is not None and row.tunnel_ifindex:
            found[CONFIG_HOST] = HostSettings(
                tunnel_link=_name(row.tunnel_ifindex),
                peer_link=_name(row.peer_ifindex),
                link=_name(row.underlay_ifindex),
                underlay=row.underlay,
                inner_mtu_bytes=row.inner_mtu_bytes,
                port=row.tunnel_port,
                fast=ConfigFlag.FAST in row.flags,
            )
        port = self._maps.ports.get(links.index_of(HOST_PEER))
        if port is not None and PortFlag.HOST in port.flags:
            found[CONFIG_PORT] = HostPort(port.mac, port.address6)
        return found

    def apply(self, ops: Sequence[Op]) -> Faults:
        return one_by_one(ops, self._apply)

    def _apply(self, op: Op) -> None:
        match op:
            case Set(_, _, HostSettings() as wanted):
                self._maps.host.put(0, _config(wanted))
            case Set(_, _, HostPort(mac, address6)):
                self._maps.ports.put(_index(HOST_PEER), Port(0, PortFlag.HOST, mac, None, address6))
            case _ if op.key == CONFIG_HOST:
                self._maps.host.raw.put(bytes(self._maps.host.raw.key_size), bytes(self._maps.host.raw.value_size))
            case _:
                self._maps.ports.delete(links.index_of(HOST_PEER))


def _config(wanted: HostSettings) -> HostConfig:
    return HostConfig(
        tunnel_ifindex=_index(wanted.tunnel_link),
        underlay_ifindex=_index(wanted.link),
        peer_ifindex=_index(wanted.peer_link),
        host_ifindex=_index(HOST_LINK),
        underlay=wanted.underlay,
        inner_mtu_bytes=wanted.inner_mtu_bytes,
        tunnel_port=wanted.port,
        flags=ConfigFlag.FAST if wanted.fast else ConfigFlag.NONE,
    )


def _index(name: str) -> int:
    index = links.index_of(name)
    if not index:
        raise HedgerowError(f"there is no link {name}")
    return index


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
