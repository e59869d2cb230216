"""S8: a flood of what is forbidden, while agents are killed, programs replaced, rules flushed and maps taken over from
another release. Nothing of it arrives, and of what is permitted nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from bpf.packets import MARK
from cluster.agents import Cluster, Node, addresses, attached, cluster
from conftest import Proof
from kernel.hosts import Container, eventually

from bpf import packets
from hedgerow.config import load
from hedgerow.kernel import bpf, netns
from hedgerow.kernel.links import index_of
from hedgerow.kernel.maps import LAYOUT, Reason

HERE = Path(__file__).parent
CONFIG = """
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_subnet6: fd01:a::/64
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - name: one
      subnet: 10.1.0.0/16
      prefix: 24
      subnet6: fd00:1::/48
      prefix6: 64
      allow: [{to: three, ports: [80/tcp, 80/udp]}]
    - {name: two, subnet: 10.2.0.0/16, prefix: 24, subnet6: "fd00:2::/48", prefix6: 64}
    - {name: three, subnet: 10.3.0.0/16, prefix: 24, subnet6: "fd00:3::/48", prefix6: 64, rules: []}
"""
RATE = 30_000
PINS = "/run/hedgerow/bpf"
TUNNEL_PORT, VNI_OF_TWO = 64000, 70002
PASSING = {Reason.MULTICAST, Reason.NOT_SET_UP}
"""What containers' own kernels say, and what comes while something starts."""


@dataclass(frozen=True)
class World:
    cluster: Cluster
    attacker: Container
    """Of network one on host 1."""
    victims: list[Container]
    """Of networks two and three, on hosts 1 and 2."""
    friends: list[Container]
    """Of network one, on hosts 1 and 2."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with cluster(tmp_path_factory.mktemp("flood")) as running:
        running.say(load.load(CONFIG))
        first, second, _ = running.nodes

        def member(node: Node, network: str) -> Container:
            container = node.container()
            container.run("ip link set lo up")
            attached(container, network)
            return container

        victims = [member(node, network) for node in (first, second) for network in ("two", "three")]
        yield World(running, member(first, "one"), victims, [member(first, "one"), member(second, "one")])


def frames(world: World) -> list[bytes]:
    """Everything to everybody who may not hear it, under the own address and under borrowed ones."""
    mac, found = mac_of(world.attacker), []
    for victim in world.victims:
        for own, to in zip(addresses(world.attacker), addresses(victim), strict=True):
            ack = packets.tcp(own, to, 8081)
            borrowed = to + 1
            found += [
                packets.datagram(mac, own, to, 53),
                packets.ping(mac, own, to),
                packets.syn(mac, own, to, 8080),
                packets.frame(mac, packets.ip(own, to, packets.TCP, ack[:13] + b"\x10" + ack[14:])),
                packets.frame(mac, packets.ip(own, to, 132, bytes(12) + MARK)),
                packets.datagram(mac, borrowed, to, 53),
            ]
    # From its host it would be believed: network two's VNI, and a source of the host's own part of it.
    near, far = (addresses(world.victims[number])[0] for number in (0, 2))
    inner = packets.vxlan(VNI_OF_TWO, packets.datagram(bytes(6), near + 50, far, 53))
    for node in world.cluster.nodes:
        for own, host in zip(addresses(world.attacker), (node.underlay, node.underlay6), strict=True):
            tunnel = packets.udp(own, host, TUNNEL_PORT, inner)
            found.append(packets.frame(mac, packets.ip(own, host, packets.UDP, tunnel)))
    return found


def mac_of(container: Container) -> bytes:
    (link,) = json.loads(container.run("ip -j link show eth0"))
    return bytes.fromhex(link["address"].replace(":", ""))


def allowed(world: World) -> list[bytes]:
    """To network three's port 80, which network one may call: of each host's victim there."""
    mac = mac_of(world.attacker)
    pairs = [
        pair
        for victim in world.victims[1::2]
        for pair in zip(addresses(world.attacker), addresses(victim), strict=True)
    ]
    return [packets.syn(mac, own, to, 80) for own, to in pairs]


@dataclass
class Ear:
    """What victims hear of the attacker."""

    sockets: list[socket.socket]
    spoken: tuple[bytes, ...]

    def heard(self) -> list[bytes]:
        found = []
        for each in self.sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, (_, _, direction, *_) = each.recvfrom(2000)
                    if direction != socket.PACKET_OUTGOING and any(word in frame for word in self.spoken):
                        found.append(frame)
        return found


@contextlib.contextmanager
def listening(world: World) -> Iterator[Ear]:
    every = socket.htons(3)
    opened = [netns.open_socket(each.netns, socket.AF_PACKET, socket.SOCK_RAW, every) for each in world.victims]
    for each in opened:
        each.setblocking(False)
    try:
        yield Ear(opened, (MARK, *(address.packed for address in addresses(world.attacker))))
    finally:
        for each in opened:
            each.close()


@contextlib.contextmanager
def running(script: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / script), *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


@contextlib.contextmanager
def swapping(node: Node, links: list[str]) -> Iterator[None]:
    """Replaces programs of these links the whole time, by two objects in turn that use the maps which are there."""
    pins = Path(f"/proc/{node._root.pid}/root{PINS}/v{LAYOUT}")
    objects = [bpf.Object(bpf.object_file(), pins) for _ in range(2)]
    ended = threading.Event()

    def swap() -> None:
        turn = 0
        while not ended.wait(0.005):
            with netns.inside(node.namespace):
                for link in links:
                    bpf.attach_clsact(objects[turn % 2].program("from_container"), index_of(link))
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for each in objects:
            each.close()


def dropped(nodes: list[Node]) -> int:
    return sum(
        count for node in nodes for (_, reason), (count, _) in node.maps.counters().items() if reason not in PASSING
    )


def send(container: Container, *frames: bytes) -> None:
    with netns.open_socket(container.netns, socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
        raw.bind(("eth0", 0))
        for frame in frames:
            raw.send(frame)


def test_what_is_allowed_is_heard(world: World) -> None:
    """That what follows could fail: by the same sender, socket and ears."""
    with listening(world) as ear:
        heard: list[bytes] = []
        for frame in allowed(world):
            send(world.attacker, frame)
        eventually(lambda: heard.extend(ear.heard()) or len(heard) >= 4, "all four")


def disturb(world: World, kills: int, chance: random.Random) -> None:
    nodes = world.cluster.nodes[:2]
    for number in range(kills):
        node = chance.choice(nodes)
        node.stop_agent(signal.SIGKILL)
        match ("rules", "layout", "nothing")[number % 3]:
            case "rules":
                node.run("nft flush ruleset")
            case "layout":  # what another release left
                node.run(f"mv {PINS}/v{LAYOUT} {PINS}/v{LAYOUT + 8}")
        node.start_agent()


def test_a_forbidden_flood_delivers_nothing_through_kills_and_swaps(world: World, proof: Proof) -> None:
    flood = proof.count("S8 packets", small=30_000, full=1_000_000)
    kills = proof.count("S8 kills", small=3, full=50, seed=8)
    near, far = world.friends
    target = str(next(each for each in addresses(far) if isinstance(each, IPv4Address)))
    first, nodes = world.cluster.nodes[0], world.cluster.nodes[:2]
    before = dropped(nodes)
    with (
        listening(world) as ear,
        running("traffic.py", near.netns, far.netns, target, 1000 * kills) as traffic,
        running("flood.py", world.attacker.netns, "eth0", RATE, *(frame.hex() for frame in frames(world))) as forbidden,
        swapping(first, [world.attacker.link, near.link, "hr-peer"]),
    ):
        disturb(world, kills, random.Random(8))
        eventually(lambda: dropped(nodes) - before >= flood, "the whole flood is judged", wait_s=flood / 1000)
        told, _ = traffic.communicate(timeout=60 + kills * 5)
        assert ear.heard() == []
        sent, _ = forbidden.communicate(timeout=60)
    result = json.loads(told)
    assert result.pop("sent") >= 1000 * kills
    assert result == {"lost": 0, "doubled": 0, "stream": True}
    assert int(sent) >= flood
