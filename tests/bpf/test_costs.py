"""P5: what the walls cost a packet, in the program's own time. Test runs, the least of 20: neighbours only add."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from bpf.alone import Alone, alone, behind_there
from bpf.packets import TCP
from bpf.world import slowness

from bpf import packets as p
from hedgerow.kernel.flows import GROUP_CLOSED, AllowKey, AllowRow, ConnectionRow, FlowKey, MemberRow, Range
from hedgerow.kernel.maps import GATEWAY_MAC, ConfigFlag, PrefixKind, PrefixRow
from hedgerow.kernel.packing import IPPrefix

if TYPE_CHECKING:
    from conftest import Proof

VNI = 5000
ASKER, NEAR, FAR = map(IPv4Address, ("10.0.1.2", "10.0.1.3", "10.0.2.2"))
FRONT, API = GROUP_CLOSED | 1, GROUP_CLOSED | 2
ROUNDS = 10
RULES_NS, ENTRIES_NS = 250, 150
"""How much more a packet may cost that rules judge, and one that does so among 100,000 entries instead of 10."""


def cost_ns(host: Alone, frame: bytes) -> int:
    assert host.send(frame)
    return min(host.run("from_container", frame, repeat=400)[2] for _ in range(20))


def open_up(host: Alone, group: int, target: int) -> None:
    """The asker's group, and that of whom it calls, here and THERE."""
    host.speak_as(ASKER, VNI, group, mac=GATEWAY_MAC)
    host.put_here(ASKER, VNI, group)
    host.put_here(NEAR, VNI, target)
    host.maps.prefixes.put(IPv4Network("10.0.2.0/24"), behind_there(VNI, target))
    host.maps.members.put(FAR, MemberRow(target))


def segment(source: IPv4Address, target: IPv4Address, *, sport: int = 4321, port: int = 80) -> bytes:
    return p.frame(GATEWAY_MAC, p.ip(source, target, TCP, p.tcp(source, target, port, flags=p.ACK, sport=sport)))


def costs(host: Alone, group: int, target: int) -> dict[str, int]:
    """Of what an asker sends and of what comes back, to a neighbour and to another host."""
    open_up(host, group, target)
    found = {f"to {name}": cost_ns(host, segment(ASKER, to)) for name, to in (("near", NEAR), ("far", FAR))}
    host.speak_as(NEAR, VNI, target, mac=GATEWAY_MAC)
    return found | {"back": cost_ns(host, segment(NEAR, ASKER, sport=80, port=4321))}


def test_rules_and_their_flows_cost_a_packet_little(proof: Proof) -> None:
    """A neighbour on this machine can only add to a time, so the least of more rounds is nearer to the truth."""
    proof.count("P5", small=20, full=20)
    # the last range of a full row is the one that fits
    others = tuple(Range(TCP, 1000 + number, 1000 + number) for number in range(15))
    with alone() as few, alone() as many:
        for host in (few, many):
            host.configure(ConfigFlag.NONE)  # so that a repeated run finds the packet as it was
            host.maps.allowed.put(AllowKey(FRONT, API), AllowRow(ranges=(*others, Range(TCP, 80, 80, rule=1))))
        fill(many, 100_000)
        least: dict[str, Times] = {}
        for _ in range(ROUNDS):
            rows = costs(few, VNI, VNI), costs(few, FRONT, API), costs(many, FRONT, API)
            least = {way: Times(*(row[way] for row in rows)).least(least.get(way)) for way in rows[0]}
            if all(times.are_low for times in least.values()):
                return
    assert not least


@dataclass(frozen=True)
class Times:
    """Nanoseconds a packet: in an open network, by rules, and by rules among 100,000 entries."""

    without: int
    few: int
    many: int

    def least(self, other: Times | None) -> Times:
        return self if other is None else Times(*map(min, astuple(self), astuple(other)))

    @property
    def are_low(self) -> bool:
        slow = slowness()
        factor = slow if slow <= 1 else 2 * slow  # an emulated CPU has no cost of its own
        limits = RULES_NS * factor, ENTRIES_NS * factor
        return self.few - self.without <= limits[0] and self.many - self.few <= limits[1]


def fill(host: Alone, count: int) -> None:
    """As many flows, members and prefixes of others."""
    base, row = int(IPv4Address("100.64.0.0")), ConnectionRow(1)
    some = [IPv4Address(base + number) for number in range(count)]
    host.maps.connections.put_many({FlowKey(one, FAR, 1024, 80, TCP): row for one in some})
    host.maps.members.put_many({one: MemberRow(FRONT) for one in some})
    prefixes: dict[IPPrefix, PrefixRow] = {
        IPv4Network(f"100.{64 + number // 256}.{number % 256}.0/24"): PrefixRow(PrefixKind.NETWORK, VNI + 1)
        for number in range(count // 20)
    }
    host.maps.prefixes.put_many(prefixes)
