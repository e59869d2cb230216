"""What should be in the kernel, from the snapshot and the endpoints. Pure.

One function a kind. A network that is disabled, or that this agent has not heard of, is nothing at all; an endpoint on
one is not attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from hedgerow.model.agent import Agent
from hedgerow.model.endpoint import routes_inside
from hedgerow.model.network import DNS_ADDRESS, Network, NetworkId
from hedgerow.model.snapshot import Snapshot
from hedgerow.policy import firewall, reach
from hedgerow.reconcile.plan import Key

from . import objects
from .objects import (
    Allowed,
    Attached,
    Device,
    HostAddress,
    HostPort,
    HostRoute,
    HostSettings,
    Inside,
    Kind,
    KnownAgent,
    LinkRecord,
    Local,
    Placed,
    PrefixOf,
    PrefixRecord,
    Ruleset,
    Sysctl,
)

TUNNEL_OVERHEAD_BYTES = 50
GATEWAY_MAC = bytes.fromhex("024800000001")

Rows = dict[Key, object]


class Known(Protocol):
    """What an agent knows: `agent.state.State` does."""

    @property
    def snapshot(self) -> Snapshot | None: ...

    @property
    def is_live(self) -> bool: ...

    def placed(self) -> Iterable[Placed]: ...


class Wanted:
    """What the loop asks for its wanted rows. `local` changes when the underlay's link does."""

    def __init__(self, state: Known, local: Local) -> None:
        self._state = state
        self.local = local

    def rows(self, kind: IntEnum) -> Rows:
        snapshot = self._state.snapshot
        if snapshot is None or snapshot.own not in snapshot.agents:
            return {}
        if kind is Kind.LINK:
            return links(snapshot, self.local, self._state.placed())
        return _KINDS[Kind(kind)](snapshot, self.local)

    def may_remove(self, kind: IntEnum) -> bool:
        """A saved snapshot may be old, so removals wait for a live one; for endpoints this agent is the authority."""
        if kind is Kind.LINK:
            return self._state.snapshot is not None
        return self._state.is_live

    def needs(self, key: Key, record: object) -> Iterable[Key]:
        return objects.needs(key, record)


def tunnel_mtu(snapshot: Snapshot, local: Local) -> int:
    """Bytes of the largest inner IP packet that the underlay carries in one piece."""
    fits = local.mtu_bytes - TUNNEL_OVERHEAD_BYTES
    return min(fits, snapshot.cluster.vtep.mtu_bytes or fits)


def overlay_mtu(snapshot: Snapshot, local: Local) -> int:
    """The MTU inside containers, in bytes."""
    return min(snapshot.cluster.mtu_bytes, tunnel_mtu(snapshot, local))


def networks(snapshot: Snapshot) -> dict[NetworkId, Network]:
    """Those that have addresses here."""
    return {n.id: n for n in snapshot.networks.values() if n.spec.enabled and n.spec.subnet is not None}


def _own(snapshot: Snapshot) -> Agent:
    return snapshot.agents[snapshot.own]


def _subnet(network: Network) -> IPv4Network:
    assert network.spec.subnet is not None
    return network.spec.subnet


def devices(snapshot: Snapshot, local: Local) -> Rows:
    mtu = tunnel_mtu(snapshot, local)
    return {
        objects.DEVICE_TUNNEL: Device(GATEWAY_MAC, mtu, local.tunnel_port),
        objects.DEVICE_HOST: Device(_own(snapshot).vtep.mac, overlay_mtu(snapshot, local)),
    }


def addresses(snapshot: Snapshot, local: Local) -> Rows:
    found = [network.gateway for network in networks(snapshot).values()]
    found.append(DNS_ADDRESS)
    vtep = _own(snapshot).vtep.ip
    if vtep is not None:
        found.append(vtep)
    return {Key(Kind.ADDRESS, str(address)): HostAddress(address) for address in found}


def routes(snapshot: Snapshot, local: Local) -> Rows:
    source = _own(snapshot).vtep.ip
    subnets = [_subnet(network) for network in networks(snapshot).values()]
    return {Key(Kind.ROUTE, str(subnet)): HostRoute(subnet, source) for subnet in subnets}


def sysctls(snapshot: Snapshot, local: Local) -> Rows:
    return {Key(Kind.SYSCTL, "ipv4/ip_forward"): Sysctl("1")}


def programs(snapshot: Snapshot, local: Local) -> Rows:
    return {
        Key(Kind.PROGRAM, local.link): Attached("from_underlay"),
        Key(Kind.PROGRAM, objects.TUNNEL_LINK): Attached("from_tunnel"),
        Key(Kind.PROGRAM, objects.HOST_PEER): Attached("from_container"),
    }


def settings(snapshot: Snapshot, local: Local) -> Rows:
    host = HostSettings(
        tunnel_link=objects.TUNNEL_LINK,
        peer_link=objects.HOST_PEER,
        link=local.link,
        underlay=local.underlay,
        inner_mtu_bytes=tunnel_mtu(snapshot, local),
        port=local.tunnel_port,
        fast=local.fast,
    )
    return {objects.CONFIG_HOST: host, objects.CONFIG_PORT: HostPort(_own(snapshot).vtep.mac)}


def agents(snapshot: Snapshot, local: Local) -> Rows:
    return {Key(Kind.AGENT, str(address)): KnownAgent() for address in _underlays(snapshot, local)}


def _underlays(snapshot: Snapshot, local: Local) -> set[IPv4Address]:
    return {agent.underlay for agent in snapshot.agents.values()} | {local.underlay}


def prefixes(snapshot: Snapshot, local: Local) -> Rows:
    """A block may be as large as its network, and then it says more than the network does."""
    found: dict[IPv4Network, PrefixRecord] = {}
    if snapshot.cluster.vtep.subnet is not None:
        found[snapshot.cluster.vtep.subnet] = PrefixRecord(PrefixOf.CLOSED)
    known = networks(snapshot)
    for network in known.values():
        found[_subnet(network)] = PrefixRecord(PrefixOf.NETWORK, network.vni)
        found[IPv4Network(network.gateway)] = PrefixRecord(PrefixOf.HOST, network.vni)
    found[IPv4Network(DNS_ADDRESS)] = PrefixRecord(PrefixOf.HOST)
    vtep = _own(snapshot).vtep.ip
    if vtep is not None:
        found[IPv4Network(vtep)] = PrefixRecord(PrefixOf.HOST)
    for agent in snapshot.agents.values():
        for prefix in agent.prefixes:
            if prefix.network in known:
                vni = known[prefix.network].vni
                found[prefix.block] = (
                    PrefixRecord(PrefixOf.LOCAL, vni)
                    if agent.id == snapshot.own
                    else PrefixRecord(PrefixOf.REMOTE, vni, agent.underlay, agent.underlay in local.subnet)
                )
    return {Key(Kind.PREFIX, str(prefix)): record for prefix, record in found.items()}


def allowed(snapshot: Snapshot, local: Local) -> Rows:
    pairs = reach.pairs(snapshot.networks.values())
    return {Key(Kind.ALLOW, f"{one} {other}"): Allowed() for one, other in pairs}


def rules(snapshot: Snapshot, local: Local) -> Rows:
    text = firewall.ruleset(
        networks=tuple(networks(snapshot).values()),
        agents=_underlays(snapshot, local),
        underlay=local.underlay,
        link=local.link,
        tunnel_port=local.tunnel_port,
        controllers=local.controllers,
    )
    return {objects.FIREWALL: Ruleset(text)}


def links(snapshot: Snapshot, local: Local, placed: Iterable[Placed]) -> Rows:
    known, mtu = networks(snapshot), overlay_mtu(snapshot, local)
    found: Rows = {}
    for each in placed:
        network = known.get(each.endpoint.network)
        if each.attached and network is not None:
            found[link_key(each)] = link(each, network, mtu)
    return found


def link_key(placed: Placed) -> Key:
    return Key(Kind.LINK, placed.endpoint.link)


def link(placed: Placed, network: Network, mtu_bytes: int) -> LinkRecord:
    """The row of one endpoint, for the loop and for the moment when its container starts."""
    endpoint = placed.endpoint
    inside = Inside(ifname=placed.ifname, mtu_bytes=mtu_bytes, routes=routes_inside(network, placed.ifname))
    return LinkRecord(
        vni=network.vni,
        address=endpoint.address,
        mac=endpoint.mac,
        internal=network.spec.internal,
        netns=placed.netns,
        netns_inode=endpoint.netns_inode,
        inside=inside,
    )


_KINDS: Mapping[Kind, Callable[[Snapshot, Local], Rows]] = {
    Kind.DEVICE: devices,
    Kind.ADDRESS: addresses,
    Kind.ROUTE: routes,
    Kind.SYSCTL: sysctls,
    Kind.PROGRAM: programs,
    Kind.CONFIG: settings,
    Kind.AGENT: agents,
    Kind.PREFIX: prefixes,
    Kind.ALLOW: allowed,
    Kind.FIREWALL: rules,
}
