"""Hosts that have no IPv4 but what is inside their tunnels: the tunnels go over IPv6, through the VXLAN device."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from cluster.agents import OUTSIDE6, Cluster, Node, addresses, attached, cluster
from kernel.hosts import Container, eventually

from hedgerow.config import load
from hedgerow.kernel import netns
from hedgerow.lab import probe
from hedgerow.lab.probe import Answer
from hedgerow.model.agent import Agent
from hedgerow.model.network import Network

CONFIG = """
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_subnet6: fd01:a::/64
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: four, subnet: 10.64.0.0/16, prefix: 24}
    - {name: six, subnet6: "fd00:6::/48", prefix6: 64}
    - {name: both, subnet: 10.65.0.0/16, prefix: 24, subnet6: "fd00:b::/48", prefix6: 64}
"""
BYTES = 1 << 20


class Node6(Node):
    """Without IPv4 on the underlay."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._known, self.underlay = self.underlay, self.underlay6  # type: ignore[assignment]

    def _plug(self) -> None:
        """As the others are plugged in, and then without IPv4."""
        self.underlay = self._known
        super()._plug()
        self.underlay = self.underlay6  # type: ignore[assignment]
        self.run("ip -4 address flush dev eth0")

    def record(self, networks: Iterable[Network]) -> Agent:
        return replace(super().record(networks), addresses4=())


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("hosts"), Node6) as found:
        found.say(load.load(CONFIG))
        yield found


@pytest.fixture(scope="module")
def places(hosts: Cluster) -> dict[tuple[str, str], Container]:
    """A container of each network on each host."""
    found = {}
    for node in hosts.nodes:
        for network in ("four", "six", "both"):
            container = node.container()
            attached(container, network)
            found[node.name, network] = container
    return found


def test_both_families_cross_an_ipv6_underlay_and_the_walls_stand(places: dict[tuple[str, str], Container]) -> None:
    wrong = []
    for (source, one), (target, other) in permutations(places, 2):
        have = {address.version for address in addresses(places[source, one])}
        for address in addresses(places[target, other]):
            if address.version in have:
                found = probe.ping(Path(places[source, one].netns), address).answer
                if found != (Answer.REACHED if one == other else Answer.REFUSED):
                    wrong.append(f"{source} {one} -> {target} {other} {address}: {found}")
    assert wrong == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_large_stream_arrives_whole(places: dict[tuple[str, str], Container], version: int) -> None:
    source, target = places["n1", "both"], places["n2", "both"]
    (address,) = [each for each in addresses(target) if each.version == version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    data = bytes(range(256)) * (BYTES // 256)
    with netns.open_socket(target.netns, family, socket.SOCK_STREAM) as listener:
        listener.bind((str(address), 7))
        listener.listen()
        with netns.open_socket(source.netns, family, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect((str(address), 7))
            server, _ = listener.accept()
            with server:
                sending = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
                sending.start()
                received = b"".join(iter(lambda: server.recv(65536), b""))
                sending.join()
    assert received == data


def test_a_packet_that_fills_the_tunnel_passes_and_a_larger_one_is_said_to_be(
    hosts: Cluster, places: dict[tuple[str, str], Container]
) -> None:
    """1,500 bytes less IPv6 40, UDP 8, VXLAN 8 and Ethernet 14."""
    source, target = places["n1", "four"], places["n2", "four"]
    source.run("ip link set eth0 mtu 1500")
    hosts.nodes[0].run(f"ip link set {source.link} mtu 1500")
    (address,) = addresses(target)
    source.run(f"ping -c 1 -W 2 -M do -s {1430 - 28} {address}")
    with pytest.raises(AssertionError, match="mtu"):
        source.run(f"ping -c 1 -W 2 -M do -s {1431 - 28} {address}")


def test_the_tunnels_take_the_device(hosts: Cluster) -> None:
    for node in hosts.nodes:
        row = node.maps.host.get(0)
        assert row is not None
        assert (row.underlay, row.inner_mtu_bytes) == (node.underlay, 1430)
        assert node.controller is not None
        assert node.controller.reports[-1].way == "device"


def test_containers_reach_the_outside_over_ipv6(places: dict[tuple[str, str], Container]) -> None:
    assert probe.ping(Path(places["n1", "six"].netns), OUTSIDE6).answer == Answer.REACHED


def _dropped(node: Node, reason: str) -> float:
    text = node.http("/metrics")[1]
    rows = re.findall(rf'^hedgerow_dropped_packets_total{{[^}}]*reason="{reason}"}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, rows))


def test_s1_vxlan_of_a_stranger_is_dropped(hosts: Cluster, places: dict[tuple[str, str], Container]) -> None:
    node = hosts.nodes[0]
    before = _dropped(node, "unknown_agent")
    with netns.open_socket(hosts.outside.netns, socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
        for _ in range(10):
            stranger.sendto(bytes([8, 0, 0, 0, 1, 17, 113, 0]) + bytes(60), (str(node.underlay), 64000))
    eventually(lambda: _dropped(node, "unknown_agent") == before + 10, "every one is counted")
