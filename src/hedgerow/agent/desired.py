"""What should be in the kernel, from the snapshot and the endpoints. Pure.

One function a kind. A network that is disabled, or that this agent has not heard of, is nothing at all; an endpoint on
one is not attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from ipaddress import ip_network
from typing import Protocol

from hedgerow.model.agent import Agent
from hedgerow.model.endpoint import Address, Subnet, present, routes_inside
from hedgerow.model.network import DNS_ADDRESS, Network, NetworkId
from hedgerow.model.snapshot import Snapshot
from hedgerow.policy import firewall
from hedgerow.policy.groups import Groups
from hedgerow.policy.groups import groups as policy_groups
from hedgerow.reconcile.plan import Key

from . import forwards, objects, walls
from .objects import (
    Attached,
    Barrier,
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
    Passed,
    Pinned,
    Placed,
    PrefixOf,
    PrefixRecord,
    Ruleset,
    Sysctl,
)

TUNNEL_OVERHEAD_BYTES = {4: 50, 6: 70}
"""By the IP version of the underlay: IP 20 or 40, UDP 8, VXLAN 8 (RFC 7348), inner Ethernet 14."""

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
    """What the loop asks for its wanted rows. `local` changes when the underlay's link does. `claimed` gives the
    addresses that instances here have, None while that is not known: an address of ours for which the controller
    vouches, and which no instance has any more, may be anybody's.
    """

    def __init__(self, state: Known, local: Local) -> None:
        self._state = state
        self.local = local
        self.claimed: Callable[[], frozenset[Address] | None] = lambda: None
        self.rules: dict[int, str] = {}
        """Every rule that there ever was in this process's time, by its number."""
        self._grouped: tuple[object, object, Groups] = (None, None, Groups())

    def rows(self, kind: IntEnum) -> Rows:
        snapshot = self._state.snapshot
        if snapshot is None or snapshot.own not in snapshot.agents:
            return {}
        if kind is Kind.LINK:
            return links(snapshot, self.local, self.groups(snapshot), self._state.placed())
        if kind is Kind.PUBLISHED:
            return published(snapshot, self._state.placed())
        if kind in _GROUPED_KINDS:
            return _GROUPED_KINDS[Kind(kind)](snapshot, self.local, self.groups(snapshot))
        return _KINDS[Kind(kind)](snapshot, self.local)

    def groups(self, snapshot: Snapshot) -> Groups:
        """Computed once for each snapshot: with thousands of members it takes a while."""
        known, last, found = self._grouped
        claimed = self.claimed()
        if known is not snapshot or last != claimed:
            strangers = walls.strangers(snapshot, claimed) if claimed is not None else frozenset()
            found = policy_groups(snapshot.networks.values(), snapshot.members, strangers)
            self._grouped = snapshot, claimed, found
            self.rules |= found.rules
        return found

    def may_remove(self, kind: IntEnum) -> bool:
        """A saved snapshot may be old, so removals wait for a live one. Of endpoints, and of this host's own links, the
        agent knows by itself.
        """
        if kind in (Kind.BARRED, Kind.LINK, Kind.PUBLISHED):
            return self._state.snapshot is not None
        return self._state.is_live

    def needs(self, key: Key, record: object) -> Iterable[Key]:
        return objects.needs(key, record)


def tunnel_mtu(snapshot: Snapshot, local: Local) -> int:
    """Bytes of the largest inner IP packet that the underlay carries in one piece."""
    fits = local.mtu_bytes - TUNNEL_OVERHEAD_BYTES[local.underlay.version]
    return min(fits, snapshot.cluster.vtep.mtu_bytes or fits)


def overlay_mtu(snapshot: Snapshot, local: Local) -> int:
    """The MTU inside containers, in bytes."""
    return min(snapshot.cluster.mtu_bytes, tunnel_mtu(snapshot, local))


def networks(snapshot: Snapshot) -> dict[NetworkId, Network]:
    """Those that have addresses here."""
    return {n.id: n for n in snapshot.networks.values() if n.spec.enabled and n.versions}


def _own(snapshot: Snapshot) -> Agent:
    return snapshot.agents[snapshot.own]


def _subnets(network: Network) -> tuple[Subnet, ...]:
    return tuple(each for each in (network.spec.subnet, network.spec.subnet6) if each is not None)


def pins(snapshot: Snapshot, local: Local) -> Rows:
    return {objects.PINS: Pinned()}


def docker_user(snapshot: Snapshot, local: Local) -> Rows:
    return {Key(Kind.DOCKER_USER, family): Passed() for family in ("ip", "ip6")}


def devices(snapshot: Snapshot, local: Local) -> Rows:
    mtu = tunnel_mtu(snapshot, local)
    return {
        objects.DEVICE_TUNNEL: Device(GATEWAY_MAC, mtu, local.tunnel_port),
        objects.DEVICE_HOST: Device(_own(snapshot).vtep.mac, overlay_mtu(snapshot, local)),
    }


def addresses(snapshot: Snapshot, local: Local) -> Rows:
    """By a gateway's IPv6 address, which is link-local, the host also asks for neighbours when it forwards."""
    found = [address for network in networks(snapshot).values() for address in _gateways(network)]
    found += [DNS_ADDRESS, *_vteps(snapshot)]
    return {Key(Kind.ADDRESS, str(address)): HostAddress(address) for address in found}


def _gateways(network: Network) -> list[Address]:
    gateways: dict[int, Address] = {4: network.gateway, 6: network.gateway6}
    return [gateways[version] for version in network.versions]


def _vteps(snapshot: Snapshot) -> tuple[Address, ...]:
    """Ours. Those of a family that no network has stay unused."""
    vtep, versions = _own(snapshot).vtep, {v for network in networks(snapshot).values() for v in network.versions}
    return tuple(address for address in present(vtep.ip, vtep.ip6) if address.version == 4 or 6 in versions)


def routes(snapshot: Snapshot, local: Local) -> Rows:
    sources = {address.version: address for address in _vteps(snapshot)}
    subnets = [subnet for network in networks(snapshot).values() for subnet in _subnets(network)]
    return {Key(Kind.ROUTE, str(subnet)): HostRoute(subnet, sources.get(subnet.version)) for subnet in subnets}


def sysctls(snapshot: Snapshot, local: Local) -> Rows:
    names = list(objects.forwarding(local.link))
    if any(6 in network.versions for network in networks(snapshot).values()):
        names += objects.FORWARDING6
    return {Key(Kind.SYSCTL, name): Sysctl("1") for name in names}


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
    vtep = _own(snapshot).vtep
    return {objects.CONFIG_HOST: host, objects.CONFIG_PORT: HostPort(vtep.mac, vtep.ip6)}


def agents(snapshot: Snapshot, local: Local) -> Rows:
    tunnels, controls = _underlays(snapshot, local), set(local.controllers)
    return {
        Key(Kind.AGENT, str(address)): KnownAgent(address in tunnels, address in controls)
        for address in {*tunnels, *controls, *_hosts(snapshot)}
    }


def _hosts(snapshot: Snapshot) -> set[Address]:
    """Every address of every agent's host, as those agents say."""
    return {address for agent in snapshot.agents.values() for address in agent.host_addresses}


def barred(snapshot: Snapshot, local: Local) -> Rows:
    return {Key(Kind.BARRED, str(index)): Barrier() for index in local.bridges}


def host_services(snapshot: Snapshot, local: Local) -> Rows:
    return walls.host_services(networks(snapshot).values())


def _underlays(snapshot: Snapshot, local: Local) -> set[Address]:
    return {agent.underlay for agent in snapshot.agents.values()} | {local.underlay}


def prefixes(snapshot: Snapshot, local: Local, groups: Groups) -> Rows:
    """A block may be as large as its network, and then it says more than the network does."""
    found: dict[Subnet, PrefixRecord] = {}
    vteps = snapshot.cluster.vtep
    found |= {vtep: PrefixRecord(PrefixOf.CLOSED) for vtep in (vteps.subnet, vteps.subnet6) if vtep is not None}
    known = networks(snapshot)
    for network in known.values():
        group = groups.networks[network.id]
        found |= {subnet: PrefixRecord(PrefixOf.NETWORK, network.vni, group=group) for subnet in _subnets(network)}
        found |= {ip_network(address): PrefixRecord(PrefixOf.HOST, network.vni) for address in _gateways(network)}
    for address in (DNS_ADDRESS, *_vteps(snapshot)):
        found[ip_network(address)] = PrefixRecord(PrefixOf.HOST)
    for agent in snapshot.agents.values():
        for prefix in agent.all_prefixes:
            if prefix.network in known:
                vni, group = known[prefix.network].vni, groups.networks[prefix.network]
                found[prefix.block] = (
                    PrefixRecord(PrefixOf.LOCAL, vni, group=group)
                    if agent.id == snapshot.own
                    else PrefixRecord(PrefixOf.REMOTE, vni, agent.underlay, agent.underlay in local.subnet, group)
                )
    return {Key(Kind.PREFIX, str(prefix)): record for prefix, record in found.items()}


def rules(snapshot: Snapshot, local: Local) -> Rows:
    text = firewall.ruleset(
        networks=tuple(networks(snapshot).values()),
        agents=_underlays(snapshot, local),
        underlay=local.underlay,
        link=local.link,
        tunnel_port=local.tunnel_port,
        controllers=local.controllers,
        hosts=_hosts(snapshot),
    )
    return {objects.FIREWALL: Ruleset(text)}


def links(snapshot: Snapshot, local: Local, groups: Groups, placed: Iterable[Placed]) -> Rows:
    known, mtu = networks(snapshot), overlay_mtu(snapshot, local)
    found: Rows = {}
    for each in placed:
        network = known.get(each.endpoint.network)
        if each.attached and network is not None:
            found[link_key(each)] = link(each, network, mtu, groups)
    return found


def published(snapshot: Snapshot, placed: Iterable[Placed]) -> Rows:
    """An internal network has no way out, so what outside says to its containers could not be answered."""
    known = networks(snapshot)
    found: Rows = {}
    for each in placed:
        network = known.get(each.endpoint.network)
        if each.attached and network is not None and not network.spec.internal:
            found |= forwards.rows_of(each.endpoint)
    return found


def link_key(placed: Placed) -> Key:
    return Key(Kind.LINK, placed.endpoint.link)


def link(placed: Placed, network: Network, mtu_bytes: int, groups: Groups) -> LinkRecord:
    """The row of one endpoint, for the loop and for the moment when its container starts."""
    endpoint = placed.endpoint
    routes = routes_inside(network, placed.ifname, endpoint.addresses)
    inside = Inside(ifname=placed.ifname, mtu_bytes=mtu_bytes, routes=routes)
    return LinkRecord(
        vni=network.vni,
        group=walls.group_of(groups, network, endpoint),
        container=objects.container_number(endpoint.netns_inode),
        address=endpoint.address,
        address6=endpoint.address6,
        mac=endpoint.mac,
        internal=network.spec.internal,
        no_hosts=network.spec.hosts == "deny",
        netns=placed.netns,
        netns_inode=endpoint.netns_inode,
        inside=inside,
    )


_KINDS: Mapping[Kind, Callable[[Snapshot, Local], Rows]] = {
    Kind.PIN: pins,
    Kind.DEVICE: devices,
    Kind.ADDRESS: addresses,
    Kind.ROUTE: routes,
    Kind.SYSCTL: sysctls,
    Kind.BARRED: barred,
    Kind.PROGRAM: programs,
    Kind.CONFIG: settings,
    Kind.AGENT: agents,
    Kind.HOST_SERVICE: host_services,
    Kind.FIREWALL: rules,
    Kind.DOCKER_USER: docker_user,
}

_GROUPED_KINDS: Mapping[Kind, Callable[[Snapshot, Local, Groups], Rows]] = {
    Kind.PREFIX: prefixes,
    Kind.MEMBER: lambda snapshot, local, groups: walls.members(groups),
    Kind.ALLOW: lambda snapshot, local, groups: walls.allowed(groups),
}
