"""Networks of IPv6, alone and beside IPv4, on a real kernel: an agent's host, its containers, and the LAN."""

from __future__ import annotations

import json
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from kernel.hosts import DCOS, DEV, Container, Host, eventually

from hedgerow.kernel import netns
from hedgerow.model.agent import Prefix, Prefix6
from hedgerow.model.network import Network, NetworkId, NetworkName, NetworkSpec, Vni

LAN6, HOST6 = "fd99::2", "fd99::1"
VTEP6 = "fd01:a::1"


def network(number: int, name: str, subnet6: str, subnet: str = "", *, internal: bool = False) -> Network:
    spec = NetworkSpec(
        name=NetworkName(name),
        subnet=IPv4Network(subnet) if subnet else None,
        prefix=24 if subnet else None,
        subnet6=IPv6Network(subnet6),
        prefix6=64,
        internal=internal,
    )
    return Network(id=NetworkId(str(number) * 32), vni=Vni(70000 + number), gateway_index=number, spec=spec)


BOTH = network(3, "both", "fd00:3::/48", "10.96.0.0/12")
SIX = network(4, "six", "fd00:4::/48")
VAULT = network(5, "vault", "fd00:5::/48", internal=True)


def with_ipv6(host: Host) -> Host:
    """The host's cluster has three networks more, and there is IPv6 on the LAN."""
    known = host.snapshot
    own, agents = known.agents[host.id], {}
    for id, agent in known.agents.items():
        number = 1 if id == own.id else 2
        prefixes6 = tuple(
            Prefix6(network=each.id, block=IPv6Network(f"fd00:{each.gateway_index}:0:{number}::/64"))
            for each in (BOTH, SIX, VAULT)
        )
        agents[id] = replace(
            agent,
            vtep=replace(agent.vtep, ip6=IPv6Address(f"fd01:a::{number}")),
            prefixes=(*agent.prefixes, Prefix(network=BOTH.id, block=IPv4Network(f"10.96.{number}.0/24"))),
            prefixes6=prefixes6,
        )
    vtep = replace(known.cluster.vtep, subnet6=IPv6Network("fd01:a::/64"))
    networks = {each.id: each for each in (DCOS, DEV, BOTH, SIX, VAULT)}
    host.snapshot = replace(known, networks=networks, agents=agents, cluster=replace(known.cluster, vtep=vtep))
    host.run(f"ip address add {HOST6}/64 dev eth0 nodad")
    host.lan.run(f"ip address add {LAN6}/64 dev eth0 nodad")
    return host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("host")) as host:
        with_ipv6(host).start_controller()
        host.start_agent()
        host.applied()
        yield host


def started(host: Host, network: str) -> Container:
    container = host.container()
    container.add(network)
    return container


def of(container: Container, version: int) -> str:
    ips = container.result["ips"]
    assert isinstance(ips, list)
    every = [row["address"].partition("/")[0] for row in ips]
    (found,) = [each for each in every if (":" in each) == (version == 6)]
    return str(found)


def test_containers_of_a_network_reach_each_other_by_each_of_its_families(host: Host) -> None:
    one, other, stranger = started(host, "both"), started(host, "both"), started(host, "six")
    assert one.reaches(of(other, 4))
    assert one.reaches(of(other, 6))
    assert not one.reaches(of(stranger, 6))
    assert not stranger.reaches(of(one, 6))


def test_an_ipv6_only_network_has_no_ipv4_at_all(host: Host) -> None:
    one, other = started(host, "six"), started(host, "six")
    assert one.reaches(of(other, 6))
    assert [row["dst"] for row in json.loads(one.run("ip -json -4 route show"))] == []
    assert "inet " not in one.run("ip address show eth0")


def test_a_container_has_its_address_alone_the_gateway_and_a_way_out(host: Host) -> None:
    container = started(host, "both")
    shown = json.loads(container.run("ip -json -6 address show eth0"))[0]
    (only,) = shown["addr_info"]
    assert (only["local"], only["prefixlen"], only["scope"]) == (of(container, 6), 128, "global")
    assert "tentative" not in only
    routes = {(row["dst"], row.get("gateway")) for row in json.loads(container.run("ip -json -6 route show dev eth0"))}
    assert routes - {(of(container, 6), None)} == {
        ("fe80::3", None),
        ("fd00:3::/48", "fe80::3"),
        ("default", "fe80::3"),
    }
    with netns.inside(container.netns):
        assert Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").read_text() == "0\n"


def test_the_gateway_answers(host: Host) -> None:
    assert started(host, "both").reaches("fe80::3%eth0")


def test_the_links_of_the_host_take_nothing_from_routers(host: Host) -> None:
    container = started(host, "both")
    for link in (container.link, "hr-host", "hr-peer", "hedge0"):
        assert host.sysctl(f"ipv6/conf/{link}/accept_ra") == "0"
        assert host.sysctl(f"ipv6/conf/{link}/accept_redirects") == "0"


def test_a_host_reaches_its_own_containers_from_its_vtep_address(host: Host) -> None:
    container = started(host, "six")
    host.run(f"ping -c 1 -W 2 {of(container, 6)}")
    assert f"src {VTEP6}" in host.run(f"ip route get {of(container, 6)}")


def test_a_container_reaches_its_host_by_ping_alone(host: Host) -> None:
    container = started(host, "six")
    for address in (VTEP6, HOST6):
        assert container.reaches(address)
        with netns.open_socket(host.namespace, socket.AF_INET6, socket.SOCK_STREAM) as service:
            service.bind((address, 0))
            service.listen()
            with netns.open_socket(container.netns, socket.AF_INET6, socket.SOCK_STREAM) as client:
                client.settimeout(2)
                with pytest.raises((ConnectionRefusedError, PermissionError)):
                    client.connect(service.getsockname()[:2])


def test_a_container_goes_out_by_its_hosts_address(host: Host) -> None:
    """The LAN has no route back to any network of ours."""
    container = started(host, "six")
    assert container.reaches(LAN6)
    with netns.open_socket(host.lan.netns, socket.AF_INET6, socket.SOCK_DGRAM) as service:
        service.settimeout(5)
        service.bind((LAN6, 0))
        with netns.open_socket(container.netns, socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.sendto(b"who am I?", service.getsockname()[:2])
            _, seen = service.recvfrom(64)
            assert seen[0] == HOST6
            service.sendto(b"answer", seen)
            assert client.recv(64) == b"answer"


def test_an_internal_network_has_no_way_out(host: Host) -> None:
    container = started(host, "vault")
    assert not container.reaches(LAN6)


def test_a_host_reaches_the_containers_of_an_internal_network(host: Host) -> None:
    host.run(f"ping -c 1 -W 2 {of(started(host, 'vault'), 6)}")


def test_the_lan_does_not_reach_a_container(host: Host) -> None:
    container = started(host, "six")
    host.lan.run(f"ip -6 route add fd00:4::/48 via {HOST6}")
    try:
        assert not host.lan.reaches(of(container, 6))
    finally:
        host.lan.run("ip -6 route delete fd00:4::/48")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("ip -6 address delete {address}/128 dev eth0", "address fd00:3:0:1::"),
        ("ip -6 route delete fd00:3::/48", "route fd00:3::/48"),
        ("ip -6 route delete default", "route ::/0"),
    ],
    ids=["address", "route to the network", "default route"],
)
def test_check_names_what_the_container_lacks(host: Host, command: str, named: str) -> None:
    container = started(host, "both")
    assert host.cni("CHECK", container, "both") == (200, "")
    container.run(command.format(address=of(container, 6)))
    status, body = host.cni("CHECK", container, "both")
    assert status == 500
    assert named in body


def test_a_deleted_endpoint_leaves_no_row_of_either_family(host: Host) -> None:
    container = started(host, "both")
    addresses = IPv4Address(of(container, 4)), IPv6Address(of(container, 6))
    assert all(host.maps.endpoints.get(address) is not None for address in addresses)
    assert host.cni("DEL", container, "both") == (200, "")
    assert all(host.maps.endpoints.get(address) is None for address in addresses)


def test_a_host_reaches_a_containers_second_interface_whose_answers_leave_by_the_first(host: Host) -> None:
    container = started(host, "both")
    status, body = host.cni("ADD", container, "six", "eth1")
    assert status == 200, body
    second = json.loads(body)["ips"][0]["address"].partition("/")[0]
    for address in (of(container, 4), of(container, 6), second):
        host.run(f"ping -c 1 -W 2 {address}")
    assert started(host, "six").reaches(second)
    assert not started(host, "vault").reaches(second)


def test_an_agent_that_was_killed_finds_both_addresses_again(host: Host) -> None:
    one, other = started(host, "both"), started(host, "both")
    rows = dict(host.maps.endpoints.items())
    host.stop_agent(signal.SIGKILL)
    assert one.reaches(of(other, 6)), "meanwhile too"
    host.start_agent()
    host.applied()
    assert dict(host.maps.endpoints.items()) == rows
    assert host.cni("CHECK", one, "both") == (200, "")
    assert host.cni("ADD", one, "both")[0] == 200
    assert one.reaches(of(other, 6))


@pytest.mark.parametrize(
    ("breaks", "looks", "shows"),
    [
        ("ip -6 route delete fd00:4::/48", "ip -6 route show", "fd00:4::/48 via fe80::ffff"),
        (f"ip -6 address delete {VTEP6}/128 dev hr-host", "ip -6 address show dev hr-host", VTEP6),
        ("ip -6 address delete fe80::4/128 dev hr-host", "ip -6 address show dev hr-host", "fe80::4/128"),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl net.ipv6.conf.all.forwarding", "= 1"),
    ],
    ids=["route", "VTEP address", "gateway", "forwarding"],
)
def test_what_somebody_took_away_comes_back(host: Host, breaks: str, looks: str, shows: str) -> None:
    container = started(host, "six")
    host.run(breaks)
    eventually(lambda: shows in host.run(looks), shows)
    host.run(f"ping -c 1 -W 2 {of(container, 6)}")
    assert container.reaches(LAN6)


# ---- a host whose way out comes by router advertisement ------------------------------------------------------------


def advertisement(source: IPv6Address, mac: bytes) -> bytes:
    """A router that says that it is one, to all nodes (RFC 4861, 4.2)."""
    everybody = IPv6Address("ff02::1").packed
    icmp = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    pseudo = source.packed + everybody + struct.pack("!II", len(icmp), 58)
    total = sum(struct.unpack("!20H", pseudo))
    total += sum(struct.unpack("!8H", icmp))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    icmp = icmp[:2] + struct.pack("!H", ~total & 0xFFFF) + icmp[4:]
    ip = struct.pack("!IHBB", 0x60000000, len(icmp), 58, 255) + source.packed + everybody
    return bytes.fromhex("333300000001") + mac + b"\x86\xdd" + ip + icmp


def advertise(router: Container) -> None:
    shown = json.loads(router.run("ip -json -6 address show dev eth0"))[0]
    (source,) = [IPv6Address(row["local"]) for row in shown["addr_info"] if row["scope"] == "link"]
    mac = bytes.fromhex(json.loads(router.run("ip -json link show dev eth0"))[0]["address"].replace(":", ""))
    with netns.open_socket(router.netns, socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(advertisement(source, mac))


def default_routes(host: Host) -> str:
    return host.run("ip -6 route show default")


def test_a_host_keeps_its_own_way_out_that_routers_advertise(tmp_path: Path) -> None:
    with Host(tmp_path) as host:
        with_ipv6(host)
        eventually(lambda: advertise(host.lan) or default_routes(host), "the host takes the router's word")
        assert host.sysctl("ipv6/conf/eth0/accept_ra") == "1"
        host.start_controller()
        host.start_agent()
        host.applied()
        assert host.sysctl("ipv6/conf/all/forwarding") == "1"
        assert "proto ra" in default_routes(host), "forwarding took it away"
        host.run("ip -6 route delete default")
        advertise(host.lan)
        eventually(lambda: "proto ra" in default_routes(host), "the router is still listened to")


def test_a_host_without_ipv6_networks_is_left_as_it_is(tmp_path: Path) -> None:
    with Host(tmp_path) as host:
        host.start_controller()
        host.start_agent()
        host.applied()
        assert host.sysctl("ipv6/conf/all/forwarding") == "0"
        assert host.sysctl("ipv6/conf/eth0/accept_ra") == "1"


def test_where_a_tunnel_is_too_narrow_for_ipv6_only_networks_with_it_are_refused(tmp_path: Path) -> None:
    """Less than 1,280 bytes (RFC 8200, 5)."""
    with Host(tmp_path) as host:
        with_ipv6(host)
        host.run("ip link set eth0 mtu 1320")
        host.start_controller()
        host.start_agent()
        eventually(lambda: json.loads(host.http("/healthz")[1])["revision"], "the agent knows its networks")
        one, other = started(host, "dcos-1"), started(host, "dcos-1")
        assert one.reaches(of(other, 4))
        status, body = host.cni("ADD", host.container(), "both")
        assert status == 500
        assert "1280 bytes" in body
        told = json.loads(host.http("/healthz")[1])
        assert not told["ok"]
        assert all("hr-host has no IPv6" in fault or "waits for" in fault for fault in told["faults"])
