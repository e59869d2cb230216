"""Others change the same kernel: walls never open, and what is ours is back within seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Proof
from kernel import probes
from kernel.hosts import OTHER, UNDERLAY, Container, Host, eventually
from kernel.probes import Probe

SLOWNESS = float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
BRIDGE_ADDRESS, ENGINE_ADDRESS = "172.30.0.1", "172.30.0.2"


@dataclass
class Place:
    """A host with containers on two networks, a neighbour that has a route to them, and another engine's bridge."""

    host: Host
    one: Container
    other: Container
    stranger: Container
    engine: Container

    def forbidden(self) -> list[Probe]:
        one = self.one.netns
        return [
            Probe("another network", one, self.stranger.address, self.stranger.netns),
            Probe("and back", self.stranger.netns, self.one.address, one, port=9998),
            Probe("the host", one, str(UNDERLAY), self.host.namespace, str(UNDERLAY)),
            Probe("the gateway", one, "169.254.64.1", self.host.namespace, "169.254.64.1"),
            Probe("the host's bridge", one, BRIDGE_ADDRESS, self.host.namespace, BRIDGE_ADDRESS),
            Probe("another engine", one, ENGINE_ADDRESS, self.engine.netns),
            Probe("from another engine", self.engine.netns, self.one.address, one, port=9997),
            Probe("a neighbour", self.host.lan.netns, self.one.address, one, port=9996),
            Probe("another cluster host", one, str(OTHER), self.host.lan.netns, port=9995),
        ]

    def permitted(self) -> Probe:
        return Probe("inside", self.other.netns, self.one.address, self.one.netns, port=9994)

    def goes_out(self) -> bool:
        return self.one.run("ping -c 1 -W 0.2 203.0.113.1") != ""


@pytest.fixture(scope="module")
def place(host: Host) -> Iterator[Place]:
    one, other, stranger, engine = (host.container() for _ in range(4))
    one.add()
    other.add()
    stranger.add("dev")
    host.run("ip link add docker7 type bridge")
    host.run(f"ip address add {BRIDGE_ADDRESS}/24 dev docker7")
    host.run("ip link set docker7 up")
    host.run(f"ip link add vdocker7 type veth peer name eth0 netns {engine.holder.pid}")
    host.run("ip link set vdocker7 master docker7 up")
    engine.run(f"ip address add {ENGINE_ADDRESS}/24 dev eth0")
    engine.run("ip link set eth0 up")
    engine.run("ip link set lo up")
    engine.run(f"ip route add default via {BRIDGE_ADDRESS}")
    host.lan.run(f"ip route add 9.0.0.0/8 via {UNDERLAY}")
    host.lan.run("ip address add 203.0.113.1/32 dev lo")
    host.lan.run("ip link set lo up")
    host.run(f"ip route add 203.0.113.0/24 via {OTHER}")
    place = Place(host, one, other, stranger, engine)
    eventually(lambda: list(host.maps.barred.items()), "the bridge is barred")
    eventually(place.goes_out)
    yield place
    host.run("ip link delete docker7")


def _script(host: Host, tmp_path: Path, lines: str) -> None:
    path = tmp_path / "script"
    path.write_text(lines)
    host.run(f"sh -e {path}")


DOCKER = """
iptables -N DOCKER-USER 2>/dev/null || true
iptables -N DOCKER 2>/dev/null || iptables -F DOCKER
iptables -C FORWARD -j DOCKER-USER 2>/dev/null || iptables -I FORWARD -j DOCKER-USER
iptables -A FORWARD -o docker7 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -i docker7 ! -o docker7 -j ACCEPT
iptables -A FORWARD -o docker7 -j DOCKER
iptables -P FORWARD DROP
"""
"""What dockerd 20.10 does when it turns on forwarding itself."""

NO_DOCKER = "nft 'table ip filter; delete table ip filter; table ip raw; delete table ip raw'"

FAULTS = {
    "nft flush ruleset": "nft flush ruleset",
    "our table deleted": "nft delete table inet hedgerow",
    "our chains flushed": "nft flush table inet hedgerow",
    "our sets emptied": "nft flush set inet hedgerow networks; nft flush set inet hedgerow hosts",
    "iptables -F": DOCKER + "iptables -F; iptables -P FORWARD ACCEPT",
    "firewalld's reload": """
        chain='{ type filter hook forward priority filter + 10; accept; }'
        nft "table inet firewalld { chain f $chain; }"
        nft "flush ruleset; table inet firewalld { chain f $chain; }"
        nft delete table inet firewalld
        """,
    "ufw's reload": """
        printf '%s\\n' '*filter' ':FORWARD ACCEPT' ':ufw-before-forward -' '-A FORWARD -j ufw-before-forward' \\
            '-A ufw-before-forward -p icmp -j ACCEPT' COMMIT | iptables-restore
        nft delete table inet hedgerow
        """,
    "Docker's FORWARD DROP": DOCKER,
    "Docker starts anew": DOCKER + "iptables -F FORWARD\n" + DOCKER,
    "Docker's chain emptied": DOCKER + "iptables -F DOCKER-USER",
    "Docker's raw rules": f"iptables -t raw -A PREROUTING -d {ENGINE_ADDRESS} ! -i docker7 -j DROP",
    "forwarding off": "sysctl -q -w net.ipv4.ip_forward=0",
    "forwarding off on our link": "sysctl -q -w net.ipv4.conf.hr-host.forwarding=0",
    "forwarding off on the underlay's link": "sysctl -q -w net.ipv4.conf.eth0.forwarding=0",
    "strict reverse paths": "sysctl -q -w net.ipv4.conf.all.rp_filter=1",
    "loose reverse paths": "sysctl -q -w net.ipv4.conf.all.rp_filter=2",
}
"""R16, as they would be typed."""


@pytest.mark.parametrize("fault", FAULTS)
def test_rules_of_others_open_no_wall_and_ours_are_back_in_two_seconds(
    place: Place, fault: str, proof: Proof, tmp_path: Path
) -> None:
    times = proof.count("R16", small=1, full=20)
    host = place.host
    table = host.table()
    forbidden, permitted = place.forbidden(), place.permitted()
    with probes.running(*forbidden, permitted):
        for _ in range(times):
            _script(host, tmp_path, FAULTS[fault])
            begun_s = time.monotonic()
            eventually(lambda: host.table() == table, "our table", 2 * SLOWNESS)
            eventually(place.goes_out, "the outside", 2 * SLOWNESS - (time.monotonic() - begun_s))
            sent = forbidden[0].sent
            eventually(lambda before=sent: forbidden[0].sent > before + 20, "some more probes")
            _script(host, tmp_path, NO_DOCKER)
    assert {probe.name: len(probe.got) for probe in forbidden} == {probe.name: 0 for probe in forbidden}
    assert permitted.lost == 0


def test_the_log_names_who_changed_our_rules(place: Place) -> None:
    before = place.host.log.read_text().count("changed rules of ours")
    place.host.run("nft delete table inet hedgerow")
    eventually(lambda: place.host.log.read_text().count("changed rules of ours") > before, "the log has it")
    last = next(line for line in reversed(place.host.log.read_text().splitlines()) if "rules of ours" in line)
    assert "nft (pid " in last
