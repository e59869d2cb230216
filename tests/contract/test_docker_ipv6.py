"""The Docker driver with networks of both families, and of IPv6 only, which dockerd cannot do by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from contract.fakes import BOTH, DCOS, SIX, FakeAttachments, FakeState
from contract.test_docker import E1, GATEWAY, Dockerd, creation

from hedgerow.agent.engines import docker_networks
from hedgerow.agent.engines.docker import app, command, key_of
from hedgerow.model.network import Network

POOL6, IPV6 = "/6", "com.docker.network.enable_ipv6"


@pytest.fixture
def dockerd() -> Dockerd:
    found = Dockerd()
    found.state = FakeState(DCOS, BOTH, SIX)
    found.attachments = FakeAttachments(found.state)
    found.app = app(found.attachments, found.state)
    return found


def take(dockerd: Dockerd, pool: str, address: str = "") -> str:
    found = dockerd.call("IpamDriver.RequestAddress", {"PoolID": pool, "Address": address, "Options": None})
    return str(found.get("Address") or found["Err"])


def create(dockerd: Dockerd, address: str, address6: str) -> dict[str, Any]:
    interface = {"Address": address, "AddressIPv6": address6, "MacAddress": ""}
    return dockerd.call("NetworkDriver.CreateEndpoint", {"NetworkID": "n", "EndpointID": E1, "Interface": interface})


def creation6(network: Network, pools: list[str], pools6: list[str], *, ipv6: bool = True) -> dict[str, Any]:
    body = creation("hedgerow", "", network.name, **{IPV6: ipv6})
    for family, subnets in (("IPv4Data", pools), ("IPv6Data", pools6)):
        body[family] = [{"AddressSpace": "hedgerow", "Pool": subnet} for subnet in subnets]
    return body


def test_each_family_has_a_pool_of_its_own(dockerd: Dockerd) -> None:
    four = dockerd.call("IpamDriver.RequestPool", dockerd.pool("10.96.0.0/14", "both"))
    six = dockerd.call("IpamDriver.RequestPool", dockerd.pool("fd00:b::/64", "both", V6=True))
    assert four == {"PoolID": BOTH.id, "Pool": "10.96.0.0/14", "Data": {GATEWAY: "169.254.64.4/32"}}
    assert six == {"PoolID": BOTH.id + POOL6, "Pool": "fd00:b::/64", "Data": {GATEWAY: "fe80::4/128"}}
    assert take(dockerd, BOTH.id) == "10.96.0.1/32"
    assert take(dockerd, BOTH.id + POOL6) == "fd00:b::1/128"
    assert take(dockerd, BOTH.id + POOL6, "fd00:b::77") == "fd00:b::77/128"
    assert "is taken" in take(dockerd, BOTH.id + POOL6, "fd00:b::77")


def test_a_container_of_both_families_has_two_addresses_two_gateways_and_ends_whole(dockerd: Dockerd) -> None:
    mac = create(dockerd, take(dockerd, BOTH.id), take(dockerd, BOTH.id + POOL6))["Interface"]["MacAddress"]
    assert mac == "02:48:0a:60:00:01"
    joined = dockerd.call("NetworkDriver.Join", dockerd.of())
    assert (joined["Gateway"], joined["GatewayIPv6"]) == ("169.254.64.4", "fe80::4")
    assert [(row["Destination"], row.get("NextHop")) for row in joined["StaticRoutes"]] == [
        ("169.254.64.4/32", None),
        ("10.96.0.0/14", "169.254.64.4"),
        ("fe80::4/128", None),
        ("fd00:b::/64", "fe80::4"),
    ]
    dockerd.call("NetworkDriver.Leave", dockerd.of())
    dockerd.call("NetworkDriver.DeleteEndpoint", dockerd.of())
    for pool, address in ((BOTH.id, "10.96.0.1"), (BOTH.id + POOL6, "fd00:b::1")):
        dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": pool, "Address": address})
    assert dockerd.attachments.is_empty


def test_an_ipv6_only_network_gives_dockerd_one_address_that_stands_for_none(dockerd: Dockerd) -> None:
    pool = dockerd.call("IpamDriver.RequestPool", dockerd.pool("169.254.64.5/32", "six"))
    assert pool == {"PoolID": SIX.id, "Pool": "169.254.64.5/32", "Data": {GATEWAY: "169.254.64.5/32"}}
    assert take(dockerd, SIX.id) == take(dockerd, SIX.id) == "169.254.64.5/32"
    assert "leave out --ip" in take(dockerd, SIX.id, "10.0.0.1")
    create(dockerd, "169.254.64.5/32", take(dockerd, SIX.id + POOL6))
    assert [str(each) for each in dockerd.attachments.rows[key_of(E1)].addresses] == ["fd00:6::1"]
    joined = dockerd.call("NetworkDriver.Join", dockerd.of())
    assert joined["DisableGatewayService"], "dockerd would add a bridge of its own for IPv4"
    assert [row["Destination"] for row in joined["StaticRoutes"]] == ["fe80::5/128", "fd00:6::/64", "::/1", "8000::/1"]
    dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": SIX.id, "Address": "169.254.64.5"})
    assert len(dockerd.attachments.rows) == 1, "it is everybody's"
    dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": SIX.id + POOL6, "Address": "fd00:6::1"})
    assert dockerd.attachments.is_empty


def test_ipv6_may_be_left_out_of_a_network_of_both_families(dockerd: Dockerd) -> None:
    assert dockerd.call("NetworkDriver.CreateNetwork", creation6(BOTH, ["10.96.0.0/14"], [], ipv6=False)) == {}
    create(dockerd, take(dockerd, BOTH.id), "")
    joined = dockerd.call("NetworkDriver.Join", dockerd.of())
    assert "GatewayIPv6" not in joined
    assert len(joined["StaticRoutes"]) == 2, "dockerd turned IPv6 off inside: a route would fail the start"


@pytest.mark.parametrize(
    "body",
    [
        creation6(BOTH, ["10.96.0.0/14"], ["fd00:6::/64"]),
        creation6(BOTH, ["10.96.0.0/14"], []),
        creation6(BOTH, [], ["fd00:b::/64"]),
        creation6(SIX, ["169.254.64.5/32"], [], ipv6=False),
        creation6(SIX, ["172.18.0.0/16"], ["fd00:6::/64"]),
        creation6(DCOS, ["9.0.0.0/8"], ["fd00:6::/64"], ipv6=False),
    ],
    ids=["another's", "none", "IPv6 alone", "IPv6 left out", "Docker's own IPv4", "IPv6 of an IPv4 network"],
)
def test_a_docker_network_of_other_families_is_refused_with_the_right_command(
    dockerd: Dockerd, body: dict[str, Any]
) -> None:
    assert "--ipam-driver hedgerow" in dockerd.fault("NetworkDriver.CreateNetwork", body)


def test_the_right_command_names_all_that_dockerd_needs() -> None:
    assert "--ipv6 --subnet 10.96.0.0/14 --subnet fd00:b::/64 " in command(BOTH)
    assert "--ipv6 --subnet 169.254.64.5/32 --subnet fd00:6::/64 " in command(SIX)


def test_an_address_of_two_networks_is_of_none(dockerd: Dockerd) -> None:
    assert "lies in no network" in create(dockerd, "9.0.0.1/32", "fd00:6::1/128")["Err"]
    assert "lies in no network" in create(dockerd, "169.254.64.5/32", "")["Err"]


def test_the_agents_own_docker_networks_have_ipv6() -> None:
    (definition,) = docker_networks.wanted([SIX]).values()
    body = docker_networks.creation(definition, SIX)
    assert body["EnableIPv6"] is True
    assert body["IPAM"]["Config"] == [{"Subnet": "169.254.64.5/32"}, {"Subnet": "fd00:6::/64"}]
    (there,) = docker_networks.found([{"Id": "x", **body}]).values()
    assert there[0].definition == definition


def test_an_agent_that_frees_what_docker_forgot_frees_both(dockerd: Dockerd) -> None:
    create(dockerd, take(dockerd, BOTH.id), take(dockerd, BOTH.id + POOL6))
    leftovers = docker_networks.Leftovers(dockerd.attachments)
    asyncio.run(leftovers.forget(set(), 0))
    asyncio.run(leftovers.forget(set(), 1000))
    assert dockerd.attachments.is_empty


def test_ports_of_an_ipv6_only_network_are_published_when_the_container_joins_it_first(dockerd: Dockerd) -> None:
    """Without a gateway Docker asks for no external connectivity."""
    portmap = {"com.docker.network.portmap": [{"Proto": 6, "Port": 80, "HostPort": 8080, "HostPortEnd": 8080}]}
    create(dockerd, "169.254.64.5/32", take(dockerd, SIX.id + POOL6))
    dockerd.call("NetworkDriver.Join", dockerd.of() | {"Options": portmap})
    assert [str(port) for port in dockerd.attachments.rows[key_of(E1)].published] == ["8080->80/tcp"]
    dockerd.call("NetworkDriver.RevokeExternalConnectivity", dockerd.of())
    assert dockerd.attachments.rows[key_of(E1)].published == ()
