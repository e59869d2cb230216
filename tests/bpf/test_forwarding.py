"""Endpoints reach each other, whole and in any size, and nobody needs to be told where they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket

import pytest
from bpf.packets import UDP
from bpf.traffic import MASQUERADE, SLOWNESS, counted, dial, echo, nft, server, without_offloads
from bpf.world import DEV, OUTSIDE, PROD, Endpoint, World, run

from hedgerow.kernel import netns
from hedgerow.kernel.maps import GATEWAY_MAC, FastWay, Reason, probe_fast_way
from hedgerow.model.network import DNS_ADDRESS

UDP_SEGMENT = 103  # newer than Python's socket module

families = pytest.mark.parametrize("version", [4, 6])


@families
@pytest.mark.parametrize("there", ["b", "c", "d"])
def test_endpoints_of_a_network_reach_each_other_on_and_across_hosts(world: World, version: int, there: str) -> None:
    peer = getattr(world, there)
    data = os.urandom(4 << 20)
    with server(peer.container, 80, version=version):
        assert echo(world.a.container, peer.of(version), 80, data) == data


@families
@pytest.mark.parametrize("there", ["b", "c"])
def test_large_datagrams_are_fragmented_and_arrive(world: World, version: int, there: str) -> None:
    peer = getattr(world, there)
    data = os.urandom(9000)
    with server(peer.container, 53, UDP, version=version):
        assert echo(world.a.container, peer.of(version), 53, data, UDP) == data


@families
@pytest.mark.parametrize("there", ["b", "c"])
@pytest.mark.parametrize("size", [0, 1, 17, 1399, 1400, 1401, 1422])
def test_datagrams_of_any_size_arrive_unchanged(world: World, version: int, there: str, size: int) -> None:
    peer = getattr(world, there)
    data = os.urandom(size)
    with server(peer.container, 53, UDP, version=version):
        assert echo(world.a.container, peer.of(version), 53, data, UDP) == data


def send_in_one_go(world: World, peer: Endpoint, version: int) -> tuple[list[bytes], list[bytes]]:
    """Five datagrams by one call (UDP_SEGMENT, kernel 4.18): (sent, received)."""
    pieces = [os.urandom(1000) for _ in range(5)]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with (
        netns.open_socket(peer.container, family, socket.SOCK_DGRAM) as receiver,
        dial(world.a.container, peer.of(version), 443, UDP) as client,
    ):
        receiver.bind(("", 443))
        receiver.settimeout(3 * SLOWNESS)
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        client.send(b"".join(pieces))
        return pieces, [receiver.recv(65536) for _ in pieces]


@families
@pytest.mark.parametrize("there", ["b", "c"])
def test_datagrams_that_are_cut_late_as_quic_does_arrive_one_by_one(world: World, version: int, there: str) -> None:
    """One super-packet goes through the data path."""
    sent, received = send_in_one_go(world, getattr(world, there), version)
    assert received == sent


@families
def test_nothing_is_spoilt_where_the_underlays_link_offloads_nothing(world: World, version: int) -> None:
    """Checksums, and cutting into segments with their tunnel headers, are then the kernel's work."""
    data = os.urandom(1 << 20)
    one, two = world.one.namespace, world.two.namespace
    with without_offloads(one), without_offloads(two), server(world.c.container, 80, version=version):
        assert echo(world.a.container, world.c.of(version), 80, data) == data
        sent, received = send_in_one_go(world, world.c, version)
        assert received == sent


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "none"])
def test_a_container_may_pass_on_what_it_gets(world: World, offloads: bool) -> None:
    """An engine inside a container does: what came out of a tunnel must then look like any other packet."""
    inner = netns.named(world.namespace(f"{world.c.container.name}-{offloads}"))
    outer = world.c.container.name
    commands = f"""
        ip -n {outer} link add in0 type veth peer name eth0 netns {inner.name}
        ip -n {outer} addr add 10.99.0.1/24 dev in0
        ip -n {outer} link set in0 up
        ip -n {inner.name} addr add 10.99.0.2/24 dev eth0
        ip -n {inner.name} link set eth0 up
        ip netns exec {outer} sysctl -qw net.ipv4.ip_forward=1"""
    for command in commands.strip().splitlines():
        run(*command.split())
    rules = """table ip rules {
        chain to { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.99.0.2:80; };
        chain from { type nat hook postrouting priority srcnat; oifname in0 masquerade; }; }"""
    data = os.urandom(1 << 20)
    none = contextlib.nullcontext() if offloads else without_offloads(world.c.container, "in0")
    try:
        with nft(outer, rules, family="ip"), none, server(inner, 80):
            assert echo(world.a.container, world.c.address, 8080, data) == data
    finally:
        run("ip", "-n", outer, "link", "del", "in0")


def carried(world: World) -> tuple[int, int]:
    shown = run("ip", "-n", world.one.name, "-s", "-j", "link", "show", "hedge0")
    stats = json.loads(shown)[0]["stats64"]
    return stats["tx"]["bytes"], stats["rx"]["bytes"]


@families
def test_the_vxlan_device_carries_only_what_the_fast_way_cannot(world: World, version: int) -> None:
    before, data = carried(world), os.urandom(1 << 20)
    with server(world.c.container, 80, version=version):
        assert echo(world.a.container, world.c.of(version), 80, data) == data
    through_device = tuple(new - old >= len(data) for new, old in zip(carried(world), before, strict=True))
    able = probe_fast_way(world.one.object) if world.fast else FastWay.NONE
    received = FastWay.RECEIVE if version == 4 else FastWay.RECEIVE6
    assert through_device == (FastWay.SEND not in able, received not in able)


def test_the_probe_of_the_fast_way_says_what_this_kernel_is_known_for(world: World) -> None:
    kernel = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    expected = FastWay.RECEIVE
    if kernel >= (5, 13):
        expected |= FastWay.SEND
    if kernel >= (6, 3):
        expected |= FastWay.RECEIVE6
    assert probe_fast_way(world.one.object) == expected


def test_no_neighbour_entry_is_needed_in_the_container(world: World) -> None:
    run("ip", "-n", world.a.container.name, "neigh", "flush", "all")
    with server(world.b.container, 80):
        assert echo(world.a.container, world.b.address, 80, b"x") == b"x"
    shown = run("ip", "-n", world.a.container.name, "neigh")
    assert f"{DEV.gateway} dev eth0 lladdr {GATEWAY_MAC.hex(':')}" in shown


def test_a_container_that_believes_its_subnet_is_on_the_link_reaches_it(world: World) -> None:
    """Docker's IPAM gives it the network's mask."""
    route = (world.c.address, "dev", "eth0", "scope", "link")
    run("ip", "-n", world.a.container.name, "route", "add", *route)
    try:
        with server(world.c.container, 80):
            assert echo(world.a.container, world.c.address, 80, b"x") == b"x"
    finally:
        run("ip", "-n", world.a.container.name, "route", "del", *route)


@families
def test_a_container_with_too_large_an_mtu_learns_the_right_one(world: World, version: int) -> None:
    pairs = [(end, host) for end, host in ((world.a, world.one), (world.c, world.two))]
    for endpoint, host in pairs:
        run("ip", "-n", endpoint.container.name, "link", "set", "eth0", "mtu", 1500)
        run("ip", "-n", host.name, "link", "set", endpoint.link, "mtu", 1500)
    try:
        with counted(world.one, DEV.vni, Reason.TOO_BIG), server(world.c.container, 80, version=version):
            data = os.urandom(1 << 20)
            assert echo(world.a.container, world.c.of(version), 80, data) == data
        assert "mtu 1450" in run("ip", "-n", world.a.container.name, "route", "get", world.c.of(version))
    finally:
        for endpoint, host in pairs:
            run("ip", "-n", endpoint.container.name, "link", "set", "eth0", "mtu", 1450)
            run("ip", "-n", host.name, "link", "set", endpoint.link, "mtu", 1450)


# ---- the host and the outside


@families
def test_a_host_reaches_its_own_containers_of_every_network(world: World, version: int) -> None:
    for endpoint in (world.a, world.p, world.l):
        with server(endpoint.container, 80, version=version):
            assert echo(world.one.namespace, endpoint.of(version), 80, b"health") == b"health"


@families
def test_a_host_is_refused_at_once_by_an_address_that_no_container_of_its_own_has(world: World, version: int) -> None:
    for target in (world.c.of(version), DEV.prefixes(1)[version == 6][99]):
        with pytest.raises(ConnectionRefusedError):
            dial(world.one.namespace, target, 80)


def test_containers_packets_come_to_their_hosts_stack_by_hr_host_alone(world: World) -> None:
    """So strict reverse path filtering is met, and a link without its program lets nothing in."""
    ours = f"ip saddr {world.a.address} iifname"
    rules = f"chain c {{ type filter hook input priority 0; {ours} hr-host counter; {ours} != hr-host counter; }};"
    with nft(world.one.name, f"table inet rules {{ {rules} }}") as shown, server(world.one.namespace, 53):
        assert echo(world.a.container, DNS_ADDRESS, 53, b"x") == b"x"
        by_host, by_link = re.findall(r"packets (\d+)", shown())
    assert int(by_host) > 0
    assert int(by_link) == 0


def test_a_container_reaches_the_outside_masqueraded(world: World) -> None:
    with nft(world.one.name, MASQUERADE), server(world.outside, 80):
        for endpoint in (world.a, world.p):
            assert echo(endpoint.container, OUTSIDE, 80, b"hi") == b"hi"


def test_a_mark_that_the_host_puts_on_the_tunnel_stays_on_the_host(world: World) -> None:
    chain = "table inet rules {{ chain c {{ type filter hook prerouting priority {}; {} counter; }}; }}"
    with (
        nft(world.two.name, chain.format(-300, "udp dport 64000 meta mark set 7")) as on_host,
        nft(world.c.container.name, chain.format(0, "meta mark 7")) as in_container,
        server(world.c.container, 80),
    ):
        assert echo(world.a.container, world.c.address, 80, b"x") == b"x"
        assert world.fast or "packets 0" not in on_host()
        assert "counter packets 0 bytes 0" in in_container()


@families
def test_networks_that_are_allowed_talk_and_others_still_do_not(world: World, version: int) -> None:
    with world.allowed(DEV, PROD):
        for there in (world.p, world.q):
            with server(there.container, 80, version=version):
                assert echo(world.a.container, there.of(version), 80, b"x") == b"x"
        for there in (world.l, world.m):
            with pytest.raises(ConnectionRefusedError):
                dial(world.a.container, there.of(version), 80)
    with pytest.raises(ConnectionRefusedError):
        dial(world.a.container, world.q.of(version), 80)
