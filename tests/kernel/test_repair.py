"""Whatever somebody takes away comes back, and what is not ours is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from kernel.hosts import DCOS, OTHER, Container, Host, eventually, without

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


BREAKS = {
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
    "firewall": _on_host("nft delete table inet hedgerow"),
    "firewall's rules": _on_host("nft flush chain inet hedgerow leaving"),
    "link": _on_host("ip link delete {link}"),
    "link down": _on_host("ip link set {link} down"),
    "program of a link": _on_host("tc qdisc delete dev {link} clsact"),
    "ports": _rows("ports"),
    "endpoints": _rows("endpoints"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_somebody_takes_away_comes_back(host: Host, what: str) -> None:
    container, other = host.container(), host.container()
    container.add()
    other.add()
    before = _everything(host)
    BREAKS[what](host, container)
    host.wake()  # rows of maps have no events
    eventually(lambda: _everything(host) == before, f"{what} is back")
    assert container.reaches(other.address)
    eventually(lambda: container.reaches(str(OTHER)), "the outside is reached")  # a link's carrier may take a second
    host.run(f"ping -c 1 -W 2 {container.address}")
    assert host.http("/healthz")[0] == 200


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
        sorted(line.split("dev")[0] for line in host.run("ip route show").splitlines()),
        sorted(line.split()[3] for line in host.run("ip -oneline -4 address show").splitlines()),
        sorted(line.split(":")[1].split("@")[0] for line in host.run("ip -oneline link show up").splitlines()),
        [bool(host.run(f"tc filter show dev {link} ingress")) for link in ("eth0", "hedge0", "hr-peer")],
        host.run("nft --stateless list table inet hedgerow"),
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
