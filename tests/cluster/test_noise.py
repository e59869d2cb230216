"""S29: one container that makes all the noise it can leaves the others what is theirs."""

from __future__ import annotations

import select
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.agents import addresses
from cluster.probing import Place, servers
from cluster.test_flood import RATE, World, frames, mac_of, running, send
from cluster.test_flood import world as world  # noqa: PLC0414  (a fixture)
from conftest import Proof
from kernel.hosts import Container, eventually

from bpf import packets
from hedgerow.kernel import netns
from hedgerow.kernel.maps import Reason

PORT = 80
ROUND_S = 0.5
ROUNDS = 5
TRIES = 3
"""The machine may have other things to do."""
STILL_AS_FAST = 0.8


def place(container: Container) -> Place:
    return Place(container.id, Path(container.netns), addresses(container))


@pytest.fixture
def served(world: World) -> Iterator[None]:
    with servers([place(each) for each in (*world.victims, *world.friends)], [PORT]):
        yield


def connected(source: Container, target: Container) -> socket.socket:
    client = netns.open_socket(source.netns, socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(5)
    client.connect((str(addresses(target)[0]), PORT))
    return client


@pytest.mark.usefixtures("served")
def test_one_container_uses_up_its_own_share_of_the_flows_and_no_other(world: World, proof: Proof) -> None:
    """Network one may call network three's port 80. The noisy one begins more flows than any may have."""
    node = world.cluster.nodes[0]
    share = node.maps.host.get(0).connections_each
    count = proof.count("S29 flows", small=share + 2000, full=3 * share)
    calm, near = world.friends[0], world.victims[1]
    own, to, mac = addresses(world.attacker)[0], addresses(world.victims[3])[0], mac_of(world.attacker)

    def refused() -> int:
        rows = node.maps.counters().items()
        return sum(number for (_, reason), (number, _) in rows if reason == Reason.CONNECTIONS_FULL)

    before = refused()
    with connected(calm, near):
        for first in range(0, count, 1000):
            flows = (packets.udp(own, to, PORT, sport=1024 + number % 64000) for number in range(first, first + 1000))
            send(world.attacker, *(packets.frame(mac, packets.ip(own, to, packets.UDP, each)) for each in flows))
            connected(calm, near).close()
    eventually(lambda: refused() > before, "its share was full")
    mine = sum(key.source == own for key, _ in node.maps.connections.items())
    assert mine <= share + 8


def round_trips(source: Container, target: Container) -> int:
    """Datagrams there and back, within ROUND_S."""
    with netns.open_socket(source.netns, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((str(addresses(target)[0]), PORT))
        client.setblocking(False)
        count, end = 0, time.monotonic() + ROUND_S
        while time.monotonic() < end:
            client.send(b"x" * 16)
            if select.select([client], [], [], ROUND_S)[0]:
                client.recv(100)
                count += 1
        return count


@pytest.mark.usefixtures("served")
def test_a_flood_of_refused_packets_costs_others_what_the_same_flood_costs_that_goes_nowhere(
    world: World, proof: Proof
) -> None:
    """Noise takes a processor's time wherever it goes. Measured is what refusing it takes on top: beside it, the same
    frames go into a pair of links inside the container.
    """
    rounds = proof.count("S29 round trips", small=ROUNDS, full=20)
    for command in ("add spare0 type veth peer name spare1", "set spare0 up", "set spare1 up"):
        world.attacker.run(f"ip link {command}")
    try:
        ratios: list[float] = []
        while len(ratios) < TRIES and (not ratios or ratios[-1] < STILL_AS_FAST):
            ratios.append(statistics.median(one / other for one, other in (beside(world) for _ in range(rounds))))
    finally:
        world.attacker.run("ip link delete spare0")
    assert ratios[-1] >= STILL_AS_FAST, ratios


def beside(world: World) -> tuple[int, int]:
    """Round trips of two others while the noise is refused, and while it goes nowhere."""
    noise = [frame.hex() for frame in frames(world)]
    found = []
    for link in ("eth0", "spare0"):
        with running("flood.py", world.attacker.netns, link, RATE, *noise) as flood:
            found.append(round_trips(*world.friends))
            flood.communicate(timeout=30)
    return found[0], found[1]
