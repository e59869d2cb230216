"""Agents with an IPv6 underlay: tunnels go by the VXLAN device, and the same checks stand at their end."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from bpf.packets import UDP
from bpf.traffic import counted, dial, echo, inject, listening, server
from bpf.world import DEV, PROD, TUNNEL_PORT, Host, World

from bpf import packets as p
from hedgerow.kernel.maps import AgentRow, PrefixKind, Reason

families = pytest.mark.parametrize("version", [4, 6])
STRANGER = IPv6Address("fd77::200")


def underlay6(host: Host) -> IPv6Address:
    return IPv6Address(f"fd77::{host.number}")


@pytest.fixture(scope="module")
def six(world: World) -> Iterator[World]:
    """Hosts 1 and 2 tunnel to each other over IPv6; afterwards as before."""
    pair = (world.one, world.two)
    before = [(host.maps.host.get(0), dict(host.maps.prefixes.items())) for host in pair]
    for host in pair:
        where = {"index": host.index["eth0"], "address": str(underlay6(host)), "prefixlen": 64, "flags": 2}
        host.ip.addr("add", family=socket.AF_INET6, **where)
    for host, other in (pair, pair[::-1]):
        mtu = host.mtu - 20
        host.maps.host.put(0, dataclasses.replace(host.maps.host.get(0), underlay=underlay6(host), inner_mtu_bytes=mtu))
        host.maps.agents.put_many({underlay6(host): AgentRow(), underlay6(other): AgentRow()})
        host.maps.prefixes.put_many({
            key: dataclasses.replace(row, agent=underlay6(other), template=b"", next_hop=None)
            for key, row in host.maps.prefixes.items()
            if row.kind == PrefixKind.REMOTE and row.agent == other.underlay
        })  # fmt: skip
    yield world
    for host, (config, prefixes) in zip(pair, before, strict=True):
        host.maps.host.put(0, config)
        host.maps.prefixes.put_many(prefixes)
        host.maps.agents.delete_many(map(underlay6, pair))


@families
def test_containers_reach_each_other(six: World, version: int) -> None:
    with server(six.c.container, 80, version=version):
        assert echo(six.a.container, six.c.of(version), 80, b"x" * 1_000_000) == b"x" * 1_000_000
    with server(six.c.container, 80, UDP, version=version):
        assert echo(six.a.container, six.c.of(version), 80, b"x" * 1000, UDP) == b"x" * 1000


@families
def test_walls_stand(six: World, version: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        dial(six.a.container, six.q.of(version), 80)


def outer(source: IPv6Address, to: IPv6Address, vni: int, inner: bytes) -> bytes:
    body = p.udp(source, to, TUNNEL_PORT, p.vxlan(vni, inner), sport=40000)
    return p.ipv6(source, to, UDP, body)


def test_a_stranger_delivers_nothing(six: World) -> None:
    heard, frame = listening(six.a.container), p.ping(six.c.mac, six.c.address, six.a.address)
    for source, to, reason in ((STRANGER, underlay6(six.one), Reason.UNKNOWN_AGENT),
                               (underlay6(six.two), IPv6Address("fd77::99"), Reason.FOREIGN_TUNNEL)):  # fmt: skip
        with counted(six.one, 0, reason):
            packet = p.ethernet(b"\2" * 6, p.IPV6, outer(source, to, DEV.vni, frame), to=six.one.mac)
            inject(six.outside, packet, interface="bridge")
    assert not heard()


def test_an_agent_speaks_for_its_own_prefixes_and_networks_alone(six: World) -> None:
    heard = listening(six.a.container)
    agent, here = underlay6(six.two), underlay6(six.one)
    for inner, vni, net, reason in (
        (p.ping(six.d.mac, six.d.address, six.a.address), DEV.vni, 0, Reason.NOT_OWNER),
        (p.ping(six.c.mac, six.c.address, six.a.address), PROD.vni, DEV.vni, Reason.WRONG_VNI),
        (p.ping(six.q.mac, six.q.address, six.a.address), PROD.vni, PROD.vni, Reason.ISOLATED),
    ):
        with counted(six.one, net, reason):
            packet = p.ethernet(b"\2" * 6, p.IPV6, outer(agent, here, vni, inner), to=six.one.mac)
            inject(six.outside, packet, interface="bridge")
    assert not heard()


def test_a_container_cannot_speak_as_its_host(six: World) -> None:
    frame = p.datagram(six.a.mac, six.a.address6, underlay6(six.two), TUNNEL_PORT)
    with counted(six.one, DEV.vni, Reason.TUNNEL_PORT):
        inject(six.a.container, frame)
