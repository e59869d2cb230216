"""Docker's own rules on a host: they stop nothing of ours, whatever Docker does to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines.command import Engine, tidy
from labkit import RunningLab, wait_for

from hedgerow.lab.probe import Answer
from hedgerow.lab.topology import OUTSIDE_SERVICE

NODE = "n2"
WITHIN_S = 5 * 2.0
"""Five times what is promised (R16)."""


@pytest.fixture
def docker(lab: RunningLab) -> Iterator[Engine]:
    """On a host whose FORWARD policy is DROP, as dockerd makes it where it turned forwarding on itself."""
    with tidy(Engine(lab, NODE, "docker", "--init")) as docker:
        lab.run(NODE, "iptables", "-P", "FORWARD", "DROP")
        yield docker
        lab.run(NODE, "iptables", "-P", "FORWARD", "ACCEPT")


def _goes_out(docker: Engine, name: str) -> bool:
    return docker.ping(name, OUTSIDE_SERVICE) is Answer.REACHED


def test_a_container_goes_out_though_docker_drops_what_is_forwarded(docker: Engine) -> None:
    name, dockers_own = docker.start("--network dcos-1"), docker.start("")
    wait_for("the outside", lambda: _goes_out(docker, name), WITHIN_S)
    assert docker.ping(name, docker.address(dockers_own, "bridge")) is not Answer.REACHED
    docker.lab.run(NODE, "iptables", "-F", "DOCKER-USER")
    wait_for("the outside again", lambda: _goes_out(docker, name), WITHIN_S)
    assert docker.ping(name, docker.address(dockers_own, "bridge")) is not Answer.REACHED


def test_a_dockerd_that_starts_anew_leaves_our_way_through_its_rules(docker: Engine) -> None:
    old = docker.lab.child(NODE, "dockerd")
    docker.lab.kill(NODE, "dockerd")
    wait_for("another dockerd", lambda: docker.lab.child(NODE, "dockerd") != old)
    wait_for("dockerd", lambda: "Server" in docker("version -f '{{.Server.Version}} Server'", check=False))
    docker.lab.run(NODE, "iptables", "-P", "FORWARD", "DROP")
    name = docker.start("--network dcos-1")
    wait_for("the outside", lambda: _goes_out(docker, name), WITHIN_S)
    rules = docker.lab.run(NODE, "iptables", "-S", "DOCKER-USER")
    assert rules.count("--comment hedgerow") == 2
