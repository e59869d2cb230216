"""What containers, their hosts and the outside may send each other, beside what networks allow each other: probes, and
whether they may pass by a page of rules that is written here anew, apart from the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cluster.agents import OUTSIDE, OUTSIDE6, VTEPS, VTEPS6, Cluster, Node
from cluster.probing import ICMP, ICMP6, TCP, UDP, Address, Place, Probe
from kernel.hosts import Container

from hedgerow.model.network import DNS_ADDRESS, Network, NetworkSpec

METADATA: tuple[Address, Address] = (IPv4Address("169.254.169.254"), IPv6Address("fd00:ec2::254"))
HOST_PORTS = (53, 80, 8443, 9100)
"""Where hosts and the outside listen."""

PUBLISHED = 30000
"""The first container's port of its host; it leads to port 80."""


@dataclass(frozen=True)
class Inhabitant:
    """A container of the cluster: on which host, in which network."""

    number: int
    node: Node
    network: Network
    container: Container
    place: Place


Wanted = Iterator[tuple[Probe, bool]]


def host_place(node: Node) -> Place:
    """A host, as its own containers see it."""
    return Place(node.name, node.namespace, (VTEPS[node.number], VTEPS6[node.number]), "hr-host")


def outside_place(cluster: Cluster) -> Place:
    return Place("outside", Path(cluster.outside.netns), (OUTSIDE, OUTSIDE6))


def echo(address: Address) -> int:
    return ICMP if address.version == 4 else ICMP6


def opens(spec: NetworkSpec, service: str, port: int = 0) -> bool:
    return any(each.service == service and each.port == port for each in spec.host_services)


def around(cluster: Cluster, found: list[Inhabitant]) -> Wanted:
    for one in found:
        yield from to_own_host(one)
        yield from to_other_hosts(one, cluster)
        yield from to_metadata(one)
        yield from to_outside(one)
        yield from from_hosts(one, cluster)
        yield from from_outside(one, cluster)


def mine(one: Inhabitant, *addresses: Address) -> Iterator[Address]:
    """Those of a family that the container has."""
    return (address for address in addresses if one.place.of(address.version) is not None)


def to_own_host(one: Inhabitant) -> Wanted:
    """Ping, DNS at its address, and the ports that `host_services` names; of an internal network no address of the
    underlay. What a host publishes for others is no service for containers.
    """
    spec, node = one.network.spec, one.node
    virtual: tuple[Address, ...] = (VTEPS[node.number], VTEPS6[node.number], one.network.gateway, DNS_ADDRESS)
    for address in mine(one, *virtual, node.underlay, node.underlay6):
        yield Probe(one.place, address, echo(address)), address in virtual or not spec.internal
        for port in HOST_PORTS:
            is_dns = address == DNS_ADDRESS and port == 53
            yield Probe(one.place, address, TCP, port), is_dns or opens(spec, "port", port)
            yield Probe(one.place, address, UDP, port, is_answered=not is_dns), is_dns
    for address in mine(one, node.underlay, node.underlay6):
        yield Probe(one.place, address, TCP, PUBLISHED + one.number), False


def to_other_hosts(one: Inhabitant, cluster: Cluster) -> Wanted:
    for node in cluster.nodes:
        if node is not one.node:
            for address in mine(one, node.underlay, node.underlay6):
                yield Probe(one.place, address, echo(address), is_seen=False), not one.network.spec.internal
                yield from ((Probe(one.place, address, kind, 9100, is_seen=False), False) for kind in (TCP, UDP))
            for address in mine(one, VTEPS[node.number], VTEPS6[node.number]):
                yield Probe(one.place, address, echo(address)), False
                yield Probe(one.place, address, TCP, 9100), False


def to_metadata(one: Inhabitant) -> Wanted:
    spec = one.network.spec
    for address in mine(one, *METADATA):
        may = opens(spec, "metadata") and not spec.internal
        yield Probe(one.place, address, TCP, 80, is_seen=False), may


def to_outside(one: Inhabitant) -> Wanted:
    """Under the host's address. Each container has a port of its own there, by which its packets are told."""
    for address in mine(one, OUTSIDE, OUTSIDE6):
        known = one.node.underlay if address.version == 4 else one.node.underlay6
        may = not one.network.spec.internal
        yield Probe(one.place, address, echo(address), is_seen=False), may
        for kind in (TCP, UDP):
            yield Probe(one.place, address, kind, 20000 + one.number, known_as=known, is_answered=False), may


def from_hosts(one: Inhabitant, cluster: Cluster) -> Wanted:
    """A host reaches its own containers, unless their network denies it, and nobody else's; what is published on
    another host it reaches like anybody.
    """
    for node in cluster.nodes:
        place, is_own = host_place(node), node is one.node
        may = is_own and one.network.spec.hosts == "allow"
        for address in one.place.addresses:
            yield Probe(place, address, echo(address)), may
            yield from ((Probe(place, address, kind, 80), may) for kind in (TCP, UDP))
        if not is_own:
            for address in mine(one, one.node.underlay, one.node.underlay6):
                yield Probe(place, address, TCP, PUBLISHED + one.number, is_seen=False), not one.network.spec.internal


def from_outside(one: Inhabitant, cluster: Cluster) -> Wanted:
    """Only what is published, and that of no internal network. The outside has routes to every network."""
    place = outside_place(cluster)
    for address in one.place.addresses:
        yield Probe(place, address, echo(address)), False
        yield from ((Probe(place, address, kind, 81), False) for kind in (TCP, UDP))
    for address in mine(one, one.node.underlay, one.node.underlay6):
        for kind in (TCP, UDP):
            probe = Probe(place, address, kind, PUBLISHED + one.number, is_seen=False)
            yield probe, not one.network.spec.internal
