"""The wall between containers and hosts, in the data path alone: no firewall but the mark stands behind it here."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from bpf.packets import ICMP, TCP, UDP
from bpf.traffic import MASQUERADE, counted, dial, echo, inject, listening, nft, raw_socket, server, wait_until
from bpf.world import DEV, DNS_ADDRESS, JUDGED_MARK, OUTSIDE, Endpoint, Host, World, run

from bpf import packets as p
from hedgerow.kernel import netns
from hedgerow.kernel.flows import FlowKey, ServiceFlag, ServiceKey, ServiceRow
from hedgerow.kernel.maps import AgentFlag, AgentRow, PortFlag, PrefixKind, PrefixRow, Reason

families = pytest.mark.parametrize("version", [4, 6])


def refused(source: Endpoint, target: IPv4Address | IPv6Address, port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        dial(source.container, target, port)


def opens(world: World, target: IPv4Address | IPv6Address, port: int, kind: int = TCP) -> None:
    assert echo(world.a.container, target, port, b"x", kind) == b"x"


@contextlib.contextmanager
def service(host: Host, key: ServiceKey, where: ServiceFlag = ServiceFlag.OWN_HOST) -> Iterator[None]:
    host.maps.host_services.put(key, ServiceRow(where))
    try:
        yield
    finally:
        host.maps.host_services.delete(key)


OWN: dict[str, Callable[[World], IPv4Address | IPv6Address]] = {
    "VTEP": lambda w: w.one.vtep,
    "gateway": lambda w: DEV.gateway,
    "resolver": lambda w: DNS_ADDRESS,
    "underlay": lambda w: w.one.underlay,
    "IPv6 VTEP": lambda w: w.one.vtep6,
    "another bridge's": lambda w: IPv4Address("172.17.0.1"),
    "another bridge's, IPv6": lambda w: IPv6Address("fd00:17::1"),
}
"""Addresses of the container's own host."""


@pytest.fixture(scope="module")
def host_with_bridge(world: World) -> Iterator[World]:
    """As another engine makes it, with a container behind it."""
    box = world.namespace(f"{world.one.name}-box")
    ip = ("ip", "-n", world.one.name)
    run(*ip, "link", "add", "docker0", "type", "bridge")
    run(*ip, "address", "add", "172.17.0.1/16", "dev", "docker0")
    run(*ip, "address", "add", "fd00:17::1/64", "dev", "docker0", "nodad")
    run(*ip, "link", "add", "box", "master", "docker0", "type", "veth", "peer", "eth0", "netns", box)
    for link in ("box", "docker0"):
        run(*ip, "link", "set", link, "up")
    run("ip", "-n", box, "address", "add", "172.17.0.2/16", "dev", "eth0")
    run("ip", "-n", box, "link", "set", "eth0", "up")
    run("ip", "-n", box, "route", "add", "default", "via", "172.17.0.1")
    yield world
    run(*ip, "link", "del", "docker0")


@pytest.mark.parametrize("name", OWN)
def test_a_container_calls_no_service_of_its_host_at_any_address(host_with_bridge: World, name: str) -> None:
    world, address = host_with_bridge, OWN[name](host_with_bridge)
    with server(world.one.namespace, 2375, version=address.version), counted(world.one, DEV.vni, Reason.TO_HOST):
        refused(world.a, address, 2375)
    with (
        server(world.one.namespace, 2375, UDP, version=address.version),
        pytest.raises(OSError, match=r"No route|denied"),
    ):
        echo(world.a.container, address, 2375, b"x", UDP)


@pytest.mark.parametrize("name", OWN)
def test_a_container_pings_its_host(host_with_bridge: World, name: str) -> None:
    world, address = host_with_bridge, OWN[name](host_with_bridge)
    heard = listening(world.a.container)
    inject(world.a.container, p.ping(world.a.mac, world.a.of(address.version), address))
    wait_until(lambda: len(heard()) == 1, "the reply")


@pytest.mark.parametrize("kind", [TCP, UDP])
def test_the_resolver_answers_dns_at_its_own_address_only(world: World, kind: int) -> None:
    with server(world.one.namespace, 53, kind, at=str(DNS_ADDRESS)):
        opens(world, DNS_ADDRESS, 53, kind)
        for other in (world.one.vtep, DEV.gateway, world.one.underlay):
            with pytest.raises(OSError, match=r"refused|No route"):
                echo(world.a.container, other, 53, b"x", kind)


@families
def test_what_host_services_name_is_reached_by_its_network_alone(world: World, version: int) -> None:
    address = world.one.vtep if version == 4 else world.one.vtep6
    with server(world.one.namespace, 9100, version=version), service(world.one, ServiceKey(DEV.vni, TCP, 9100)):
        opens(world, address, 9100)
        refused(world.p, address, 9100)
        refused(world.a, address, 9101)
        if version == 4:
            opens(world, world.one.underlay, 9100)
            refused(world.a, world.two.underlay, 9100)
    refused(world.a, address, 9100)


def test_the_controllers_api_is_reached_where_a_controller_runs(world: World) -> None:
    with (
        service(world.one, ServiceKey(DEV.vni, TCP, 8443), ServiceFlag.CONTROLLERS),
        server(world.two.namespace, 8443),
        nft(world.one.name, MASQUERADE),
    ):
        refused(world.a, world.two.underlay, 8443)
        world.one.maps.agents.put(world.two.underlay, AgentRow(AgentFlag.CONTROLLER))
        try:
            opens(world, world.two.underlay, 8443)
            refused(world.a, world.one.underlay, 8443)
            refused(world.p, world.two.underlay, 8443)
        finally:
            world.one.maps.agents.put(world.two.underlay, AgentRow())


def test_another_host_of_the_cluster_is_pinged_and_nothing_else(world: World) -> None:
    with nft(world.one.name, MASQUERADE), server(world.two.namespace, 22), server(world.outside, 22):
        opens(world, OUTSIDE, 22)
        with counted(world.one, DEV.vni, Reason.TO_HOST):
            refused(world.a, world.two.underlay, 22)
        heard = listening(world.a.container)
        inject(world.a.container, p.ping(world.a.mac, world.a.address, world.two.underlay))
        wait_until(lambda: len(heard()) == 1, "the reply")


def test_other_engines_containers_are_out_of_bounds(host_with_bridge: World) -> None:
    world, box = host_with_bridge, IPv4Address("172.17.0.2")
    with server(netns.named(f"{world.one.name}-box"), 80), nft(world.one.name, MASQUERADE):
        opens(world, box, 80)
        world.one.maps.barred.put(index_of(world.one, "docker0"), 1)
        try:
            with counted(world.one, DEV.vni, Reason.BARRED):
                refused(world.a, box, 80)
            # whom the host's firewall lets in from there gets its answer
            with server(world.a.container, 8080):
                assert echo(netns.named(f"{world.one.name}-box"), world.a.address, 8080, b"x") == b"x"
        finally:
            world.one.maps.barred.delete(index_of(world.one, "docker0"))


def index_of(host: Host, link: str) -> int:
    (index,) = host.ip.link_lookup(ifname=link)
    return int(index)


# ---- metadata services

METADATA = [IPv4Address("169.254.169.254"), IPv6Address("fd00:ec2::254")]


@pytest.mark.parametrize("address", METADATA, ids=str)
def test_a_metadata_service_is_asked_by_networks_that_may_alone(world: World, address: IPv4Address) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    where = {"index": world.one.index["eth0"], "address": str(address), "prefixlen": address.max_prefixlen}
    world.one.ip.addr("add", family=family, flags=2 if address.version == 6 else 0, **where)
    try:
        with server(world.one.namespace, 80, version=address.version):
            with counted(world.one, DEV.vni, Reason.LINK_LOCAL):
                refused(world.a, address, 80)
            with service(world.one, ServiceKey(DEV.vni)):
                opens(world, address, 80)
                refused(world.p, address, 80)
                wait_until(lambda: not connected(world.a), "its kernel has no more to say")
    finally:
        world.one.ip.addr("delete", family=family, **where)


def connected(end: Endpoint) -> str:
    """Its connections, without those that only wait for late packets."""
    states = ("state", "all", "exclude", "time-wait", "exclude", "listening")
    return run("ip", "netns", "exec", end.container.name, "ss", "-Htn", *states)


# ---- what hosts begin


@families
def test_a_host_is_answered_and_its_container_begins_nothing_with_it(world: World, version: int) -> None:
    address = world.one.vtep if version == 4 else world.one.vtep6
    with server(world.a.container, 80, version=version), server(world.one.namespace, 80, version=version):
        assert echo(world.one.namespace, world.a.of(version), 80, b"x" * 10_000) == b"x" * 10_000
        refused(world.a, address, 80)
    with dial(world.one.namespace, world.a.of(version), 81, UDP) as client:  # nobody listens, as the container says
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


def test_a_host_is_answered_at_whatever_address_it_speaks_with(host_with_bridge: World) -> None:
    world = host_with_bridge
    with server(world.a.container, 80):
        for own in (world.one.underlay, IPv4Address("172.17.0.1")):
            with netns.open_socket(world.one.namespace, socket.AF_INET, socket.SOCK_STREAM) as client:
                client.bind((str(own), 0))
                client.connect((str(world.a.address), 80))
                client.sendall(b"x")
                assert client.recv(1) == b"x"


def test_an_internal_networks_container_answers_its_host_at_every_address(world: World) -> None:
    with (
        server(world.l.container, 80),
        netns.open_socket(world.one.namespace, socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.bind((str(world.one.underlay), 0))
        client.connect((str(world.l.address), 80))
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    for target in (world.one.underlay, world.two.underlay):
        with counted(world.one, world.l.network.vni, Reason.INTERNAL):
            refused(world.l, target, 80)


@pytest.mark.parametrize("name", ["a SYN with an ACK", "an ACK", "a datagram", "an echo reply"])
def test_what_no_host_asked_for_does_not_pass_as_a_reply(world: World, name: str) -> None:
    source, to = world.a.address, world.one.vtep
    frame = {
        "a SYN with an ACK": p.frame(world.a.mac, p.ip(source, to, TCP, p.tcp(source, to, 22, flags=p.SYN | p.ACK))),
        "an ACK": p.frame(world.a.mac, p.ip(source, to, TCP, p.tcp(source, to, 22, flags=p.ACK))),
        "a datagram": p.frame(world.a.mac, p.ip(source, to, UDP, p.udp(source, to, 4000, sport=53))),
        "an echo reply": p.frame(world.a.mac, p.ip(source, to, ICMP, p.icmp(0, 0))),
    }[name]
    heard = listening(world.one.namespace, "hr-host")
    with counted(world.one, DEV.vni, Reason.TO_HOST):
        inject(world.a.container, frame)
    assert not heard()


def test_a_network_may_bar_its_own_hosts(world: World) -> None:
    """They still answer its containers: DNS and ping; and what is open is closed."""
    target = world.endpoint(world.one, DEV, world.spare())
    with server(target.container, 80), server(world.one.namespace, 53, UDP, at=str(DNS_ADDRESS)):
        with dial(world.one.namespace, target.address, 80) as client:
            with barring(world.one, target), counted(world.one, 0, Reason.FROM_HOST):
                client.sendall(b"x")
            assert client.recv(1) == b"x"
        with barring(world.one, target):
            with counted(world.one, 0, Reason.FROM_HOST), pytest.raises(ConnectionRefusedError):
                dial(world.one.namespace, target.address, 80)
            assert echo(target.container, DNS_ADDRESS, 53, b"x", UDP) == b"x"
            heard = listening(target.container)
            inject(target.container, p.ping(target.mac, target.address, world.one.vtep))
            wait_until(lambda: len(heard()) == 1, "the reply")
            with server(world.outside, 80), nft(world.one.name, MASQUERADE):
                assert echo(target.container, OUTSIDE, 80, b"x") == b"x"
            assert echo(world.a.container, target.address, 80, b"x") == b"x"


@contextlib.contextmanager
def barring(host: Host, target: Endpoint) -> Iterator[None]:
    port, row = host.maps.ports.get(target.ifindex), host.maps.endpoints.get(target.address)
    host.maps.ports.put(target.ifindex, dataclasses.replace(port, flags=port.flags | PortFlag.NO_HOSTS))
    host.maps.endpoints.put(target.address, dataclasses.replace(row, flags=PortFlag.NO_HOSTS))
    try:
        yield
    finally:
        host.maps.ports.put(target.ifindex, port)
        host.maps.endpoints.put(target.address, row)


@families
def test_a_reply_leads_to_a_cluster_host_that_the_firewall_let_in(world: World, version: int) -> None:
    """A published port: the other host's packet comes by ours, with its own address."""
    source = world.two.underlay
    if version == 6:
        source = IPv6Address("2001:db8:77::2")
        world.one.maps.agents.put(source, AgentRow())
    body = p.udp(source, world.a.of(version), 80, sport=4000)
    heard = listening(world.a.container)
    try:
        inject(
            world.one.namespace,
            p.frame(world.one.vtep_mac, p.ip(source, world.a.of(version), UDP, body)),
            interface="hr-host",
        )
        wait_until(lambda: len(heard()) == 1)
        assert world.one.maps.connections.get(FlowKey(source, world.a.of(version), 4000, 80, UDP)).from_group == 0
        heard = listening(world.one.namespace, "hr-host")
        reply = p.udp(world.a.of(version), source, 4000, sport=80)
        other = p.udp(world.a.of(version), source, 4001, sport=80)
        inject(world.a.container, p.frame(world.a.mac, p.ip(world.a.of(version), source, UDP, reply)))
        wait_until(lambda: len(heard()) == 1)
        with counted(world.one, DEV.vni, Reason.TO_HOST):
            inject(world.a.container, p.frame(world.a.mac, p.ip(world.a.of(version), source, UDP, other)))
    finally:
        if version == 6:
            world.one.maps.agents.delete(source)


# ---- the IPv6 gateway, which is link-local

GATEWAY = IPv6Address("fe80::4096")


@pytest.fixture
def gateway6(world: World) -> Iterator[None]:
    where = {"index": world.one.index["hr-host"], "address": str(GATEWAY), "prefixlen": 128, "family": socket.AF_INET6}
    world.one.ip.addr("add", flags=2, **where)
    world.one.maps.prefixes.put(IPv6Network(GATEWAY), PrefixRow(PrefixKind.HOST, DEV.vni))
    yield
    world.one.maps.prefixes.delete(IPv6Network(GATEWAY))
    world.one.ip.addr("delete", **where)


@pytest.mark.usefixtures("gateway6")
def test_a_host_may_speak_with_its_ipv6_gateways_address_and_is_answered(world: World) -> None:
    kind = socket.AF_INET6, socket.SOCK_STREAM
    with server(world.a.container, 80, version=6), netns.open_socket(world.one.namespace, *kind) as client:
        client.settimeout(3)
        client.bind((str(GATEWAY), 0, 0, world.one.index["hr-host"]))
        client.connect((str(world.a.address6), 80))
        client.sendall(b"x")
        assert client.recv(1) == b"x"


@pytest.mark.usefixtures("gateway6")
def test_other_link_local_addresses_are_nowhere_for_hosts_and_containers(world: World) -> None:
    strange, heard = IPv6Address("fe80::7"), listening(world.a.container)
    with counted(world.one, 0, Reason.SOURCE_ADDRESS):
        inject(world.one.namespace, p.ping(world.one.vtep_mac, strange, world.a.address6), interface="hr-host")
    for source, target in ((world.a.address6, strange), (strange, GATEWAY), (strange, world.c.address6)):
        with counted(world.one, DEV.vni, Reason.LINK_LOCAL):
            inject(world.a.container, p.ping(world.a.mac, source, target))
    with counted(world.one, world.p.network.vni, Reason.ISOLATED):
        inject(world.p.container, p.ping(world.p.mac, world.p.address6, GATEWAY))
    assert not heard()


# ---- without the firewall


@families
def test_what_no_firewall_judged_reaches_no_container(world: World, version: int) -> None:
    heard = listening(world.a.container)
    source = world.one.vtep if version == 4 else world.one.vtep6
    raw = raw_socket(world.one.namespace, "hr-host", 0)
    for mark in (0, 0x00400000, 0x00080000, ~JUDGED_MARK & 0xFFFFFFFF):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.to_bytes(4, sys.byteorder))
        with counted(world.one, 0, Reason.UNJUDGED):
            raw.send(p.ping(world.one.vtep_mac, source, world.a.of(version)))
    assert not heard()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, b"\xff" * 4)
    raw.send(p.ping(world.one.vtep_mac, source, world.a.of(version)))
    wait_until(lambda: len(heard()) == 1, "other marks do not matter")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, JUDGED_MARK)


def test_a_flushed_firewall_opens_nothing(host_with_bridge: World) -> None:
    world = host_with_bridge
    run("ip", "netns", "exec", world.one.name, "nft", "flush", "ruleset")
    try:
        with server(world.a.container, 80), server(world.one.namespace, 22):
            for here in (world.one.namespace, netns.named(f"{world.one.name}-box")):
                with counted(world.one, 0, Reason.UNJUDGED), pytest.raises(TimeoutError):
                    dial(here, world.a.address, 80, timeout_s=0.2)
            refused(world.a, world.one.underlay, 22)
            refused(world.a, world.two.underlay, 22)
            assert echo(world.c.container, world.a.address, 80, b"x") == b"x"
    finally:
        world.one.judge()


def test_a_host_that_forwards_nothing_keeps_its_wall(world: World) -> None:
    """Then no address can be told from the host's own, and all are walled."""
    with server(world.one.namespace, 22), server(world.outside, 80):
        world.one.sysctl("ipv4/ip_forward", "0")
        try:
            for target, port in ((world.one.underlay, 22), (OUTSIDE, 80)):
                with counted(world.one, DEV.vni, Reason.TO_HOST):
                    refused(world.a, target, port)
        finally:
            world.one.sysctl("ipv4/ip_forward", "1")
