"""Who reaches whom in a lab whose networks are of IPv4, of IPv6 and of both, with real engines on every node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import labkit
import pytest
from conftest import PROVING, Proof
from labkit import RunningLab, wait_for

from hedgerow.lab import matrix, places, probe, ready
from hedgerow.lab.matrix import Matrix
from hedgerow.lab.places import Place
from hedgerow.lab.probe import Answer
from hedgerow.lab.topology import CONTROLLER, LAN, address_of, beside

CONFIG = """
dcos_overlay_enable: true
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_subnet6: fd01:a::/64
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: four, subnet: 10.64.0.0/16, prefix: 24}
    - {name: six, subnet6: "fd00:6::/48", prefix6: 64}
    - {name: both, subnet: 10.65.0.0/16, prefix: 24, subnet6: "fd00:b::/48", prefix6: 64, allow: [four]}
    - {name: vault, subnet: 10.66.0.0/16, prefix: 24, subnet6: "fd00:c::/48", prefix6: 64, internal: true,
       allow: [six]}
"""
FAMILIES = {"four": {4}, "six": {6}, "both": {4, 6}, "vault": {4, 6}}
OPEN = [{"both", "four"}, {"vault", "six"}, *({name} for name in FAMILIES)]
NODES = 3 if PROVING else 2
TRIES = 5


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with labkit.lab(nodes=NODES, config=CONFIG) as lab:
        yield lab


@pytest.fixture(scope="module")
def found(lab: RunningLab) -> list[Place]:
    return places.occupy(lab.record, sorted(ready.networks(lab.record)))


@pytest.fixture(scope="module")
def measured(found: list[Place]) -> Matrix:
    return matrix.settled(found, lambda one, other: {one, other} in OPEN, patience_s=10)


def test_a_container_has_an_address_of_each_family_of_its_network_and_no_other(
    lab: RunningLab, found: list[Place]
) -> None:
    every = {(place.node, place.engine, place.network) for place in found}
    assert len(every) == NODES * 2 * len(FAMILIES)
    for node, engine, network in every:
        own = [place.address for place in found if (place.node, place.engine, place.network) == (node, engine, network)]
        assert {address.version for address in own} == FAMILIES[network]
    assert len(found) == len({place.address for place in found})
    told = {ip_address(row[key]) for row in lab.api("/v1/endpoints")["endpoints"] for key in ("address", "address6")
            if row[key]}  # fmt: skip
    assert told == {place.address for place in found}
    one = next(place for place in found if place.address.version == 6)
    assert str(one.address) in lab.command("endpoint", "show", one.address.exploded)


def test_each_family_keeps_the_same_walls(measured: Matrix, proof: Proof) -> None:
    proof.count("matrix IPv4, IPv6, both", small=len(measured), full=len(measured))
    wrong = [
        f"{source} -> {target}: {cell}"
        for (source, target), cell in measured.items()
        if not (cell.reached if {source.network, target.network} in OPEN else cell.refused)
    ]
    assert wrong == []
    assert {source.address.version for source, _ in measured} == {4, 6}


def test_every_refusal_comes_at_once_over_ipv6_too(measured: Matrix) -> None:
    refused = {pair: cell for pair, cell in measured.items() if cell.refused}
    for _ in range(TRIES):
        slow = matrix.slow_refusals(refused)
        refused = {pair: matrix.cell(*pair) for pair in slow}
        assert all(cell.refused for cell in refused.values())
    assert not slow, f"never within {matrix.AT_ONCE_MS} ms: {slow}"


def test_a_container_reaches_the_outside_and_of_the_clusters_hosts_only_their_echo(found: list[Place]) -> None:
    """The outside has no route back: it sees the host's address."""
    for source in found:
        version = source.address.version
        outside, host, controller = (
            each if version == 4 else beside(each) for each in (LAN, address_of("n1"), CONTROLLER)
        )
        expected = Answer.REFUSED if source.network == "vault" else Answer.REACHED
        assert probe.ping(source.namespace, outside).answer == expected, f"{source} -> {outside}"
        assert probe.tcp(source.namespace, controller, 8080).answer == Answer.REFUSED, f"{source} -> {controller}"
        if source.network != "vault":
            assert probe.ping(source.namespace, host).answer == Answer.REACHED, f"{source} -> {host}"
        assert probe.tcp(source.namespace, host, 22).answer == Answer.REFUSED, f"{source} -> {host}"


def test_docker_adds_no_way_around_the_walls_of_its_own(lab: RunningLab, found: list[Place]) -> None:
    """It would give an endpoint without a gateway a bridge and a masquerade."""
    for place in (place for place in found if place.engine == "docker"):
        shown = lab.run(place.node, "docker", "exec", places.name_of(place.network), "ip", "-o", "link")
        assert len(shown.splitlines()) == 2, "lo and one interface"
        assert "docker_gwbridge" not in lab.run(place.node, "ip", "link")
    vault = places.name_of("vault")
    assert "default via 169.254." in lab.run("n1", "docker", "exec", vault, "ip", "route")
    assert "default via fe80::" in lab.run("n1", "docker", "exec", vault, "ip", "-6", "route")


def test_a_host_calls_its_own_containers_and_no_other_hosts(lab: RunningLab, found: list[Place]) -> None:
    for target in found:
        for node in lab.nodes:
            said = lab.run(node, "ping", "-c", "1", "-W", "2", str(target.address), check=False)
            assert (" 0% packet loss" in said) == (node == target.node), f"{node} -> {target}: {said}"


@pytest.mark.parametrize("networks", [("four", "six"), ("six", "four"), ("both", "six")])
def test_a_docker_container_leaves_by_each_family_that_one_of_its_networks_has(
    lab: RunningLab, networks: tuple[str, str]
) -> None:
    """As with DC/OS's own two networks, dcos and dcos6."""
    name = labkit.mark()
    try:
        lab.run("n1", "docker", "run", "-d", "--name", name, "--network", networks[0], "busybox", "sleep", "1000")
        lab.run("n1", "docker", "network", "connect", networks[1], name)
        namespace = lab.namespace("n1", "docker", name)
        for outside in (LAN, beside(LAN)):
            assert probe.ping(namespace, outside).answer == Answer.REACHED, outside
    finally:
        lab.run("n1", "docker", "rm", "-f", name, check=False)


def test_an_address_of_ipv6_may_be_asked_for(lab: RunningLab) -> None:
    block = next(row["block"] for row in lab.api("/v1/networks/six")["prefixes"]
                 if row["agent"] == "n1" and ":" in row["block"])  # fmt: skip
    wish, other = block.replace("/64", "77"), block.replace("/64", "78")
    for engine, image, address in (("docker", "busybox", wish), ("podman", "localhost/busybox", other)):
        name = labkit.mark()
        try:
            options = ("--name", name, "--network", "six", "--ip6", address)
            lab.run("n1", engine, "run", "-d", *options, image, "sleep", "1000")
            said = lab.run("n1", engine, "exec", name, "ip", "-6", "address", "show")
            assert f"{address}/128" in said
        finally:
            lab.run("n1", engine, "rm", "-f", name, check=False)


@pytest.mark.parametrize("engine", ["DOCKER", "MESOS"])
def test_an_app_tells_both_addresses_of_its_instance(lab: RunningLab, tmp_path: Path, engine: str) -> None:
    app = {
        "id": "/both",
        "cmd": "sleep 1000",
        "instances": 1,
        "networks": [{"name": "both", "mode": "container"}],
        "container": {"type": engine, "docker": {"image": "busybox"}},
    }
    file = tmp_path / "both.json"
    file.write_text(json.dumps(app))
    lab.command("app", "run", str(file))
    try:
        found = wait_for("both addresses", lambda: _both(lab.api("/v2/apps//both/tasks")["tasks"]))
        assert [row["protocol"] for row in found] == ["IPv4", "IPv6"]
        assert found[1]["ipAddress"].startswith("fd00:b:")
    finally:
        lab.command("app", "rm", "both")


def _both(tasks: list[dict[str, Any]]) -> list[dict[str, str]] | None:
    found = [address for task in tasks for address in task["ipAddresses"]]
    return found if len(found) == 2 else None
