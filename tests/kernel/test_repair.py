"""Whatever somebody takes away comes back, and what is not ours is left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from conftest import Proof
from kernel import probes
from kernel.hosts import DCOS, OTHER, UNDERLAY, Container, Host, eventually, without
from kernel.probes import Probe
from kernel.shop import API, FRONT, SHOP, changed, vouched

from hedgerow.kernel.maps import AgentRow, PrefixKind, PrefixRow
from hedgerow.model.snapshot import Revision
from hedgerow.wire.messages import State


def _config(host: Host, container: Container) -> None:
    raw = host.maps.host.raw
    raw.put(bytes(raw.key_size), bytes(raw.value_size))


def _rows(table: str) -> Callable[[Host, Container], None]:
    def remove(host: Host, container: Container) -> None:
        rows = getattr(host.maps, table)
        for key, _ in list(rows.items()):
            rows.delete(key)

    return remove


def _on_host(command: str) -> Callable[[Host, Container], None]:
    return lambda host, container: host.run(command.format(link=container.link)) and None


def _pins(host: Host, container: Container) -> None:
    host.run("rm -r /run/hedgerow/bpf/v1")


BREAKS = {
    "pins": _pins,
    "bpf file system": _on_host("umount -l /run/hedgerow/bpf"),
    "device hedge0": _on_host("ip link delete hedge0"),
    "device hedge0 down": _on_host("ip link set hedge0 down"),
    "device hr-host": _on_host("ip link delete hr-host"),
    "device hr-peer down": _on_host("ip link set hr-peer down"),
    "address": _on_host("ip address delete 169.254.64.1/32 dev hr-host"),
    "route": _on_host("ip route delete 9.0.0.0/8"),
    "sysctl": _on_host("sysctl -q -w net.ipv4.ip_forward=0"),
    "program of hedge0": _on_host("tc filter delete dev hedge0 ingress"),
    "program of the underlay": _on_host("tc qdisc delete dev eth0 clsact"),
    "program of hr-peer": _on_host("tc filter delete dev hr-peer ingress"),
    "config": _config,
    "agents": _rows("agents"),
    "prefixes": _rows("prefixes"),
    "allowed": _rows("allowed"),
    "members": _rows("members"),
    "host services": _rows("host_services"),
    "barred": _rows("barred"),
    "firewall": _on_host("nft delete table inet hedgerow"),
    "firewall's rules": _on_host("nft flush chain inet hedgerow leaving"),
    "link": _on_host("ip link delete {link}"),
    "link down": _on_host("ip link set {link} down"),
    "link's MTU": _on_host("ip link set {link} mtu 1300"),
    "device hr-host's MTU": _on_host("ip link set hr-host mtu 1300"),
    "program of a link": _on_host("tc qdisc delete dev {link} clsact"),
    "ports": _rows("ports"),
    "endpoints": _rows("endpoints"),
}
FAILS_CLOSED = {what for what in BREAKS if not what.startswith(("address", "route", "link", "sysctl"))}
"""R15, the others are R14."""


ROWS = ("config", "agents", "prefixes", "allowed", "members", "host services", "ports", "endpoints", "barred")
WITHIN_S = 5 * float(os.environ.get("HEDGEROW_SLOWNESS", "1"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """With rows in every map: a network with walls inside, and another engine's bridge."""
    with Host(tmp_path_factory.mktemp("host")) as host:
        members = [("10.128.1.77", FRONT), ("10.128.2.7", API)]
        host.snapshot = vouched(changed(host.snapshot, SHOP), SHOP, members)
        host.run("ip link add docker7 type bridge")
        host.start_controller()
        host.start_agent()
        host.applied()
        yield host


@pytest.fixture
def pair(host: Host) -> Iterator[tuple[Container, Container]]:
    """Two containers of one network that know their gateway, gone after the test."""
    pair = host.container(), host.container()
    for container in pair:
        container.add()
    for container in pair:
        assert container.reaches("169.254.64.1")
    yield pair
    for container in pair:
        host.cni("DEL", container)


@pytest.mark.parametrize("what", BREAKS)
def test_what_somebody_takes_away_comes_back(
    host: Host, pair: tuple[Container, Container], what: str, proof: Proof
) -> None:
    """And no wall opens meanwhile. In a short run the loop is woken: rows of maps have no events."""
    times = proof.count("R15" if what in FAILS_CLOSED else "R14", small=1, full=10)
    container, other = pair
    stranger = host.container()
    stranger.add("dev")
    before = _at_rest(host, container, other, stranger)
    walls = [
        Probe("another network", container.netns, stranger.address, stranger.netns),
        Probe("the host", container.netns, str(UNDERLAY), host.namespace, str(UNDERLAY), 9998),
    ]
    with probes.running(*walls):
        for _ in range(times):
            BREAKS[what](host, container)
            if times == 1:
                host.wake()
            eventually(lambda: _everything(host) == before, f"{what} is back", WITHIN_S)
            # A carrier takes a second, and so does a neighbour that was asked for in vain.
            for to in (f"ping -c 1 -W 0.2 {address}" for address in (other.address, OTHER)):
                eventually(lambda ping=to: container.run(ping), to, WITHIN_S)
            host.run(f"ping -c 1 -W 2 {container.address}")
    assert {wall.name: len(wall.got) for wall in walls} == {"another network": 0, "the host": 0}
    assert host.http("/healthz")[0] == 200
    host.cni("DEL", stranger)


def test_rows_of_all_maps_come_back_in_five_seconds_though_nobody_tells(
    host: Host, pair: tuple[Container, Container]
) -> None:
    before = _at_rest(host, *pair)
    for what in ("pins", *ROWS):
        BREAKS[what](host, pair[0])
    eventually(lambda: _everything(host) == before, "all rows are back", WITHIN_S)
    assert pair[0].reaches(pair[1].address)


def _at_rest(host: Host, *containers: Container) -> object:
    """All that there is beside these containers: links of earlier ones go in the background."""
    links = {"hr-host", "hr-peer", *(container.link for container in containers)}
    eventually(lambda: {name for name in _names(host) if name.startswith("hr-")} == links, "links of others gone")
    return _everything(host)


def _names(host: Host) -> list[str]:
    return [link["ifname"] for link in json.loads(host.run("ip -json link show"))]


def _everything(host: Host) -> object:
    """All rows, with the names of links for their indexes."""
    maps, names = host.maps, {link["ifindex"]: link["ifname"] for link in json.loads(host.run("ip -json link show"))}
    ports = {names[index]: port for index, port in maps.ports.items()}
    endpoints = {address: (names[row.ifindex], row.vni, row.mac) for address, row in maps.endpoints.items()}
    config = maps.host.get(0)
    assert config is not None
    return (
        (names[config.tunnel_ifindex], names[config.underlay_ifindex], config.inner_mtu_bytes),
        (ports, endpoints, dict(maps.agents.items()), dict(maps.allowed.items()), dict(maps.prefixes.items())),
        (dict(maps.members.items()), dict(maps.host_services.items()), dict(maps.barred.items())),
        sorted(host.run("ls /run/hedgerow/bpf/v1").split()),
        sorted((link["ifname"], link["mtu"]) for link in json.loads(host.run("ip -json link show"))),
        sorted(line.split("dev")[0] for line in host.run("ip route show").splitlines()),
        sorted(line.split()[3] for line in host.run("ip -oneline -4 address show").splitlines()),
        sorted(line.split(":")[1].split("@")[0] for line in host.run("ip -oneline link show up").splitlines()),
        [bool(host.run(f"tc filter show dev {link} ingress")) for link in ("eth0", "hedge0", "hr-peer")],
        host.table(),
        host.run("sysctl net.ipv4.ip_forward"),
    )


def test_links_and_tables_of_others_are_left_alone(own_host: Host) -> None:
    host = own_host
    host.run("ip link add mine type veth peer name hrx")
    host.run("nft add table inet mine")
    host.run("ip route add 172.31.0.0/16 dev lo")
    host.stop_agent()
    host.start_agent()
    host.applied()
    assert "mine" in host.run("ip link show")
    assert "table inet mine" in host.run("nft list tables")
    assert "172.31.0.0/16" in host.run("ip route show")


def test_a_link_with_our_mark_and_no_endpoint_is_swept(own_host: Host) -> None:
    host = own_host
    host.stop_agent()
    host.run("ip link add hr-0123456789a type veth peer name hp-0123456789a")
    host.start_agent()
    eventually(lambda: "hr-0123456789a" not in host.run("ip link show"), "the link is swept")


def test_rows_that_nobody_wants_go_only_when_a_controller_has_said_so(own_host: Host) -> None:
    host = own_host
    assert host.controller is not None
    stale = PrefixRow(PrefixKind.NETWORK, 99)
    host.stop_agent()
    host.controller.stop()
    host.maps.prefixes.put(IPv4Network("10.200.0.0/16"), stale)
    host.maps.agents.put(OTHER + 7, AgentRow())
    host.start_agent()
    host.wait_for_a_round()
    assert host.maps.prefixes.get(IPv4Network("10.200.0.0/16")) == stale
    host.start_controller()
    eventually(lambda: host.maps.prefixes.get(IPv4Network("10.200.0.0/16")) is None, "the prefix goes")
    eventually(lambda: host.maps.agents.get(OTHER + 7) is None, "the agent goes")


def test_a_removed_network_takes_its_endpoints_rows_along_and_brings_them_back(own_host: Host) -> None:
    host = own_host
    assert host.controller is not None
    container, other = host.container(), host.container()
    container.add()
    other.add("dev")
    smaller = without(host.snapshot, DCOS)
    host.controller.snapshot = smaller
    host.controller.say(State(smaller))
    eventually(lambda: [row.vni for _, row in host.maps.endpoints.items()] == [70002], "one endpoint is left")
    host.applied()
    assert "9.0.0.0/8" not in host.run("ip route show")
    assert "9.0.0.0/8" not in host.run("nft list table inet hedgerow")
    assert container.link in host.run("ip link show")

    again = replace(host.snapshot, revision=Revision(1, 12))
    host.controller.snapshot = again
    host.controller.say(State(again))
    eventually(lambda: container.reaches("169.254.64.1"), "the network is back, and its container on it")
