"""The Docker driver from dockerd's side: libnetwork's remote network and IPAM protocol, call by call."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from contract.fakes import (
    DCOS,
    DEV,
    DRAWN,
    FOR_APPS,
    NO_ROOM,
    VAULT,
    FakeAttachments,
    FakeState,
    post,
    served,
    snapshot,
)
from contract.programs import read_message, short_directory
from hypothesis import given, settings
from hypothesis import strategies as st

from hedgerow.agent.engines import docker
from hedgerow.agent.engines.docker import app, key_of
from hedgerow.errors import Conflict

GATEWAY = "com.docker.network.gateway"
E1 = "e1" * 32


class Dockerd:
    def __init__(self) -> None:
        self.state = FakeState()
        self.attachments = FakeAttachments(self.state)
        self.app = app(self.attachments, self.state)
        self._number = 0

    def call(self, method: str, body: dict[str, Any] | None = None, name: str = "") -> dict[str, Any]:
        """`name`: the relay's, of this call; every call has one of its own unless it is repeated."""
        self._number += 1
        raw = b"" if body is None else json.dumps(body).encode()
        status, answer = post(self.app, f"/{method}", raw, Hedgerow_Call=name or f"call-{self._number}")
        assert status == 200, (status, answer)
        found: dict[str, Any] = json.loads(answer)
        return found

    def fault(self, method: str, body: dict[str, Any] | None = None) -> str:
        """Both keys: one is shown of a network driver, the other of an IPAM driver."""
        found = self.call(method, body)
        assert found.keys() == {"Err", "Error"}
        assert found["Err"] == found["Error"]
        return str(found["Err"])

    def pool(self, subnet: str, name: str | None, **more: Any) -> dict[str, Any]:
        options = {"network": name} if name else None
        return {"AddressSpace": "hedgerow", "Pool": subnet, "SubPool": "", "Options": options, "V6": False, **more}

    def take(self, name: str = "", address: str = "", network: Any = DCOS) -> str:
        body = {"PoolID": network.id, "Address": address, "Options": None}
        found = self.call("IpamDriver.RequestAddress", body, name)
        return str(found["Address"]) if "Address" in found else str(found["Err"])

    def create(self, address: str, mac: str = "", endpoint: str = E1, options: Any = None) -> dict[str, Any]:
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac}
        body = {"NetworkID": "n1", "EndpointID": endpoint, "Interface": interface, "Options": options}
        return self.call("NetworkDriver.CreateEndpoint", body)

    def of(self, endpoint: str = E1) -> dict[str, Any]:
        return {"NetworkID": "n1", "EndpointID": endpoint, "SandboxKey": "/run/docker/netns/abc", "Options": {}}


@pytest.fixture
def dockerd() -> Dockerd:
    return Dockerd()


def creation(space: str, pool: str, name: str | None, **options: Any) -> dict[str, Any]:
    generic = {"network": name} if name else {}
    return {
        "NetworkID": "n1",
        "Options": {"com.docker.network.generic": generic, "com.docker.network.enable_ipv6": False, **options},
        "IPv4Data": [{"AddressSpace": space, "Pool": pool, "Gateway": "169.254.64.1/32"}],
        "IPv6Data": [],
    }


def test_the_handshake_needs_no_network_and_no_controller(dockerd: Dockerd) -> None:
    dockerd.state.snapshot = None
    assert dockerd.call("Plugin.Activate") == {"Implements": ["NetworkDriver", "IpamDriver"]}
    assert dockerd.call("NetworkDriver.GetCapabilities") == {"Scope": "local", "ConnectivityScope": "global"}
    assert dockerd.call("IpamDriver.GetCapabilities")["RequiresRequestReplay"] is False
    assert "LocalDefaultAddressSpace" in dockerd.call("IpamDriver.GetDefaultAddressSpaces")


def test_what_dockerd_sends_gets_through_the_http_server(dockerd: Dockerd) -> None:
    """An empty Host, no Content-Type, one connection for many calls."""
    with short_directory() as directory, served(dockerd.app, directory / "calls.sock"), socket.socket(1) as connection:
        connection.settimeout(20)
        connection.connect(str(directory / "calls.sock"))
        for body in (b"", b'{"NetworkID":"n1"}'):
            head = f"POST /NetworkDriver.EndpointOperInfo HTTP/1.1\r\nHost: \r\nContent-Length: {len(body)}\r\n"
            rest = "Accept: application/vnd.docker.plugins.v1.2+json\r\nHedgerow-Call: 1\r\n\r\n"
            connection.sendall((head + rest).encode() + body)
            answer = read_message(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b'{"Value":{}}')


def test_a_pool_is_the_networks_subnet_with_its_own_gateway(dockerd: Dockerd) -> None:
    found = dockerd.call("IpamDriver.RequestPool", dockerd.pool("9.0.0.0/8", "dcos-1"))
    assert found == {"PoolID": DCOS.id, "Pool": "9.0.0.0/8", "Data": {GATEWAY: "169.254.64.1/32"}}


@pytest.mark.parametrize(
    ("subnet", "name", "more", "words"),
    [
        ("", "dcos-1", {}, "docker network create -d hedgerow --ipam-driver hedgerow --subnet 9.0.0.0/8 "),
        ("9.0.0.0/16", "dcos-1", {}, "--ipam-opt network=dcos-1 -o network=dcos-1 NAME"),
        ("9.0.0.0/8", None, {}, "--ipam-opt network=NAME -o network=NAME"),
        ("9.0.0.0/8", "nope", {}, "there are dcos-1, dev, vault"),
        ("9.0.0.0/8", "dcos-1", {"SubPool": "9.1.0.0/16"}, "--ip-range 9.1.0.0/16"),
        ("fd00::/64", "dcos-1", {"V6": True}, "--ipv6"),
        ("", "vault", {}, "--internal"),
    ],
    ids=["no subnet", "wrong subnet", "no network", "unknown network", "range", "IPv6", "internal"],
)
def test_another_pool_is_refused_and_the_right_command_line_is_named(
    dockerd: Dockerd, subnet: str, name: str | None, more: dict[str, Any], words: str
) -> None:
    assert words in dockerd.fault("IpamDriver.RequestPool", dockerd.pool(subnet, name, **more))


def test_a_docker_network_is_made_for_a_network_that_exists(dockerd: Dockerd) -> None:
    assert dockerd.call("NetworkDriver.CreateNetwork", creation("hedgerow", "9.0.0.0/8", "dcos-1")) == {}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (creation("LocalDefault", "172.18.0.0/16", "dcos-1"), "--ipam-driver hedgerow"),
        (creation("hedgerow", "10.64.0.0/12", "dcos-1"), "--subnet 9.0.0.0/8"),
        (creation("hedgerow", "9.0.0.0/8", None), "-o network=NAME"),
        (creation("hedgerow", "9.0.0.0/8", "dcos-1", **{"com.docker.network.internal": True}), "config.yaml"),
        (creation("hedgerow", "9.0.0.0/8", "dcos-1", **{"com.docker.network.enable_ipv6": True}), "--ipv6"),
    ],
    ids=["Docker's own addresses", "another subnet", "no network", "internal", "IPv6"],
)
def test_a_docker_network_that_would_not_work_is_refused(dockerd: Dockerd, body: dict[str, Any], words: str) -> None:
    assert words in dockerd.fault("NetworkDriver.CreateNetwork", body)


def test_a_container_is_attached_step_by_step_and_gone_step_by_step(dockerd: Dockerd) -> None:
    address = dockerd.take()
    assert address == "9.0.0.1/32"
    assert dockerd.create(address) == {"Interface": {"MacAddress": "02:48:09:00:00:01"}}
    key = key_of(E1)
    assert dockerd.attachments.passing == {}
    assert dockerd.call("NetworkDriver.Join", dockerd.of()) == {
        "InterfaceName": {"SrcName": "hp-" + key.tag, "DstPrefix": "eth"},
        "Gateway": "169.254.64.1",
        "StaticRoutes": [
            {"Destination": "169.254.64.1/32", "RouteType": 1},
            {"Destination": "9.0.0.0/8", "RouteType": 0, "NextHop": "169.254.64.1"},
        ],
    }
    assert dockerd.attachments.passing == {key: (None, "eth")}
    assert dockerd.call("NetworkDriver.ProgramExternalConnectivity", dockerd.of()) == {}
    assert dockerd.call("NetworkDriver.EndpointOperInfo", dockerd.of()) == {"Value": {}}
    assert dockerd.call("NetworkDriver.RevokeExternalConnectivity", dockerd.of()) == {}
    assert dockerd.call("NetworkDriver.Leave", dockerd.of()) == {}
    assert dockerd.attachments.passing == {}
    assert dockerd.call("NetworkDriver.DeleteEndpoint", dockerd.of()) == {}
    assert dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": DCOS.id, "Address": "9.0.0.1"}) == {}
    assert dockerd.attachments.is_empty


def test_an_internal_network_has_a_gateway_too_so_docker_adds_none_of_its_own(dockerd: Dockerd) -> None:
    """Its containers may have to answer other networks; the outside is refused them by the data path."""
    dockerd.create(dockerd.take(network=VAULT))
    found = dockerd.call("NetworkDriver.Join", dockerd.of())
    assert found["Gateway"] == str(VAULT.gateway)
    assert {row["Destination"] for row in found["StaticRoutes"]} == {f"{VAULT.gateway}/32", "10.80.0.0/14"}


def test_the_same_call_repeated_has_the_same_outcome_and_another_one_its_own(dockerd: Dockerd) -> None:
    assert dockerd.take("a") == dockerd.take("a") == "9.0.0.1/32"
    assert dockerd.take("b") == "9.0.0.2/32"
    assert dockerd.create("9.0.0.1/32") == dockerd.create("9.0.0.1/32")
    assert dockerd.call("NetworkDriver.Join", dockerd.of()) == dockerd.call("NetworkDriver.Join", dockerd.of())
    for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
        assert dockerd.call(method, dockerd.of()) == dockerd.call(method, dockerd.of()) == {}


def test_what_is_not_known_is_gone_already(dockerd: Dockerd) -> None:
    for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteNetwork"):
        assert dockerd.call(method, dockerd.of()) == {}
    for address in ("169.254.64.1", "9.0.0.77", "8.8.8.8"):
        assert dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": "gone", "Address": address}) == {}
    assert dockerd.call("IpamDriver.ReleasePool", {"PoolID": "gone"}) == {}


def test_two_networks_have_two_gateways(dockerd: Dockerd) -> None:
    gateways = set()
    for network, endpoint in ((DCOS, "e1"), (DEV, "e2")):
        dockerd.create(dockerd.take(network=network), endpoint=endpoint)
        gateways.add(dockerd.call("NetworkDriver.Join", dockerd.of(endpoint))["Gateway"])
    assert len(gateways) == 2


def test_a_static_address_is_given_or_refused_in_words(dockerd: Dockerd) -> None:
    assert dockerd.take(address="9.0.0.7") == "9.0.0.7/32"
    assert "9.0.0.7 on network dcos-1 is taken" in dockerd.take(address="9.0.0.7")
    assert "8.8.8.8" in dockerd.take(address="8.8.8.8")


def test_a_mac_of_the_users_is_kept_and_not_answered(dockerd: Dockerd) -> None:
    assert dockerd.create(dockerd.take(), "02:42:ac:00:00:05") == {"Interface": {}}
    assert dockerd.attachments.rows[key_of(E1)].mac == bytes.fromhex("0242ac000005")
    assert "first octet" in dockerd.create("9.0.0.9/32", "ff:ff:ff:ff:ff:ff", "e2")["Err"]


def test_the_gateway_is_given_when_asked_for_and_no_other(dockerd: Dockerd) -> None:
    asked = {"PoolID": DCOS.id, "Address": "", "Options": {"RequestAddressType": GATEWAY}}
    assert dockerd.call("IpamDriver.RequestAddress", asked)["Address"] == "169.254.64.1/32"
    assert "--gateway" in dockerd.fault("IpamDriver.RequestAddress", {**asked, "Address": "9.0.0.1"})
    assert dockerd.attachments.is_empty


def binding(port: int, host: int = 0, protocol: int = 6, at: str = "", end: int = 0) -> dict[str, Any]:
    return {"Proto": protocol, "IP": "", "Port": port, "HostIP": at, "HostPort": host, "HostPortEnd": end or host}


def published(dockerd: Dockerd, *bindings: dict[str, Any], endpoint: str = E1) -> dict[str, Any]:
    """What dockerd hears when it has joined and says what is to be published."""
    portmap = {"com.docker.network.portmap": list(bindings), "com.docker.network.endpoint.exposedports": []}
    dockerd.create(dockerd.take(), endpoint=endpoint, options=portmap)
    dockerd.call("NetworkDriver.Join", dockerd.of(endpoint) | {"Options": portmap})
    assert dockerd.attachments.rows[key_of(endpoint)].published == ()
    return dockerd.call("NetworkDriver.ProgramExternalConnectivity", dockerd.of(endpoint) | {"Options": portmap})


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (binding(80, 8080), "8080->80/tcp"),
        (binding(53, 5353, 17), "5353->53/udp"),
        (binding(80, 8080, at="192.0.2.1"), "192.0.2.1:8080->80/tcp"),
        (binding(80, 8080, at="2001:db8::1"), "[2001:db8::1]:8080->80/tcp"),
        (binding(80, 8080, at="0.0.0.0"), "0.0.0.0:8080->80/tcp"),
        (binding(80), f"{DRAWN}->80/tcp"),
        (binding(80, 8000, end=8010), "8000->80/tcp"),
    ],
    ids=["port", "udp", "address", "IPv6 address", "every IPv4 address", "any port", "one of a range"],
)
def test_a_port_is_published_for_the_endpoint_that_is_the_way_out(
    dockerd: Dockerd, asked: dict[str, Any], shown: str
) -> None:
    assert published(dockerd, asked) == {}
    assert [str(port) for port in dockerd.attachments.rows[key_of(E1)].published] == [shown]


def test_revoke_takes_ports_back_and_without_any_nothing_is_asked(dockerd: Dockerd) -> None:
    published(dockerd, binding(80, 8080))
    assert dockerd.call("NetworkDriver.RevokeExternalConnectivity", dockerd.of()) == {}
    assert dockerd.attachments.rows[key_of(E1)].published == ()
    dockerd.attachments.calls.clear()
    assert dockerd.call("NetworkDriver.ProgramExternalConnectivity", dockerd.of()) == {}
    assert dockerd.attachments.calls == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (binding(80, 8080, 132), "protocol sctp"),
        (binding(80, 8080, at="127.0.0.1"), "cannot be published at 127.0.0.1"),
        (binding(80, 8080, at="::1"), "cannot be published at ::1"),
        (binding(80, 8080, at="fe80::1"), "cannot be published at fe80::1"),
        (binding(80, 8080, at="nonsense"), "'nonsense'"),
        (binding(80, 70000), "70000"),
        (binding(80, 8080, end=8000), "8080 to 8000"),
        (binding(0, 8080), "container port 0"),
    ],
    ids=["sctp", "loopback", "IPv6 loopback", "link-local", "no address", "no port", "no range", "nothing inside"],
)
def test_what_cannot_be_published_is_refused_in_words(dockerd: Dockerd, asked: dict[str, Any], words: str) -> None:
    assert words in published(dockerd, asked)["Err"]


def test_a_taken_port_ends_the_start_of_the_container_with_the_owners_name(dockerd: Dockerd) -> None:
    dockerd.attachments.faults["publish"] = Conflict("port 8080/tcp of this host is taken by web (9.0.0.9:80)", "x")
    assert "taken by web" in published(dockerd, binding(80, 8080))["Err"]


def test_release_address_is_the_last_word_on_an_endpoint_too(dockerd: Dockerd) -> None:
    dockerd.create(dockerd.take())
    dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": DCOS.id, "Address": "9.0.0.1"})
    assert dockerd.attachments.is_empty


def test_an_address_of_another_engine_is_not_dockers_to_release(dockerd: Dockerd) -> None:
    asyncio.run(dockerd.attachments.reserve(DCOS, "cni/c1/eth0", None))
    dockerd.call("IpamDriver.ReleaseAddress", {"PoolID": DCOS.id, "Address": "9.0.0.1"})
    assert len(dockerd.attachments.reservations()) == 1


def test_a_call_without_its_body_is_an_error_to_be_tried_again(dockerd: Dockerd) -> None:
    """dockerd repeats a broken call without its body; only a relay that died lets that through."""
    assert "try again" in dockerd.fault("NetworkDriver.Join")


def test_a_failure_is_an_answer(dockerd: Dockerd) -> None:
    dockerd.create(dockerd.take())
    dockerd.attachments.faults["attach"] = NO_ROOM
    assert dockerd.fault("NetworkDriver.Join", dockerd.of()) == "no room: make some"
    dockerd.attachments.faults["attach"] = ZeroDivisionError("oops")
    assert "oops" in dockerd.fault("NetworkDriver.Join", dockerd.of())


def test_a_call_that_takes_too_long_is_an_answer(dockerd: Dockerd, monkeypatch: pytest.MonkeyPatch) -> None:
    """dockerd has no limit of its own: it would wait for ever, and with it everybody who asks it."""
    monkeypatch.setattr(docker, "LIMIT_S", 0.01)
    dockerd.create(dockerd.take())
    dockerd.attachments.hangs = True
    assert "took longer than" in dockerd.fault("NetworkDriver.Join", dockerd.of())


def test_a_join_of_nobody_is_named(dockerd: Dockerd) -> None:
    assert E1[:12] in dockerd.fault("NetworkDriver.Join", dockerd.of())


def test_an_unknown_call_is_404_so_that_docker_knows_it_for_not_implemented(dockerd: Dockerd) -> None:
    status, body = post(dockerd.app, "/NetworkDriver.Nonsense", b"{}")
    assert status == 404
    assert "Nonsense" in json.loads(body)["Err"]


METHODS = st.sampled_from(
    ["IpamDriver.RequestPool", "IpamDriver.RequestAddress", "IpamDriver.ReleaseAddress", "NetworkDriver.CreateNetwork"]
    + [f"NetworkDriver.{name}" for name in ("CreateEndpoint", "Join", "Leave", "DeleteEndpoint")]
    + [f"NetworkDriver.{name}ExternalConnectivity" for name in ("Program", "Revoke")]
)
NAMES = st.sampled_from(["PoolID", "Address", "Options", "EndpointID", "Interface", "IPv4Data", "Pool", "V6"])
VALUES = st.none() | st.text(max_size=9) | st.integers() | st.booleans()
BODIES = st.dictionaries(
    NAMES, st.recursive(VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner))
)


@settings(deadline=None)
@given(method=METHODS, body=st.binary(max_size=60) | BODIES.map(lambda rows: json.dumps(rows).encode()))
def test_any_body_gets_an_answer(method: str, body: bytes) -> None:
    status, answer = post(Dockerd().app, f"/{method}", body, Hedgerow_Call="c")
    assert status == 200
    assert "agent failed" not in json.loads(answer).get("Err", "")


def test_a_network_for_apps_takes_containers_with_a_pass_only(dockerd: Dockerd) -> None:
    dockerd.state.snapshot = snapshot(FOR_APPS)
    instance = dockerd.attachments.assign("web.1", FOR_APPS)
    address = dockerd.take()
    assert "network dcos-1 is for apps only" in dockerd.create(address)["Err"]
    assert dockerd.attachments.rows == {}
    options = {"com.docker.network.endpoint.exposedports": [], **dockerd.attachments.passes.options(instance)}
    assert "Err" not in dockerd.create(address, options=options)
