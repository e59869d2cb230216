"""What the firewall's rules do to packets: a container, its host, and others, as three namespaces without data path.

The container hangs on hr-host itself here: what the data path lets pass comes in by it, and the host routes to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from hedgerow.kernel import netns
from hedgerow.model.network import DNS_ADDRESS, HostService, Network, NetworkId, NetworkName, NetworkSpec, Vni
from hedgerow.policy.firewall import FLOWS_AT_ONCE, FLOWS_MORE, JUDGED_MARK, ruleset

HOST, AGENT, CONTROLLER, STRANGER = "192.0.2.1", "192.0.2.2", "192.0.2.8", "192.0.2.9"
OUTSIDE, OTHER_ENGINE = "203.0.113.1", "172.30.0.2"
OPEN, INTERNAL, SERVED = "10.1.0.2", "10.2.0.2", "10.3.0.2"
METADATA, LINK_LOCAL = "169.254.169.254", "169.254.169.253"
PORT = 64000
SOON_S = 0.1 * float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@dataclass(frozen=True)
class World:
    container: Path
    host: Path
    others: Path

    def dropped(self, reason: str) -> int:
        listed = nft(self.host, "-j", "list", "counter", "inet", "hedgerow", reason)
        return int(next(row["counter"]["packets"] for row in json.loads(listed)["nftables"] if "counter" in row))


def run(*words: str, text: str = "") -> str:
    return subprocess.run(words, input=text, text=True, capture_output=True, check=True).stdout


def nft(where: Path, *words: str, text: str = "") -> str:
    return run("ip", "netns", "exec", where.name, "nft", *words, text=text)


def network(number: int, *services: HostService, internal: bool = False) -> Network:
    subnet = IPv4Network(f"10.{number}.0.0/16")
    name = NetworkName(f"n{number}")
    spec = NetworkSpec(name=name, subnet=subnet, prefix=24, internal=internal, host_services=services)
    return Network(id=NetworkId(f"{number:032x}"), vni=Vni(5000 + number), gateway_index=number, spec=spec)


RULES = ruleset(
    networks=[
        network(1),
        network(2, internal=True),
        network(3, HostService("api"), HostService("metadata"), HostService("port", "tcp", 9100)),
    ],
    agents=[IPv4Address(HOST), IPv4Address(AGENT)],
    underlay=IPv4Address(HOST),
    link="under",
    tunnel_port=PORT,
    controllers=[IPv4Address(CONTROLLER)],
)

LINKS = f"""
-n H link add hr-host type veth peer name eth0 netns C
-n H link add under type veth peer name lan netns O
-n H address add {HOST}/24 dev under
-n H address add 169.254.64.1/32 dev hr-host
-n H address add {DNS_ADDRESS}/32 dev hr-host
-n H link set lo up
-n H link set hr-host up
-n H link set under up
-n H route add 10.1.0.0/16 dev hr-host
-n H route add 10.2.0.0/16 dev hr-host
-n H route add 10.3.0.0/16 dev hr-host
-n H link add bridge0 type bridge
-n H link set bridge0 up
-n H address add 172.30.0.1/24 dev bridge0
-n H route add default via {STRANGER}
-n C address add {OPEN}/32 dev eth0
-n C address add {INTERNAL}/32 dev eth0
-n C address add {SERVED}/32 dev eth0
-n C link set lo up
-n C link set eth0 up
-n C route add 169.254.64.1/32 dev eth0
-n C route add default via 169.254.64.1
-n O address add {AGENT}/24 dev lan
-n O address add {CONTROLLER}/24 dev lan
-n O address add {STRANGER}/24 dev lan
-n O address add {OUTSIDE}/32 dev lan
-n O address add {METADATA}/32 dev lan
-n O address add {LINK_LOCAL}/32 dev lan
-n O link set lo up
-n O link set lan up
-n O route add 10.0.0.0/8 via {HOST}
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    mark = secrets.token_hex(4)
    names = {letter: f"t{mark}{letter.lower()}" for letter in "CHO"}
    with contextlib.ExitStack() as undo:
        for name in names.values():
            run("ip", "netns", "add", name)
            undo.callback(run, "ip", "netns", "del", name)
        for line in LINKS.strip().splitlines():
            run("ip", *(names.get(word, word) for word in line.split()))
        for letter in "CHO":
            run("ip", "netns", "exec", names[letter], "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        run("ip", "netns", "exec", names["H"], "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
        found = World(*(netns.named(names[letter]) for letter in "CHO"))
        nft(found.host, "-f", "-", text=RULES)
        yield found


@contextlib.contextmanager
def listener(where: Path, address: str, port: int, kind: int = TCP) -> Iterator[socket.socket]:
    with netns.open_socket(where, socket.AF_INET, kind) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        opened.settimeout(2)
        if kind == TCP:
            opened.listen()
        yield opened


@contextlib.contextmanager
def caller(where: Path, source: str, port: int = 0, kind: int = TCP) -> Iterator[socket.socket]:
    with netns.open_socket(where, socket.AF_INET, kind) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((source, port))
        opened.settimeout(2)
        yield opened


def heard(where: Path, source: str, to: tuple[str, int], listens: Path) -> str:
    """The address that the listener sees, or what the caller is told."""
    with listener(listens, *to) as server, caller(where, source) as client:
        begun = time.monotonic()
        try:
            client.connect(to)
        except OSError as error:
            assert time.monotonic() - begun < SOON_S, "a refusal must come at once"
            return type(error).__name__ if isinstance(error, ConnectionError) else str(error.strerror)
        connection, (seen, _) = server.accept()
        connection.close()
        return str(seen)


def told(where: Path, source: str, to: tuple[str, int]) -> str:
    """What a UDP sender hears back."""
    with caller(where, source, kind=UDP) as client:
        client.connect(to)
        client.send(b"x")
        try:
            client.recv(100)
        except OSError as error:
            return type(error).__name__ if isinstance(error, ConnectionError) else str(error.strerror or error)
    return "an answer"


def test_a_container_reaches_the_outside_with_its_hosts_address(world: World) -> None:
    assert heard(world.container, OPEN, (OUTSIDE, 8080), world.others) == HOST


def test_a_container_of_an_internal_network_does_not(world: World) -> None:
    before = world.dropped("internal_out")
    assert heard(world.container, INTERNAL, (OUTSIDE, 8080), world.others) == "ConnectionRefusedError"
    assert world.dropped("internal_out") == before + 1


@pytest.mark.parametrize("address", [HOST, "169.254.64.1", str(DNS_ADDRESS)])
def test_a_service_of_the_host_is_refused_at_each_of_its_addresses(world: World, address: str) -> None:
    before = world.dropped("host_service")
    assert heard(world.container, OPEN, (address, 8080), world.host) == "ConnectionRefusedError"
    assert world.dropped("host_service") == before + 1


def test_dns_and_ping_are_what_a_container_may_ask_its_host(world: World) -> None:
    assert heard(world.container, OPEN, (str(DNS_ADDRESS), 53), world.host) == OPEN
    assert heard(world.container, OPEN, (HOST, 53), world.host) == "ConnectionRefusedError"
    for address in (HOST, AGENT, OUTSIDE):
        run("ip", "netns", "exec", world.container.name, "ping", "-c1", "-W1", "-I", OPEN, address)


@pytest.mark.parametrize("address", [AGENT, CONTROLLER])
def test_another_host_of_the_cluster_is_refused_at_once(world: World, address: str) -> None:
    before = world.dropped("cluster_host")
    assert heard(world.container, OPEN, (address, 8080), world.others) == "ConnectionRefusedError"
    assert told(world.container, OPEN, (address, 5353)) != "an answer"
    assert world.dropped("cluster_host") == before + 2


def test_what_host_services_names_is_open_to_that_network_alone(world: World) -> None:
    """Its own host's port, the controllers' API, the metadata service: each of them, and nothing beside it."""
    opened = [((HOST, 9100), world.host), ((CONTROLLER, 8443), world.others), ((METADATA, 80), world.others)]
    near = [
        ((HOST, 9101), world.host),
        ((HOST, 8443), world.host),
        ((AGENT, 8443), world.others),
        ((CONTROLLER, 9100), world.others),
        ((LINK_LOCAL, 80), world.others),
    ]
    for to, where in opened:
        assert heard(world.container, SERVED, to, where) in (HOST, SERVED), to
        assert heard(world.container, OPEN, to, where) == "ConnectionRefusedError", to
    for to, where in near:
        assert heard(world.container, SERVED, to, where) == "ConnectionRefusedError", to


def test_what_is_let_pass_to_and_from_a_container_bears_the_mark(world: World) -> None:
    marked = f"meta mark & {JUDGED_MARK:#x} == {JUDGED_MARK:#x}"
    chains = "\n".join(
        f"chain {way} {{ type filter hook {hook}; policy accept; {link} {marked} counter; {link} counter; }}"
        for way, hook, link in (
            ("into", "postrouting priority 300", 'oifname "hr-host" tcp dport 8080'),
            ("back", "postrouting priority 301", 'oifname "hr-host" tcp sport 8080'),
            ("out", "postrouting priority 302", 'oifname "under" tcp dport 8080'),
        )
    )
    nft(world.host, "-f", "-", text=f"table ip look {{\n{chains}\n}}")
    try:
        assert heard(world.host, HOST, (OPEN, 8080), world.container) == HOST
        assert heard(world.container, OPEN, (OUTSIDE, 8080), world.others) == HOST
        listed = nft(world.host, "list", "table", "ip", "look")
    finally:
        nft(world.host, "delete", "table", "ip", "look")
    packets = [int(line.split("packets ")[1].split()[0]) for line in listed.splitlines() if "packets" in line]
    assert packets[0::2] == packets[1::2], listed
    assert all(packets), listed


def test_one_container_does_not_fill_the_hosts_table_of_connections(world: World) -> None:
    before, sent = world.dropped("too_many_flows"), 0
    with caller(world.container, SERVED, kind=UDP) as client:
        while world.dropped("too_many_flows") == before:
            for _ in range(1000):
                sent += 1
                client.sendto(b"x", (OUTSIDE, sent))
    assert sent > FLOWS_AT_ONCE + FLOWS_MORE
    assert heard(world.container, OPEN, (OUTSIDE, 8080), world.others) == HOST


def test_another_engines_network_on_the_host_is_refused_at_once(world: World) -> None:
    before = world.dropped("other_engine")
    with caller(world.container, OPEN) as client, pytest.raises(ConnectionRefusedError):
        client.connect((OTHER_ENGINE, 80))
    assert world.dropped("other_engine") == before + 1


def test_a_port_that_docker_publishes_on_the_host_is_a_service_of_the_host(world: World) -> None:
    """Docker's rule takes every local address, before our forward chain could know."""
    published = f"fib daddr type local tcp dport 8080 dnat to {OUTSIDE}:80"
    chain = f"chain pre {{ type nat hook prerouting priority dstnat; {published}; }}"
    nft(world.host, "-f", "-", text=f"table ip docker {{ {chain}; }}")
    try:
        assert heard(world.container, OPEN, (HOST, 8080), world.host) == "ConnectionRefusedError"
    finally:
        nft(world.host, "delete", "table", "ip", "docker")


def test_a_packet_by_a_link_of_ours_that_met_no_program_is_dropped(world: World) -> None:
    before = world.dropped("no_program")
    run(*f"ip -n {world.host.name} link add hr-bare type veth peer name bare netns {world.container.name}".split())
    try:
        run(*f"ip -n {world.host.name} link set hr-bare up".split())
        run(*f"ip -n {world.container.name} address add 198.51.100.2/30 dev bare".split())
        run(*f"ip -n {world.container.name} link set bare up".split())
        run(*f"ip -n {world.host.name} address add 198.51.100.1/30 dev hr-bare".split())
        with listener(world.host, "198.51.100.1", 53), caller(world.container, "198.51.100.2") as client:
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.connect(("198.51.100.1", 53))
    finally:
        run(*f"ip -n {world.host.name} link del hr-bare".split())
    assert world.dropped("no_program") > before


def test_the_outside_does_not_reach_a_container(world: World) -> None:
    before = world.dropped("unpublished")
    assert heard(world.others, OUTSIDE, (OPEN, 8080), world.container) == "ConnectionRefusedError"
    assert world.dropped("unpublished") == before + 1


def test_the_host_reaches_its_own_container(world: World) -> None:
    assert heard(world.host, HOST, (OPEN, 8080), world.container) == HOST


def test_a_packet_from_outside_with_a_containers_address_is_dropped(world: World) -> None:
    before = world.dropped("borrowed_source")
    run("ip", "-n", world.others.name, "address", "add", "10.1.0.9/32", "dev", "lan")
    with listener(world.host, HOST, 8080, UDP) as server, caller(world.others, "10.1.0.9", kind=UDP) as client:
        client.sendto(b"x", (HOST, 8080))
        with caller(world.others, STRANGER, kind=UDP) as honest:
            honest.sendto(b"y", (HOST, 8080))
        assert server.recv(10) == b"y"
    assert world.dropped("borrowed_source") == before + 1


def test_vxlan_is_taken_from_agents_and_from_nobody_else(world: World) -> None:
    before = world.dropped("tunnel_stranger")
    with listener(world.host, "", PORT, UDP) as server:
        for source, to in ((STRANGER, HOST), (OUTSIDE, HOST), (AGENT, HOST)):
            with caller(world.others, source, kind=UDP) as client:
                client.sendto(source.encode(), (to, PORT))
        assert server.recv(100) == AGENT.encode()
    assert world.dropped("tunnel_stranger") == before + 2


def test_no_process_of_the_host_speaks_vxlan(world: World) -> None:
    before = world.dropped("tunnel_local")
    with caller(world.host, HOST, kind=UDP) as client, pytest.raises(PermissionError):
        client.sendto(b"x", (AGENT, PORT))
    assert world.dropped("tunnel_local") == before + 1


def test_nothing_forwarded_reaches_an_agents_tunnel_port(world: World) -> None:
    before = world.dropped("tunnel_forwarded")
    with caller(world.container, OPEN, kind=UDP) as client:
        client.sendto(b"x", (AGENT, PORT))
        client.sendto(b"x", (HOST, PORT))
    assert world.dropped("tunnel_forwarded") == before + 1


def test_udp_from_the_tunnels_port_leaves_by_another(world: World) -> None:
    with listener(world.others, OUTSIDE, 8080, UDP) as server, caller(world.container, OPEN, PORT, UDP) as client:
        client.sendto(b"x", (OUTSIDE, 8080))
        _, (address, port) = server.recvfrom(10)
        assert address == HOST
        assert port != PORT
        server.sendto(b"y", (address, port))
        assert client.recv(10) == b"y"


def test_another_port_is_kept(world: World) -> None:
    with listener(world.others, OUTSIDE, 8080, UDP) as server, caller(world.container, OPEN, 40123, UDP) as client:
        client.sendto(b"x", (OUTSIDE, 8080))
        assert server.recvfrom(10)[1] == (HOST, 40123)


def test_the_tunnel_is_not_in_connection_tracking(world: World) -> None:
    chain = f"chain look {{ type filter hook input priority 0; udp dport {PORT} ct state untracked counter; }}"
    nft(world.host, "-f", "-", text=f"table ip look {{ {chain}; }}")
    try:
        with listener(world.host, HOST, PORT, UDP) as server, caller(world.others, AGENT, kind=UDP) as client:
            client.sendto(b"x", (HOST, PORT))
            server.recv(10)
        assert "packets 1 " in nft(world.host, "list", "table", "ip", "look")
    finally:
        nft(world.host, "delete", "table", "ip", "look")
