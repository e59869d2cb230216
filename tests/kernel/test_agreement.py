"""Random packets between random networks: the programs let on its way what the model permits, and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from bpf.alone import MAC, Alone, alone, behind_there
from bpf.packets import ICMP, TCP, UDP
from hypothesis import HealthCheck, Phase, given, settings
from unit.wall_worlds import PORTS, World, worlds

from bpf import packets as p
from hedgerow.kernel.flows import AllowFlag, AllowKey, AllowRow, FlowKey, MemberRow, Range
from hedgerow.kernel.table import Table
from hedgerow.model.network import Network
from hedgerow.policy.groups import Groups, Row, groups
from hedgerow.policy.reach import Address, verdict

if TYPE_CHECKING:
    from conftest import Proof

SCTP = 132


@pytest.fixture(scope="module")
def host() -> Iterator[Alone]:
    with alone() as found:
        found.configure()
        yield found


@contextlib.contextmanager
def written(host: Alone, world: World, found: Groups) -> Iterator[None]:
    """The rows of an agent: every address is behind a prefix of THERE, until it is put here."""
    rows: list[tuple[Table[Any, Any], Any, Any]] = [
        (host.maps.allowed, AllowKey(*pair), allow_row(row)) for pair, row in found.allowed.items()
    ]
    rows += [(host.maps.members, address, MemberRow(group)) for address, group in found.members.items()]
    for network in world.networks:
        if network.spec.enabled and network.spec.subnet:
            group = found.networks[network.id]
            rows.append((host.maps.prefixes, network.spec.subnet, behind_there(network.vni, group)))
    for table, key, value in rows:
        table.put(key, value)
    try:
        yield
    finally:
        for table, key, _ in rows:
            table.delete(key)


def allow_row(row: Row) -> AllowRow:
    ranges = tuple(Range(one.protocol, one.low, one.high, one.rule) for one in row.ranges)
    return AllowRow(AllowFlag.BOTH if row.both else AllowFlag.NONE, ranges)


def network_of(world: World, address: Address) -> Network | None:
    known = (one for one in world.networks if one.spec.enabled and one.spec.subnet and address in one.spec.subnet)
    return next(known, None)


def packet(source: Address, target: Address, protocol: int, ports: tuple[int, int], *, back: bool = False) -> bytes:
    """Between these ports; as an answer or as what asks for one."""
    sport, dport = ports
    match protocol:
        case 6:
            body = p.tcp(source, target, dport, flags=p.SYN | p.ACK if back else p.SYN, sport=sport)
        case 17:
            body = p.udp(source, target, dport, sport=sport)
        case 1:
            body = p.icmp(0 if back else 8, 0, number=sport)
        case _:
            body = p.sctp(sport, dport)
    return p.frame(MAC, p.ip(source, target, protocol, body))


def check(host: Alone, world: World, found: Groups, chosen: random.Random, own: int) -> None:
    """A packet from port `own` and the reply to it, both on one host, or the asker here and the other THERE."""
    source, target = chosen.sample(world.addresses[:-1], 2)
    sender, receiver = network_of(world, source), network_of(world, target)
    if sender is None or receiver is None:
        return
    protocol, port = chosen.choice((TCP, UDP, ICMP, SCTP)), chosen.choice(PORTS)
    ports = (own, port) if protocol in (TCP, UDP) else (own, own)
    may = verdict(world.networks, world.members, source, target, protocol, port if port_counts(protocol) else 0)
    may_back = verdict(world.networks, world.members, target, source, protocol, own if port_counts(protocol) else 0)
    both = ((sender, source), (receiver, target))
    groups_of = [found.members.get(address, found.networks[network.id]) for network, address in both]
    is_far = chosen.random() < 0.4
    host.put_here(source, sender.vni, groups_of[0])
    if not is_far:
        host.put_here(target, receiver.vni, groups_of[1])
    host.speak_as(source, sender.vni, groups_of[0])
    assert host.send(packet(source, target, protocol, ports)) == may.allowed, (may, protocol, ports, is_far)
    back = packet(target, source, protocol, ports[::-1], back=True)
    host.speak_as(target, receiver.vni, groups_of[1])
    came = host.arrive(back, receiver.vni) if is_far else host.send(back)
    assert came == (may.allowed or may_back.allowed), (may, may_back, protocol, ports, is_far)
    host.maps.endpoints.delete_many([source, target])
    if protocol == SCTP:  # between the same two it is always the same flow
        host.maps.connections.delete_many(FlowKey(*pair, 0, 0, SCTP) for pair in ((source, target), (target, source)))


def port_counts(protocol: int) -> bool:
    return protocol in (TCP, UDP)


def test_random_packets_pass_as_the_model_says(host: Alone, proof: Proof) -> None:
    count = proof.count("S7 model", small=1000, full=50_000, seed=5)
    own = itertools.cycle(range(20_000, 60_000))
    chosen = random.Random(5)

    @settings(max_examples=count // 100, deadline=None, database=None, derandomize=True,
              phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(worlds())
    def agree(world: World) -> None:
        found = groups(world.networks, world.members)
        with written(host, world, found):
            for _ in range(100):
                check(host, world, found, chosen, next(own))

    agree()
