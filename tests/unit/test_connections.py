"""What the sweep of remembered flows takes out, counts and tells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest

from hedgerow.agent.connections import Connections, Cut
from hedgerow.kernel.flows import ConnectionFlag, ConnectionRow, FlowKey
from hedgerow.model.endpoint import Address

HERE, GONE, ELSEWHERE = IPv4Address("9.0.1.1"), IPv4Address("9.0.1.2"), IPv4Address("9.0.2.1")
BLOCK = IPv4Network("9.0.1.0/24")
NOW_NS = 10**15
TCP, UDP, ICMP = 6, 17, 1


@dataclass
class Rows:
    """A map of the data path, as bytes."""

    rows: dict[bytes, bytes] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(self.rows.items()))

    def delete(self, key: bytes) -> bool:
        return self.rows.pop(key, None) is not None


@dataclass
class Counts:
    """A map from openers to numbers."""

    rows: dict[Address, int] = field(default_factory=dict)

    def items(self) -> Iterator[tuple[Address, int]]:
        return iter(list(self.rows.items()))

    def put(self, key: Address, value: int) -> None:
        self.rows[key] = value

    def delete(self, key: Address) -> bool:
        return self.rows.pop(key, None) is not None


class World:
    def __init__(self) -> None:
        self.flows, self.opened, self.closed = Rows(), Counts(), Counts()
        table = SimpleNamespace(raw=self.flows, unpack_key=FlowKey.unpack)
        maps: Any = SimpleNamespace(connections=table, opened=self.opened, closed=self.closed)
        self.connections = Connections(
            maps, here=lambda: {HERE}, is_local=lambda address: address in BLOCK, rules={8: "shop/web"}
        )

    def add(self, flow: FlowKey, age_s: float = 0, flags: ConnectionFlag = ConnectionFlag.NONE, rule: int = 0) -> None:
        row = ConnectionRow(NOW_NS - int(age_s * 1e9), rule, flags)
        self.flows.rows[flow.pack()] = row.pack()

    def sweep(self) -> list[Cut]:
        return self.connections.sweep({HERE}, NOW_NS)

    @property
    def left(self) -> list[FlowKey]:
        return [FlowKey.unpack(key) for key in self.flows.rows]


def flow(protocol: int = TCP, source: Address = HERE, destination: Address = ELSEWHERE, port: int = 1000) -> FlowKey:
    return FlowKey(source, destination, port, 80, protocol)


REPLIED, RESET, CUT = ConnectionFlag.REPLIED, ConnectionFlag.RESET, ConnectionFlag.CUT
BOTH_DONE = ConnectionFlag.OPENER_DONE | ConnectionFlag.REPLIER_DONE | REPLIED


@pytest.mark.parametrize(
    ("protocol", "flags", "limit_s"),
    [
        (TCP, REPLIED, 7200),
        (TCP, ConnectionFlag.NONE, 120),
        (TCP, ConnectionFlag.OPENER_DONE | REPLIED, 7200),
        (TCP, BOTH_DONE, 10),
        (TCP, RESET | REPLIED, 10),
        (UDP, REPLIED, 180),
        (132, REPLIED, 180),
        (ICMP, REPLIED, 30),
        (58, REPLIED, 30),
        (TCP, CUT | REPLIED, 60),
    ],
)
def test_how_long_a_flow_may_rest(protocol: int, flags: ConnectionFlag, limit_s: float) -> None:
    world = World()
    world.add(flow(protocol, port=1), limit_s - 1, flags)
    world.add(flow(protocol, port=2), limit_s + 1, flags)
    world.sweep()
    assert [each.source_port for each in world.left] == [1]


def test_flows_of_an_endpoint_that_went_go_with_it_and_those_of_other_hosts_stay() -> None:
    world = World()
    for source, destination in ((GONE, ELSEWHERE), (ELSEWHERE, GONE), (ELSEWHERE, HERE), (HERE, ELSEWHERE)):
        world.add(flow(source=source, destination=destination))
    world.sweep()
    assert [(each.source, each.destination) for each in world.left] == [(ELSEWHERE, HERE), (HERE, ELSEWHERE)]


def test_what_remains_is_what_was_opened_less_what_was_closed_also_past_the_end_of_the_numbers() -> None:
    world = World()
    for port in range(3):
        world.add(flow(port=port), age_s=0 if port else 10_000)
    world.opened.rows = {HERE: 1, ELSEWHERE: 9}
    world.closed.rows = {ELSEWHERE: 5}
    world.sweep()
    assert (world.opened.rows[HERE] - world.closed.rows[HERE]) % 2**64 == 2
    assert ELSEWHERE not in world.opened.rows
    assert ELSEWHERE not in world.closed.rows
    assert world.connections.count == 2


def test_a_flow_that_a_change_cut_is_told_once_and_again_when_it_was_open_meanwhile() -> None:
    world = World()
    world.add(flow(), flags=CUT | REPLIED, rule=8)
    (cut,) = world.sweep()
    assert str(cut) == "cut: 9.0.1.1:1000 to 9.0.2.1:80, protocol 6, which shop/web had let begin"
    assert world.sweep() == []
    world.add(flow(), flags=REPLIED, rule=7)
    assert world.sweep() == []
    world.add(flow(), flags=CUT | REPLIED, rule=7)
    assert len(world.sweep()) == 1
