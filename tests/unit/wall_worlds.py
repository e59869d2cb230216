"""Clusters with walls, drawn at random: every key that says who may talk to whom, valid as config.yaml would be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

from hypothesis import strategies as st

from hedgerow.model.app import AppId
from hedgerow.model.member import Member, MemberKey
from hedgerow.model.network import (
    Allow,
    HostService,
    Network,
    NetworkId,
    NetworkName,
    NetworkSpec,
    PortRange,
    Rule,
    Selector,
    Vni,
)

NAMES = tuple(NetworkName(name) for name in ("dev", "prod", "web", "db"))
APPS = ("/front", "/api", "/group/db")
LABELS = (("tier", "front"), ("tier", "back"), ("owner", "ops"))
PORTS = (1, 53, 80, 81, 443, 8080, 65535)


def _port_range(protocol: str, ports: tuple[int, int]) -> PortRange:
    return PortRange("icmp") if protocol == "icmp" else PortRange(protocol, min(ports), max(ports))


def _apart(found: list[PortRange]) -> tuple[PortRange, ...]:
    kept: list[PortRange] = []
    for one in found:
        if not any(one.protocol == o.protocol and one.low <= o.high and o.low <= one.high for o in kept):
            kept.append(one)
    return tuple(kept)


ports = st.none() | st.lists(
    st.builds(
        _port_range,
        st.sampled_from(("tcp", "udp", "icmp")),
        st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)),
    ),
    min_size=1,
    max_size=4,
).map(_apart)
labels = st.sets(st.sampled_from(LABELS), max_size=2).map(lambda found: tuple(sorted(dict(sorted(found)).items())))
inside = st.builds(Selector, st.none() | st.sampled_from(APPS), labels)
host_services = st.lists(
    st.sampled_from(
        [HostService("api"), HostService("metadata"), HostService("port", "tcp", 9100), HostService("port", "udp", 53)]
    ),
    unique=True,
    max_size=3,
).map(tuple)
agents = st.none() | st.lists(st.sampled_from(["n1", "rack2-*", "n[1-3]", "*"]), unique=True, max_size=2).map(tuple)


def _allows(own: NetworkName) -> st.SearchStrategy[tuple[Allow, ...]]:
    others = [name for name in NAMES if name != own]
    both = st.builds(Allow, st.sampled_from(others))
    one_way = st.builds(Allow, st.sampled_from(others), ports, both_ways=st.just(False))
    return st.lists(both | one_way, max_size=3, unique_by=lambda entry: entry.to).map(tuple)


def _rules(own: NetworkName) -> st.SearchStrategy[tuple[Rule, ...] | None]:
    foreign = st.builds(Selector, network=st.sampled_from([name for name in NAMES if name != own]))
    drawn = st.lists(st.tuples(st.booleans(), inside | foreign, inside, ports), max_size=4)
    return st.none() | drawn.map(
        lambda found: tuple(
            Rule(f"r{number}" if named else f"rule {number}", from_, to, some)
            for number, (named, from_, to, some) in enumerate(found, 1)
        )
    )


@st.composite
def specs(draw: Any) -> tuple[NetworkSpec, ...]:
    found = []
    for number, name in enumerate(NAMES):
        rules = draw(_rules(name))
        spec = NetworkSpec(
            name=name,
            subnet=IPv4Network(f"10.{number}.0.0/16"),
            prefix=24,
            subnet6=IPv6Network(f"fd00:{number}::/64"),
            prefix6=80,
            enabled=draw(st.sampled_from([True, True, True, False])),
            allow=draw(_allows(name)),
            rules=rules,
            isolated=draw(st.booleans()),
            internal=draw(st.booleans()),
            attach=draw(st.sampled_from(["anyone", "apps"])),
            agents=draw(agents),
            hosts=draw(st.sampled_from(["allow", "deny"])),
            host_services=draw(host_services),
        )
        found.append(spec)
    return tuple(found)


@dataclass(frozen=True)
class World:
    networks: tuple[Network, ...]
    members: dict[MemberKey, Member]
    addresses: tuple[IPv4Address, ...]
    """Of containers, announced or not, and one of no network."""


@st.composite
def worlds(draw: Any) -> World:
    networks = tuple(
        Network(id=NetworkId(f"{number:032x}"), vni=Vni(5000 + number), gateway_index=number + 1, spec=spec)
        for number, spec in enumerate(draw(specs()))
    )
    addresses = [network.spec.subnet[host] for network in networks for host in (2, 3, 4) if network.spec.subnet]
    members = {}
    for address in addresses:
        network = next(one for one in networks if one.spec.subnet and address in one.spec.subnet)
        app = draw(st.none() | st.sampled_from(APPS))
        if app is not None:
            member = Member(network=network.id, address=address, app=AppId(app), labels=draw(labels))
            members[member.key] = member
    return World(networks, members, (*addresses, IPv4Address("192.0.2.1")))


def without_walls(spec: NetworkSpec) -> NetworkSpec:
    return replace(spec, allow=(), rules=None, isolated=False)
