"""Published ports on a real kernel: who gets through, as whom, and who does not (S12).

Around the host: a LAN with the other agent and a stranger, and a place behind the host that the LAN reaches by it.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from conftest import Proof
from kernel.calls import ANSWER_S, TCP, UDP, ask, serving
from kernel.hosts import DCOS, DEV, OTHER, UNDERLAY, Container, Host, eventually

from hedgerow.kernel import netns
from hedgerow.model.agent import Prefix6
from hedgerow.model.endpoint import EndpointKey
from hedgerow.model.network import Network
from hedgerow.model.published import MAX_PUBLISHED
from hedgerow.model.snapshot import Snapshot

STRANGER, SECOND, FAR = "10.99.0.9", "10.99.0.50", "10.98.0.2"
STRANGER6, UNDERLAY6, FAR6 = "fd99::9", "fd99::1", "fd98::2"
SUBNET6 = IPv6Network("fd09::/48")
SILENCE_S = 0.5


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("host")) as host:
        host.snapshot = with_ipv6_and_walls(host.snapshot)
        host.run(f"ip address add {SECOND}/24 dev eth0")
        host.run(f"ip -6 address add {UNDERLAY6}/64 dev eth0 nodad")
        host.lan.run(f"ip address add {STRANGER}/24 dev eth0")
        host.lan.run(f"ip -6 address add {STRANGER6}/64 dev eth0 nodad")
        host.start_controller()
        host.start_agent()
        host.applied()
        yield host


def with_ipv6_and_walls(snapshot: Snapshot) -> Snapshot:
    """IPv6 on dcos-1; dev is closed to its hosts, and its containers to each other."""
    dual = replace(DCOS, spec=replace(DCOS.spec, subnet6=SUBNET6, prefix6=64))
    closed = replace(DEV, spec=replace(DEV.spec, hosts="deny", isolated=True))
    networks: dict[object, Network] = {**snapshot.networks, DCOS.id: dual, DEV.id: closed}
    agents = {
        id: replace(agent, prefixes6=(Prefix6(network=DCOS.id, block=IPv6Network(f"fd09:0:0:{number}::/64")),))
        for number, (id, agent) in enumerate(snapshot.agents.items(), 1)
    }
    cluster = replace(snapshot.cluster, networks=tuple(each.spec for each in networks.values()))
    return replace(snapshot, networks=networks, agents=agents, cluster=cluster)


New = Callable[[], Container]


@pytest.fixture
def new(host: Host) -> Iterator[New]:
    """Containers that are gone after the test, and their ports with them."""
    made: list[Container] = []

    def make() -> Container:
        made.append(host.container())
        return made[-1]

    yield make
    for container in made:
        host.cni("DEL", container)
        container.end()


@pytest.fixture
def far(host: Host) -> Iterator[Container]:
    """Behind the host: what the LAN says to it is transit."""
    place, link = host.container(), "t" + secrets.token_hex(4)
    host.run(f"ip link add {link} type veth peer name eth0 netns {place.holder.pid}")
    try:
        for where, command in (
            (host, f"ip address add 10.98.0.1/24 dev {link}"),
            (host, f"ip -6 address add fd98::1/64 dev {link} nodad"),
            (host, f"ip link set {link} up"),
            (place, f"ip address add {FAR}/24 dev eth0"),
            (place, f"ip -6 address add {FAR6}/64 dev eth0 nodad"),
            (place, "ip link set eth0 up"),
            (place, "ip route add default via 10.98.0.1"),
            (place, "ip -6 route add default via fd98::1"),
            (host.lan, f"ip route replace 10.98.0.0/24 via {UNDERLAY}"),
            (host.lan, f"ip -6 route replace fd98::/64 via {UNDERLAY6}"),
        ):
            where.run(command)
        yield place
    finally:
        host.run(f"ip link delete {link}")
        place.end()


def mapping(port: int, to: int = 80, protocol: str = "tcp", at: str = "") -> dict[str, object]:
    found: dict[str, object] = {"hostPort": port, "containerPort": to, "protocol": protocol}
    return found | ({"hostIP": at} if at else {})


def test_a_port_is_reached_at_every_address_of_the_host_and_the_client_is_seen(host: Host, new: New) -> None:
    for kind, word in ((TCP, "tcp"), (UDP, "udp")):
        container = new()
        container.add(portMappings=[mapping(8080, 80, word)])
        for at, addresses, source in (
            ("0.0.0.0", (str(UNDERLAY), SECOND), STRANGER),
            ("::", (UNDERLAY6,), STRANGER6),
        ):
            with serving(container.netns, 80, kind, at) as name:
                for address in addresses:
                    assert ask(host.lan.netns, address, 8080, kind, source) == f"{name} {source}"
        host.cni("DEL", container)


def test_another_agents_host_reaches_it_too_and_the_host_itself(host: Host, new: New) -> None:
    container = new()
    container.add(portMappings=[mapping(8080)])
    with serving(container.netns) as name:
        assert ask(host.lan.netns, str(UNDERLAY), 8080, source=str(OTHER)) == f"{name} {OTHER}"
        assert ask(host.namespace, str(UNDERLAY), 8080) == f"{name} {UNDERLAY}"
        assert ask(host.namespace, "127.0.0.1", 8080) == "refused"


def test_a_port_of_one_address_is_no_port_of_another(host: Host, new: New) -> None:
    container, other = new(), new()
    container.add(portMappings=[mapping(8080, at=SECOND)])
    other.add(portMappings=[mapping(8080, at=str(UNDERLAY))])
    with serving(container.netns) as name, serving(other.netns) as others:
        assert ask(host.lan.netns, SECOND, 8080, source=STRANGER) == f"{name} {STRANGER}"
        assert ask(host.lan.netns, str(UNDERLAY), 8080, source=STRANGER) == f"{others} {STRANGER}"
        assert ask(host.lan.netns, UNDERLAY6, 8080) == "refused"


def test_the_walls_of_a_network_do_not_take_what_was_published_and_still_hold(host: Host, new: New) -> None:
    """Publishing is by whoever runs the container; its network keeps hosts out, this one's by the port as well."""
    container, other = new(), new()
    address = container.add("dev", portMappings=[mapping(8080)])
    other.add("dev")
    with serving(container.netns) as name:
        assert ask(host.lan.netns, str(UNDERLAY), 8080, source=STRANGER) == f"{name} {STRANGER}"
        assert ask(host.lan.netns, str(UNDERLAY), 8080, source=str(OTHER)) == f"{name} {OTHER}"
        assert ask(host.namespace, address, 80) == "refused"
        assert ask(host.namespace, str(UNDERLAY), 8080) == "refused"
        assert ask(other.netns, address, 80) == "refused"


def test_only_what_is_published_is_reached_and_only_by_the_hosts_address(host: Host, new: New) -> None:
    """S11, S12: also with a route to the containers by way of the host."""
    container = new()
    address = container.add(portMappings=[mapping(8080)])
    host.lan.run(f"ip route replace 9.0.1.0/24 via {UNDERLAY}")
    try:
        with serving(container.netns), serving(container.netns, 81):
            assert ask(host.lan.netns, address, 80) == "refused"
            assert ask(host.lan.netns, address, 81) == "refused"
            assert ask(host.lan.netns, str(UNDERLAY), 80) == "refused"
    finally:
        host.lan.run("ip route delete 9.0.1.0/24")


def test_containers_do_not_reach_a_published_port_by_their_hosts_address(host: Host, new: New) -> None:
    published, other = new(), new()
    published.add(portMappings=[mapping(8080), mapping(8080, at=SECOND, protocol="udp")])
    other.add("dev")
    with serving(published.netns):
        for client in (published, other):
            for address in (str(UNDERLAY), SECOND):
                assert ask(client.netns, address, 8080) == "refused"


def test_transit_and_what_containers_say_to_elsewhere_is_not_taken(
    host: Host, new: New, far: Container, proof: Proof
) -> None:
    """S12, CVE-2025-67499: port 53 is published, and others' DNS is asked."""
    taker, asker = new(), new()
    taker.add(portMappings=[mapping(53, 53, "udp"), mapping(53, 53)])
    asker.add()
    tries = proof.count("S12", small=10, full=1_000) // 10
    for kind in (TCP, UDP):
        with serving(taker.netns, 53, kind), serving(far.netns, 53, kind) as name:
            for _ in range(tries):
                assert ask(host.lan.netns, FAR, 53, kind, STRANGER) == f"{name} {STRANGER}"
                assert ask(asker.netns, FAR, 53, kind).startswith(name)
        with serving(taker.netns, 53, kind, "::"), serving(far.netns, 53, kind, "::") as name:
            for _ in range(tries):
                assert ask(host.lan.netns, FAR6, 53, kind, STRANGER6) == f"{name} {STRANGER6}"
        with serving(taker.netns, 53, kind), serving(host.lan.netns, 53, kind, STRANGER) as name:
            for _ in range(tries):
                assert ask(asker.netns, STRANGER, 53, kind).startswith(name)
                assert ask(host.namespace, STRANGER, 53, kind).startswith(name)


def test_a_port_of_127_0_0_1_is_refused_in_words(host: Host, new: New) -> None:
    container = new()
    for address in ("127.0.0.1", "::1"):
        status, body = host.cni("ADD", container, portMappings=[mapping(8080, at=address)])
        assert status == 500
        assert f"cannot be published at {address}" in body
    assert container.link not in host.run("ip link")
    assert ask(host.lan.netns, str(UNDERLAY), 8080) == "refused"


def test_a_taken_port_is_refused_with_its_owners_name(host: Host, new: New) -> None:
    container, other = new(), new()
    address = container.add(portMappings=[mapping(8080)])
    for asked in (mapping(8080), mapping(8080, at=SECOND)):
        status, body = host.cni("ADD", other, portMappings=[asked])
        assert status == 500
        assert json.loads(body)["code"] == 102
        assert f"is taken by cni endpoint {container.id[:12]} ({address}:80)" in body
    with netns.open_socket(host.namespace, socket.AF_INET, TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((SECOND, 8181))
        listener.listen()
        status, body = host.cni("ADD", other, portMappings=[mapping(8181)])
        assert status == 500
        assert f"which listens on {SECOND}:8181" in body
        assert "(pid " in body
        host.cni("ADD", other, portMappings=[mapping(8181, at=str(UNDERLAY))])
        assert host.cni("ADD", other, portMappings=[mapping(8181, protocol="udp")])[0] == 200
    host.cni("DEL", container)
    again = new()
    again.add(portMappings=[mapping(8080)])


def test_an_address_that_the_host_does_not_have_is_refused(host: Host, new: New) -> None:
    status, body = host.cni("ADD", new(), portMappings=[mapping(8080, at="192.0.2.7")])
    assert status == 500
    assert "this host has no address 192.0.2.7" in body


def test_a_port_that_is_left_open_is_drawn_and_the_controller_hears_of_it(host: Host, new: New) -> None:
    container, controller = new(), host.controller
    assert controller is not None
    container.add(portMappings=[mapping(0), mapping(0, 53, "udp")])
    key = EndpointKey("cni", container.id, "eth0")

    def published() -> list[tuple[str, int]]:
        said = [e for report in controller.reports for e in report.endpoints if e.key == key]
        return [(each.protocol, each.host_port) for each in said[-1].published]

    eventually(lambda: len(published()) == 2, "both are reported")
    (_, port), (protocol, other) = published()
    assert protocol == "udp"
    assert port != other
    with serving(container.netns) as name:
        assert ask(host.lan.netns, str(UNDERLAY), port, source=STRANGER) == f"{name} {STRANGER}"
    before = published()
    container.add(portMappings=[mapping(0), mapping(0, 53, "udp")])
    assert published() == before


def test_a_port_outlives_the_agent_and_comes_back_when_somebody_takes_it_away(host: Host, new: New) -> None:
    container = new()
    container.add(portMappings=[mapping(8080)])
    with serving(container.netns) as name:
        right = f"{name} {STRANGER}"

        def reached() -> bool:
            return ask(host.lan.netns, str(UNDERLAY), 8080, source=STRANGER) == right

        host.stop_agent(signal.SIGKILL)
        assert reached()
        host.start_agent()
        assert reached()
        for harm in (
            "nft delete element inet hedgerow published4 { tcp . 8080 }",
            "nft flush set inet hedgerow published_to4",
            "nft delete table inet hedgerow",
        ):
            host.run(harm)
            eventually(reached, f"it is reached again after {harm}")
        host.run("nft add element inet hedgerow published4 { tcp . 9999 : 9.0.1.77 . 80 }")
        eventually(lambda: "9999" not in host.run("nft list map inet hedgerow published4"), "what is nobody's goes")
        assert reached()


def test_an_open_connection_outlives_the_agent_and_a_table_that_is_written_anew(host: Host, new: New) -> None:
    container = new()
    container.add(portMappings=[mapping(8080)])
    with (
        netns.open_socket(container.netns, socket.AF_INET, TCP) as listener,
        netns.open_socket(host.lan.netns, socket.AF_INET, TCP) as client,
    ):
        listener.bind(("", 80))
        listener.listen()
        client.settimeout(ANSWER_S)
        client.bind((STRANGER, 0))
        client.connect((str(UNDERLAY), 8080))
        server, _ = listener.accept()
        with server:
            server.settimeout(ANSWER_S)

            def passes() -> bool:
                client.send(b"x")
                server.send(server.recv(1))
                return client.recv(1) == b"x"

            assert passes()
            host.run("nft add set inet hedgerow foreign { type ipv4_addr; }")
            eventually(lambda: "foreign" not in host.run("nft list table inet hedgerow"), "the table is written anew")
            assert passes()
            host.stop_agent(signal.SIGKILL)
            assert passes()
            host.start_agent()
            assert passes()


def test_with_the_container_its_ports_and_their_connections_are_gone(host: Host, new: New) -> None:
    """S9: who has the address next gets nothing of them."""
    container = new()
    address = container.add(portMappings=[mapping(8080, 80, "udp"), mapping(8080)])
    with serving(container.netns, 80, UDP) as name, netns.open_socket(host.lan.netns, socket.AF_INET, UDP) as client:
        client.settimeout(ANSWER_S)
        client.bind((STRANGER, 0))
        client.connect((str(UNDERLAY), 8080))
        client.send(b"x")
        assert client.recv(100).decode() == f"{name} {STRANGER}"
        host.cni("DEL", container)
        tracked = f"/proc/{host.namespace.parent.parent.name}/net/nf_conntrack"
        eventually(lambda: f"src={address} " not in Path(tracked).read_text(), "nothing is tracked of it")
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
    assert ask(host.lan.netns, str(UNDERLAY), 8080) == "refused"
    for name in ("map published4", "map published_at4", "set published_to4", "map published6"):
        assert "elements" not in host.run(f"nft list {name.replace(' ', ' inet hedgerow ', 1)}")


def test_a_sender_of_udp_that_called_before_it_was_published_gets_through(host: Host, new: New) -> None:
    container = new()
    with netns.open_socket(host.lan.netns, socket.AF_INET, UDP) as client:
        client.settimeout(SILENCE_S)
        client.bind((STRANGER, 0))
        client.connect((str(UNDERLAY), 8080))
        client.send(b"x")
        with pytest.raises(OSError):  # noqa: PT011
            client.recv(100)
        container.add(portMappings=[mapping(8080, 80, "udp")])
        with serving(container.netns, 80, UDP) as name:

            def answered() -> bool:
                client.send(b"x")
                return client.recv(100).decode() == f"{name} {STRANGER}"

            eventually(answered, "an answer")


def test_a_container_has_as_many_ports_as_it_may_and_not_one_more(host: Host, new: New) -> None:
    container = new()
    ports = [mapping(10_000 + each) for each in range(MAX_PUBLISHED + 1)]
    status, body = host.cni("ADD", container, portMappings=ports)
    assert status == 500
    assert f"it can have {MAX_PUBLISHED}" in body
    container.add(portMappings=ports[1:])
    with serving(container.netns) as name:
        for port in (10_001, 10_000 + MAX_PUBLISHED):
            assert ask(host.lan.netns, str(UNDERLAY), port, source=STRANGER) == f"{name} {STRANGER}"
    assert ask(host.lan.netns, str(UNDERLAY), 10_000) == "refused"


def test_the_tunnels_port_is_nobodys(host: Host, new: New) -> None:
    status, body = host.cni("ADD", new(), portMappings=[mapping(64000, protocol="udp")])
    assert status == 500
    assert "that of the tunnels" in body
