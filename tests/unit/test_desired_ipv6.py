"""What follows in the kernel from networks of IPv6, alone and beside IPv4."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from unit.agent_records import DCOS, OTHER, OWN, SNAPSHOT
from unit.test_desired import shown

from hedgerow.agent.objects import Kind
from hedgerow.model.agent import Agent, AgentId, Prefix6
from hedgerow.model.network import Network
from hedgerow.model.snapshot import Snapshot

BOTH = replace(DCOS, spec=replace(DCOS.spec, subnet6=IPv6Network("fd00:1::/48"), prefix6=64))
SIX = replace(BOTH, spec=replace(BOTH.spec, subnet=None, prefix=None))


def cluster(network: Network) -> Snapshot:
    """One network, of which each agent has a block of each family; VTEPs have both."""

    def agent(id: AgentId, number: int) -> Agent:
        known = SNAPSHOT.agents[id]
        block = Prefix6(network=DCOS.id, block=IPv6Network(f"fd00:1:0:{number}::/64"))
        own = tuple(prefix for prefix in known.prefixes if prefix.network == DCOS.id and network.spec.subnet)
        vtep = replace(known.vtep, ip6=IPv6Address(f"fd01:a::{number}"))
        return replace(known, vtep=vtep, prefixes=own, prefixes6=(block,) if network.spec.subnet6 else ())

    vtep = replace(SNAPSHOT.cluster.vtep, subnet6=IPv6Network("fd01:a::/64"))
    return replace(
        SNAPSHOT,
        networks={network.id: network},
        cluster=replace(SNAPSHOT.cluster, vtep=vtep),
        agents={OWN: agent(OWN, 1), OTHER: agent(OTHER, 2)},
    )


def of6(rows: list[str]) -> list[str]:
    return [row for row in rows if ":" in row.split()[0]]


def test_each_block_says_whose_it_is() -> None:
    assert of6(shown(cluster(BOTH), Kind.PREFIX)) == [
        "fd00:1:0:1::/64 local vni 5001",
        "fd00:1:0:2::/64 remote via 10.0.0.2 on the link vni 5001",
        "fd00:1::/48 network vni 5001",
        "fd01:a::/64 closed vni 0",
        "fd01:a::1/128 host vni 0",
        "fe80::1/128 host vni 5001",
    ]


def test_an_ipv6_only_network_has_nothing_of_ipv4() -> None:
    rows = shown(cluster(SIX), Kind.PREFIX) + shown(cluster(SIX), Kind.ROUTE)
    assert not [row for row in rows if row.startswith(("9.", "169.254.64."))]
    assert shown(cluster(SIX), Kind.ADDRESS) == ["169.254.1.1", "44.128.0.1", "fd01:a::1", "fe80::1"]


def test_the_host_calls_each_family_from_its_vtep_address_of_that_family() -> None:
    assert shown(cluster(BOTH), Kind.ROUTE) == ["9.0.0.0/8 src 44.128.0.1", "fd00:1::/48 src fd01:a::1"]
    assert of6(shown(cluster(BOTH), Kind.ADDRESS)) == ["fd01:a::1", "fe80::1"]


def test_without_an_ipv6_network_a_host_is_left_without_ipv6() -> None:
    plain = cluster(DCOS)
    assert of6(shown(plain, Kind.ADDRESS)) == []
    assert not [row for row in shown(plain, Kind.SYSCTL) if row.startswith("ipv6")]
    assert shown(plain, Kind.ROUTE) == ["9.0.0.0/8 src 44.128.0.1"]


def test_with_one_the_host_forwards_ipv6() -> None:
    rows = shown(cluster(SIX), Kind.SYSCTL)
    assert [row for row in rows if row.startswith("ipv6")] == [
        "ipv6/conf/all/forwarding = 1",
        "ipv6/conf/hr-host/forwarding = 1",
    ]


def test_a_block_as_large_as_its_subnet_hides_it() -> None:
    whole = replace(SIX, spec=replace(SIX.spec, subnet6=IPv6Network("fd00:1:0:1::/64")))
    assert "fd00:1:0:1::/64 local vni 5001" in shown(cluster(whole), Kind.PREFIX)


def test_a_vtep_address_of_a_family_that_no_network_has_stays_unused() -> None:
    assert IPv4Network("9.0.0.0/8") == DCOS.spec.subnet
    assert "fd01:a::1/128 host vni 0" not in shown(cluster(DCOS), Kind.PREFIX)
