"""S7: who reaches whom, measured by real packets between real agents' containers, for every two options together.

What should pass between containers is asked of the pure model (`policy/reach.py`), and what is about hosts and the
outside of a page of rules of the tests' own. What is allowed must arrive and be answered; of what is not, nothing may.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cluster import options
from cluster.agents import Cluster, attached, cluster, has
from cluster.around import HOST_PORTS, METADATA, PUBLISHED, Inhabitant, around, echo, host_place, outside_place
from cluster.probing import SCTP, TCP, UDP, Ears, Place, Probe, Seen, measure, servers
from conftest import Proof
from kernel.hosts import Container

from hedgerow.config import load
from hedgerow.model.app import AppId
from hedgerow.model.member import Member
from hedgerow.model.network import Network
from hedgerow.policy.reach import verdict

SEED = 7
NETWORKS = 5
GRE = 47
PORTS = (80, 81, 4999, 5000, 5100, 5101, 9100)
APPS = ("/front", "/back", "/other")
LABELS = ((("tier", "front"),), (("tier", "back"),), ())


@dataclass
class World:
    """A cluster whose containers stay and are attached anew for each configuration."""

    cluster: Cluster
    containers: dict[tuple[int, int], Container]

    def set(self, rows: list[options.Row]) -> tuple[list[Inhabitant], list[Member]]:
        """The configuration of these rows, a container of each network on each host that has it, and its members."""
        for container in self.containers.values():
            if container.result:
                status, body = container.host.cni("DEL", container)
                assert status == 200, body
                container.result = {}
        self.cluster.say(load.load(options.config(rows)))
        found = list(self._attach())
        self._lead_in()
        return self.change(rows, found)

    def change(self, rows: list[options.Row], found: list[Inhabitant]) -> tuple[list[Inhabitant], list[Member]]:
        """The configuration of these rows, for containers that run."""
        spec = load.load(options.config(rows))
        closed = {each.name: each.is_closed for each in spec.networks}
        vouched = [
            Member(
                network=each.network.id,
                **{"address" if address.version == 4 else "address6": address},  # type: ignore[arg-type]
                app=AppId(APPS[each.node.number - 1]),
                labels=LABELS[each.node.number - 1],
            )
            for each in found
            for address in each.place.addresses
            if closed[each.network.name]
        ]
        self.cluster.say(spec, vouched)
        known = {network.name: network for network in self.cluster.networks}
        return [replace(each, network=known[each.network.name]) for each in found], vouched

    def _attach(self) -> Iterator[Inhabitant]:
        numbers = itertools.count()
        for (place, network), node in itertools.product(enumerate(self.cluster.networks), self.cluster.nodes):
            container, number = self.containers[place, node.number], next(numbers)
            if has(network, node.name):
                ports = [
                    {"hostPort": PUBLISHED + number, "containerPort": 80, "protocol": protocol}
                    for protocol in ("tcp", "udp")
                    if not network.spec.internal  # such a network cannot publish anything
                ]
                got = attached(container, network.name, **({"portMappings": ports} if ports else {}))
                spot = Place(f"{network.name} on {node.name}", Path(container.netns), got)
                yield Inhabitant(number, node, network, container, spot)
            else:
                status, _ = node.cni("ADD", container, network.name)
                assert status != 200, f"{node.name} has no {network.name}"

    def _lead_in(self) -> None:
        """Routes that a neighbour might add: to each host's part of every network, by that host."""
        for node in self.cluster.nodes:
            for prefix in node.record(self.cluster.networks).all_prefixes:
                via = node.underlay if prefix.block.version == 4 else node.underlay6
                self.cluster.outside.run(f"ip route replace {prefix.block} via {via}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with cluster(tmp_path_factory.mktemp("isolation")) as running:
        containers = {(number, node.number): node.container() for number in range(NETWORKS) for node in running.nodes}
        for container in containers.values():
            container.run("ip link set lo up")
        for address in METADATA:
            running.outside.run(f"ip address add {address}/{address.max_prefixlen} dev lan")
            for node in running.nodes:
                node.run(f"ip route add {address}/{address.max_prefixlen} dev eth0")
        yield World(running, containers)


def inside(found: list[Inhabitant], vouched: list[Member], networks: list[Network]) -> dict[Probe, bool]:
    """Every container to every other, and whether it may.

    Of a protocol whose ports the data path does not read, a flow is the pair: where only the other side may open one,
    what this side sends is taken for its answer. Those are left out.
    """
    members = {member.key: member for member in vouched}
    wanted = {}
    for one, other in itertools.permutations(found, 2):
        for address in other.place.addresses:
            own = one.place.of(address.version)
            kinds = [*itertools.product((TCP, UDP), PORTS), (echo(address), 0), (SCTP, 0), (GRE, 0)]
            for protocol, port in kinds if own else ():
                may = verdict(networks, members, own, address, protocol, port).allowed
                is_bare = protocol in (SCTP, GRE)
                if not is_bare or may or not verdict(networks, members, address, own, protocol, port).allowed:
                    wanted[Probe(one.place, address, protocol, port, is_answered=not is_bare)] = may
    return wanted


def wrong(wanted: dict[Probe, bool], seen: dict[Probe, Seen]) -> list[str]:
    return [
        f"{probe} should {'pass' if may else 'be refused'}: {seen[probe]}"
        for probe, may in wanted.items()
        if (probe.is_seen and seen[probe].arrived != may) or (probe.is_answered and seen[probe].answered != may)
    ]


def measured(world: World, found: list[Inhabitant], wanted: dict[Probe, bool]) -> dict[Probe, Seen]:
    spots = [each.place for each in found]
    others = [outside_place(world.cluster), *(host_place(node) for node in world.cluster.nodes)]
    with (
        servers(spots, PORTS),
        servers(others, HOST_PORTS),
        contextlib.closing(Ears([*spots, *others])) as ears,
    ):
        return measure(list(wanted), {probe for probe, may in wanted.items() if may}, ears)


def test_every_two_values_of_different_options_meet() -> None:
    rows = options.pairwise(options.OPTIONS, SEED)
    met = {pair for row in rows for pair in options.pairs_of(row, list(options.OPTIONS))}
    assert met == set(options.pairs(options.OPTIONS))


def tables(chosen: Mapping[str, Sequence[str]]) -> list[list[options.Row]]:
    """Rows in which every two values meet, as many as there are networks at a time."""
    rows = options.pairwise(chosen, SEED)
    rows += rows[: -len(rows) % NETWORKS]
    return [rows[at : at + NETWORKS] for at in range(0, len(rows), NETWORKS)]


def judged(world: World, table: list[options.Row], found: list[Inhabitant], vouched: list[Member]) -> int:
    """Asserts that all is as the table says; how many probes that were."""
    wanted = inside(found, vouched, world.cluster.networks) | dict(around(world.cluster, found))
    faults = wrong(wanted, measured(world, found, wanted))
    assert not faults, "\n".join([*faults, options.config(table)])
    return len(wanted)


def test_networks_are_apart_but_for_what_their_options_name(world: World, proof: Proof) -> None:
    every = tables(options.OPTIONS)
    every = every[: proof.count("S7 tables", small=2, full=len(every), seed=SEED)]
    count = sum(judged(world, table, *world.set(table)) for table in every)
    proof.count("S7", small=count, full=count, seed=SEED)


def test_options_that_change_hold_for_containers_that_run(world: World, proof: Proof) -> None:
    fixed = {"family": ["both"], "agents": ["absent"], "enabled": ["true"]}
    every = tables({**options.OPTIONS, **fixed})
    every = every[: proof.count("S7 changes", small=2, full=len(every), seed=SEED)]
    found, _ = world.set([{**row, "internal": "false"} for row in every[-1]])
    count = sum(judged(world, table, *world.change(table, found)) for table in every)
    proof.count("S7 while it runs", small=count, full=count, seed=SEED)
