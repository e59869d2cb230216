"""What an agent writes for rules: rows between groups, and members of a network that is closed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from bpf.packets import TCP
from bpf.traffic import wait_until
from bpf.world import DEV, PROD, Endpoint, Host, Network, World

from hedgerow.kernel import bpf
from hedgerow.kernel.events import DropEvent
from hedgerow.kernel.flows import GROUP_CLOSED, AllowKey, AllowRow, MemberRow, Range

FRONT, API, OTHER = GROUP_CLOSED | 1, GROUP_CLOSED | 2, GROUP_CLOSED | 3
"""Groups of a closed network; OTHER is its own, of whom nothing is known."""


def forget(host: Host) -> None:
    """Every flow."""
    for table in (host.maps.connections, host.maps.opened, host.maps.closed):
        table.delete_many([key for key, _ in table.items()])


@contextlib.contextmanager
def one_way(world: World, *ranges: Range, source: int = DEV.vni, target: int = PROD.vni) -> Iterator[None]:
    """These may be begun from group to group, on every host; afterwards nothing is left of it."""
    allow(world, *ranges, source=source, target=target)
    try:
        yield
    finally:
        wait_until(lambda: all(settled(host) for host in world.hosts), "connections are closed")
        for host in world.hosts:
            host.maps.allowed.delete(AllowKey(source, target))
            forget(host)


def settled(host: Host) -> bool:
    """Whether no container has more to say of a connection, which later tests would count."""
    rows = [row for key, row in host.maps.connections.items() if key.protocol == TCP and row.from_group]
    return all(row.is_closed for row in rows)


def allow(world: World, *ranges: Range, source: int = DEV.vni, target: int = PROD.vni) -> None:
    for host in world.hosts:
        host.maps.allowed.put(AllowKey(source, target), AllowRow(ranges=ranges))


@contextlib.contextmanager
def closed(world: World, network: Network) -> Iterator[dict[str, Endpoint]]:
    """The network has rules: new endpoints of it in two groups, `other` in none, `other` and `api` on host 2."""
    places = {"front": (world.one, FRONT), "near": (world.one, API), "api": (world.two, API),
              "other": (world.two, OTHER)}  # fmt: skip
    before = {host.number: dict(host.maps.prefixes.items()) for host in world.hosts}
    for host in world.hosts:
        rows = {key: dataclasses.replace(row, group=OTHER) for key, row in before[host.number].items()
                if row.vni == network.vni}  # fmt: skip
        host.maps.prefixes.put_many(rows)
    ends = {}
    for name, (host, group) in places.items():
        ends[name] = end = world.endpoint(host, network, world.spare())
        host.maps.ports.put(end.ifindex, dataclasses.replace(host.maps.ports.get(end.ifindex), group=group))
        row = dataclasses.replace(host.maps.endpoints.get(end.address), group=group)
        host.maps.endpoints.put_many({end.address: row, end.address6: row})
        if group != OTHER:
            for each in world.hosts:
                each.maps.members.put_many({end.address: MemberRow(group), end.address6: MemberRow(group)})
    try:
        yield ends
    finally:
        for host in world.hosts:
            host.maps.prefixes.put_many(before[host.number])
            host.maps.members.delete_many([key for key, _ in host.maps.members.items()])


@contextlib.contextmanager
def configured(host: Host, **changes: Any) -> Iterator[None]:
    before = host.maps.host.get(0)
    host.maps.host.put(0, dataclasses.replace(before, **changes))
    try:
        yield
    finally:
        host.maps.host.put(0, before)


@contextlib.contextmanager
def dropping(host: Host) -> Iterator[Callable[[], list[DropEvent]]]:
    """A function that returns what the host has dropped since, as its ring tells."""
    events: list[DropEvent] = []
    ring = bpf.Ring(host.maps.drops, lambda data: events.append(DropEvent.unpack(data)))

    def dropped() -> list[DropEvent]:
        ring.consume()
        return events

    try:
        dropped()
        events.clear()
        yield dropped
    finally:
        ring.close()
