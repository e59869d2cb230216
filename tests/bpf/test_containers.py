"""One container on two networks: it answers by the link that its routes name, and is judged by the address it uses."""

from __future__ import annotations

import dataclasses
import select
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from bpf.packets import UDP
from bpf.traffic import ETH_P_ALL, SLOWNESS, counted, inject, listening, raw_socket, wait_until
from bpf.world import DEV, LONE, OUTSIDE, PROD, Endpoint, World

from bpf import packets as p
from hedgerow.kernel.maps import Reason

families = pytest.mark.parametrize("version", [4, 6])


@dataclass(frozen=True)
class Both:
    """To the data path two endpoints are one container by their number."""

    dev: Endpoint
    prod: Endpoint


@pytest.fixture
def both(world: World) -> Iterator[Both]:
    found = Both(world.endpoint(world.one, DEV, world.spare()), world.endpoint(world.one, PROD, world.spare()))
    number(world, 7, found.dev, found.prod)
    yield found
    number(world, 0, found.dev, found.prod)


def number(world: World, container: int, *ends: Endpoint) -> None:
    for end in ends:
        port = dataclasses.replace(world.one.maps.ports.get(end.ifindex), container=container)
        row = dataclasses.replace(world.one.maps.endpoints.get(end.address), container=container)
        world.one.maps.ports.put(end.ifindex, port)
        world.one.maps.endpoints.put_many({end.address: row, end.address6: row})


def said(by: Endpoint, source: Endpoint, to: Endpoint, version: int) -> bytes:
    """A datagram out of one link with the address of another."""
    body = p.udp(source.of(version), to.of(version), 80)
    return p.frame(by.mac, p.ip(source.of(version), to.of(version), UDP, body))


@families
def test_an_address_of_the_same_container_is_good_by_either_link(world: World, both: Both, version: int) -> None:
    for target in (world.p, world.q):
        heard = listening(target.container)
        inject(both.dev.container, said(both.dev, both.prod, target, version))
        wait_until(lambda heard=heard: len(heard()) == 1, target)


@families
def test_who_uses_it_is_judged_by_the_network_of_the_address(world: World, both: Both, version: int) -> None:
    heard = listening(world.a.container)
    with counted(world.one, PROD.vni, Reason.ISOLATED):
        inject(both.dev.container, said(both.dev, both.prod, world.a, version))
    assert not heard()


def test_an_internal_networks_address_does_not_get_out_by_another_link(world: World, both: Both) -> None:
    inner = world.endpoint(world.one, LONE, world.spare())
    number(world, 7, inner)
    packet = p.ping(both.dev.mac, inner.address, OUTSIDE)
    with counted(world.one, LONE.vni, Reason.INTERNAL):
        inject(both.dev.container, packet)


@families
def test_another_containers_address_stays_a_lie(world: World, both: Both, version: int) -> None:
    """Of another number, and of none."""
    other, heard = world.endpoint(world.one, PROD, world.spare()), listening(world.p.container)
    for container in (8, 0):
        number(world, container, other)
        with counted(world.one, DEV.vni, Reason.SOURCE_ADDRESS):
            inject(both.dev.container, said(both.dev, other, world.p, version))
    number(world, 0, both.dev, both.prod)
    with counted(world.one, DEV.vni, Reason.SOURCE_ADDRESS):
        inject(both.dev.container, said(both.dev, both.prod, world.p, version))
    assert not heard()


def test_a_refusal_comes_back_by_the_link_that_was_used(world: World, both: Both) -> None:
    raw = raw_socket(both.dev.container, "eth0", ETH_P_ALL)
    listening(both.dev.container)
    inject(both.dev.container, said(both.dev, both.prod, world.a, 4))
    answer = b""
    while answer[34:36] != b"\3\15":  # admin-prohibited
        assert select.select([raw], [], [], 2 * SLOWNESS)[0]
        answer = raw.recv(2048)
    assert (answer[26:30], answer[30:34]) == (world.a.address.packed, both.prod.address.packed)
