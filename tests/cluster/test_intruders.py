"""Who may speak VXLAN in a real lab: `lan` is no agent, containers are none, and an agent owns its own prefixes only.

Frames are made by hand and sent from packet sockets, as an attacker with root on the sending side would. Whether one
arrives is seen by a raw socket in the victim's namespace, and where it ended by the reason it was counted under.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from bpf.packets import MARK, UDP, datagram, ethernet, ip, ipv4, udp, vxlan
from conftest import Proof
from labkit import RunningLab, wait_for

from hedgerow.kernel.netns import inside, open_socket
from hedgerow.model.endpoint import mac_of

PORT = 7777
TUNNEL_PORT = 64000


@dataclass(frozen=True, slots=True)
class Victim:
    """A container on n1 in `dev`."""

    name: str
    address: IPv4Address
    namespace: Path


@pytest.fixture(scope="module")
def victim(lab: RunningLab) -> Iterator[Victim]:
    with lab.container("n1", "docker", "dev") as name:
        yield Victim(name, IPv4Address(lab.address("n1", "docker", name, "dev")), lab.namespace("n1", "docker", name))


@dataclass(slots=True)
class Ear:
    """Counts marked datagrams that reach the victim, whatever address or port they bear."""

    raw: socket.socket

    def heard(self) -> int:
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += MARK in self.raw.recv(2000)
        return count


@pytest.fixture
def ear(victim: Victim) -> Iterator[Ear]:
    with inside(victim.namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    raw.setblocking(False)
    with raw:
        yield Ear(raw)


def mac_on(lab: RunningLab, node: str, link: str) -> bytes:
    (row,) = json.loads(lab.run(node, "ip", "-j", "link", "show", link))
    return bytes.fromhex(row["address"].replace(":", ""))


def underlay(lab: RunningLab, node: str) -> IPv4Address:
    return IPv4Address(lab.record.members[node])


def vnis(lab: RunningLab) -> dict[str, int]:
    return {row["name"]: row["vni"] for row in lab.api("/v1/networks")["networks"]}


def blocks(lab: RunningLab, node: str) -> dict[str, IPv4Address]:
    """Network -> an address in this agent's part of it."""
    (row,) = [row for row in lab.api("/v1/agents")["agents"] if row["name"] == node]
    return {each["network"]: IPv4Address(each["block"].partition("/")[0]) + 77 for each in row["prefixes"]}


def dropped(lab: RunningLab, node: str, reason: str) -> int:
    rows = json.loads(lab.command("drops", "-o", "json", "--agent", node))["drops"]
    return sum(row["packets"] for row in rows if row["reason"].lower() == reason)


def tunnelled(lab: RunningLab, source: tuple[bytes, IPv4Address], to: str, address: IPv4Address, vni: int,
              inner: tuple[IPv4Address, IPv4Address]) -> bytes:  # fmt: skip
    """A VXLAN frame to a node: outer from `source`, to the outer `address`; inside a datagram from `inner[0]`."""
    outer = udp(source[1], address, TUNNEL_PORT, vxlan(vni, datagram(mac_of(inner[0]), *inner, PORT)))
    return ethernet(source[0], 0x0800, ip(source[1], address, UDP, outer), to=mac_on(lab, to, "eth0"))


def by_both_ways(frames: list[bytes]) -> list[bytes]:
    """Each as it is, with a checksum over the outer UDP, which only the VXLAN device takes; and with none, as agents
    send them, which the program on the underlay's link takes.
    """
    return frames + [frame[:40] + bytes(2) + frame[42:] for frame in frames]


@contextlib.contextmanager
def wire(lab: RunningLab, node: str, link: str) -> Iterator[socket.socket]:
    """A packet socket on a node's own link: below its firewall and its programs, as root there has it."""
    with inside(f"/proc/{lab.pid(node)}/ns/net"):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind((link, 0))
    with raw:
        yield raw


def rises(lab: RunningLab, reason: str, before: int, by: int) -> None:
    wait_for(f"{reason} up by {by}", lambda: dropped(lab, "n1", reason) >= before + by)


def test_a_frame_of_a_real_neighbour_arrives(lab: RunningLab, victim: Victim, ear: Ear) -> None:
    """That what follows could fail: the same frame, from the agent that owns its source, is delivered."""
    source = (mac_on(lab, "n2", "eth0"), underlay(lab, "n2"))
    inner = (blocks(lab, "n2")["dev"], victim.address)
    for frame in by_both_ways([tunnelled(lab, source, "n1", underlay(lab, "n1"), vnis(lab)["dev"], inner)]):
        with wire(lab, "n2", "eth0") as raw:
            raw.send(frame)
        wait_for("the datagram", ear.heard)


def test_a_forged_outer_source_on_the_same_wire_is_believed(
    lab: RunningLab, victim: Victim, ear: Ear, proof: Proof
) -> None:
    """S2, the limit: nothing in the frame tells it from the agent's. Only encryption will."""
    proof.count("S2", small=2, full=2)
    source = (mac_on(lab, "n2", "eth0"), underlay(lab, "n2"))
    inner = (blocks(lab, "n2")["dev"], victim.address)
    for frame in by_both_ways([tunnelled(lab, source, "n1", underlay(lab, "n1"), vnis(lab)["dev"], inner)]):
        with wire(lab, "lan", "underlay") as raw:
            raw.send(frame)
        wait_for("the datagram", ear.heard)


def test_lan_is_no_agent_and_delivers_nothing(lab: RunningLab, victim: Victim, ear: Ear, proof: Proof) -> None:
    """S1: valid inner frames for every VNI, from an address that is no agent's."""
    tries = proof.count("S1", small=300, full=1000)
    before = dropped(lab, "n1", "unknown_agent")
    source = (mac_on(lab, "lan", "underlay"), underlay(lab, "lan"))
    inner = (blocks(lab, "n2")["dev"], victim.address)
    frames = by_both_ways([tunnelled(lab, source, "n1", underlay(lab, "n1"), vni, inner) for vni in vnis(lab).values()])
    with wire(lab, "lan", "underlay") as raw:
        for number in range(tries):
            raw.send(frames[number % len(frames)])
    rises(lab, "unknown_agent", before, tries)
    assert ear.heard() == 0


def test_a_tunnel_to_an_address_that_is_not_ours_is_no_transit(
    lab: RunningLab, victim: Victim, ear: Ear, proof: Proof
) -> None:
    """S1: from a real agent, by way of n1, to another host's address."""
    tries = proof.count("S1-transit", small=300, full=1000)
    before = dropped(lab, "n1", "foreign_tunnel")
    source = (mac_on(lab, "n2", "eth0"), underlay(lab, "n2"))
    inner = (blocks(lab, "n2")["dev"], victim.address)
    frames = by_both_ways([tunnelled(lab, source, "n1", underlay(lab, "n3"), vnis(lab)["dev"], inner)])
    with wire(lab, "n2", "eth0") as raw:
        for number in range(tries):
            raw.send(frames[number % 2])
    rises(lab, "foreign_tunnel", before, tries)
    assert ear.heard() == 0


def test_an_agent_cannot_speak_for_the_prefixes_of_others(
    lab: RunningLab, victim: Victim, ear: Ear, proof: Proof
) -> None:
    """S3: n2, with root there, sends inner sources of n3, of n1 itself and of nobody."""
    tries = proof.count("S3-source", small=300, full=1000)
    before = dropped(lab, "n1", "not_owner")
    source = (mac_on(lab, "n2", "eth0"), underlay(lab, "n2"))
    pretended = [blocks(lab, "n3")["dev"], blocks(lab, "n1")["dev"], IPv4Address("203.0.113.9")]
    to = underlay(lab, "n1")
    dev = vnis(lab)["dev"]
    frames = by_both_ways([tunnelled(lab, source, "n1", to, dev, (each, victim.address)) for each in pretended])
    with wire(lab, "n2", "eth0") as raw:
        for number in range(tries):
            raw.send(frames[number % len(frames)])
    rises(lab, "not_owner", before, tries)
    assert ear.heard() == 0


def test_an_agent_cannot_cross_networks(lab: RunningLab, victim: Victim, ear: Ear, proof: Proof) -> None:
    """S3: n2 sends its own sources of other networks, under their VNI, that of the victim's, and one of nobody."""
    tries = proof.count("S3-network", small=300, full=1000)
    source = (mac_on(lab, "n2", "eth0"), underlay(lab, "n2"))
    own, known = blocks(lab, "n2"), vnis(lab)
    tried = [(own["prod"], known["prod"]), (own["prod"], known["dev"]), (own["dev"], known["prod"]), (own["dev"], 4242)]
    to = underlay(lab, "n1")
    frames = by_both_ways([tunnelled(lab, source, "n1", to, vni, (each, victim.address)) for each, vni in tried])
    before = {reason: dropped(lab, "n1", reason) for reason in ("isolated", "wrong_vni")}
    with wire(lab, "n2", "eth0") as raw:
        for number in range(tries):
            raw.send(frames[number % len(frames)])

    def counted() -> bool:
        return sum(dropped(lab, "n1", reason) - was for reason, was in before.items()) >= tries

    wait_for("every one counted", counted)
    assert ear.heard() == 0


def test_a_container_cannot_speak_vxlan_to_any_agent(lab: RunningLab, victim: Victim, ear: Ear, proof: Proof) -> None:
    """S4: masqueraded, it would come from a known agent's address and could name any source of that host's."""
    tries = proof.count("S4", small=300, full=1000)
    before = sum(dropped(lab, node, "tunnel_port") for node in lab.nodes)
    with lab.container("n2", "docker", "prod") as name:
        namespace = lab.namespace("n2", "docker", name)
        body = vxlan(vnis(lab)["dev"], datagram(bytes(6), blocks(lab, "n2")["dev"], victim.address, PORT))
        with open_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sent = 0
            while sent < tries:
                with contextlib.suppress(OSError):  # the refusal of the one before
                    sender.sendto(body, (str(underlay(lab, lab.nodes[sent % 3])), TUNNEL_PORT))
                    sent += 1
        wait_for("all counted", lambda: sum(dropped(lab, node, "tunnel_port") for node in lab.nodes) >= before + tries)
    assert ear.heard() == 0


SPEAK = """
import os, socket, struct, sys
uid, body, own, to, port, tries = sys.argv[1:]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) if uid == "0" else None
os.setuid(int(uid))
plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
forged = struct.pack("!HHHH", int(port), int(port), 8 + len(body) // 2, 0) + bytes.fromhex(body)
refused = 0
for _ in range(int(tries)):
    for speaker, message in ((plain, bytes.fromhex(body)), (raw, forged)):
        try:
            speaker and speaker.sendto(message, (to, int(port)))
        except PermissionError:
            refused += 1
print("refused", refused)
"""
"""Prints how often it was refused: by a datagram socket, and as root by one of which it writes UDP's header itself."""

HOSTS_OWN = {
    "a process": [],
    "a container of Docker": ["docker", "run", "--rm", "--network", "host"],
    "a container of Podman": ["podman", "run", "--rm", "--network", "host"],
}
PROGRAMS = [word for place in ("/usr", "/lib", "/lib64") for word in ("-v", f"{place}:{place}:ro")]


@pytest.mark.parametrize("uid", [0, 65534])
@pytest.mark.parametrize("speaker", HOSTS_OWN)
def test_what_runs_on_a_hosts_network_cannot_speak_vxlan(
    lab: RunningLab, victim: Victim, ear: Ear, speaker: str, uid: int, proof: Proof
) -> None:
    """S35: local users, and containers on the host's network; only the kernel's tunnel does."""
    tries = proof.count(f"S35 {speaker}", small=20, full=1000)
    body = vxlan(vnis(lab)["dev"], datagram(bytes(6), blocks(lab, "n2")["dev"], victim.address, PORT))
    container = HOSTS_OWN[speaker]
    words = [*container, *([*PROGRAMS, "busybox"] if container else []), "/usr/bin/python3", "-c", SPEAK]
    words += [uid, body.hex(), underlay(lab, "n2"), underlay(lab, "n1"), TUNNEL_PORT, tries]
    said = lab.run("n2", *map(str, words))
    assert said.splitlines()[-1] == f"refused {tries if uid else 2 * tries}"
    assert ear.heard() == 0


def test_lan_cannot_reach_a_container_by_a_route_through_its_host(lab: RunningLab, victim: Victim, ear: Ear) -> None:
    """S11: the neighbour adds the route; what arrives at the host's link for a container is not forwarded."""
    packet = ipv4(underlay(lab, "lan"), victim.address, UDP, udp(underlay(lab, "lan"), victim.address, PORT))
    frame = ethernet(mac_on(lab, "lan", "underlay"), 0x0800, packet, to=mac_on(lab, "n1", "eth0"))
    with wire(lab, "lan", "underlay") as raw:
        for _ in range(50):
            raw.send(frame)
    said = lab.run("lan", "ping", "-c", "1", "-W", "2", str(underlay(lab, "n1")))
    assert "1 received" in said
    assert ear.heard() == 0
