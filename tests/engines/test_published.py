"""Published ports as users ask for them: docker run -p, podman run -p, hostPort of an app. Called from the LAN."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.command import IMAGE, Engine, tidy
from engines.test_apps import app
from labkit import RunningLab, wait_for

from hedgerow.lab.topology import LAN

NODES = {"docker": "n1", "podman": "n2"}
SEEN = "mkdir -p /w/cgi-bin; printf '#!/bin/sh\\necho; echo $REMOTE_ADDR\\n' >/w/cgi-bin/seen; chmod +x /w/cgi-bin/seen"
WEB = f"{SEEN}; exec httpd -f -h /w -p 0.0.0.0:80"
"""Tells every caller which address it sees."""

NOBODY = "curl: (7)"
"""What curl says of a connection that is refused."""


@pytest.fixture(params=["docker", "podman"])
def engine(lab: RunningLab, request: pytest.FixtureRequest) -> Iterator[Engine]:
    options = {"docker": ("--init", "rm -f"), "podman": ("", "rm -f -t 0")}[request.param]
    with tidy(Engine(lab, NODES[request.param], request.param, *options)) as found:
        yield found


def serve(engine: Engine, options: str, network: str = "dcos-1") -> str:
    return engine.start(f"--network {network} {options}", f"sh -c {shlex.quote(WEB)}")


def seen(lab: RunningLab, address: str, port: int, node: str = "lan") -> str:
    """The address that the container sees of whoever asks in a node; what curl says when it does not get there."""
    where = f"http://{f'[{address}]' if ':' in address else address}:{port}/cgi-bin/seen"
    return lab.run(node, "curl", "-sS", "--max-time", "5", where, check=False).strip()


def reached(lab: RunningLab, address: str, port: int) -> None:
    """It takes a moment until the server in the container listens."""
    wait_for(f"{address}:{port}", lambda: seen(lab, address, port) == str(LAN))


def underlay(lab: RunningLab, node: str) -> str:
    return next(str(row["underlay"]) for row in lab.api("/v1/agents")["agents"] if row["name"] == node)


def shown(engine: Engine, name: str) -> list[str]:
    """What `hedgerow endpoint show` says of the container's ports."""
    address = str(engine.address(name))

    def ports() -> list[str]:
        lines = engine.lab.command("endpoint", "show", address, check=False).splitlines()
        words = [line.split() for line in lines if line.startswith("ports")]
        return words[0][1].split(",") if words and words[0][1] != "-" else []

    found: list[str] = wait_for("the ports", ports)
    return found


def test_a_port_is_reached_from_the_lan_and_the_clients_address_is_seen(engine: Engine) -> None:
    name, host = serve(engine, "-p 8080:80"), underlay(engine.lab, engine.node)
    reached(engine.lab, host, 8080)
    assert seen(engine.lab, host, 8080, "n3") == underlay(engine.lab, "n3")
    assert seen(engine.lab, host, 8080, engine.node) == host
    assert shown(engine, name) == ["8080->80/tcp"]
    engine.end()
    assert NOBODY in seen(engine.lab, host, 8080)


@pytest.mark.parametrize("options", ["-p 80", "-P --expose 80", "-p 80/udp -p 80/tcp"])
def test_a_port_that_is_left_open_is_drawn_and_shown(engine: Engine, options: str) -> None:
    ports = shown(engine, serve(engine, options))
    inside = {"80/udp", "80/tcp"} if "udp" in options else {"80/tcp"}
    assert {port.partition("->")[2] for port in ports} == inside
    [tcp] = [port.partition("->")[0] for port in ports if port.endswith("tcp")]
    reached(engine.lab, underlay(engine.lab, engine.node), int(tcp.rpartition(":")[2]))


def test_an_address_and_a_range_are_honoured(engine: Engine) -> None:
    host = underlay(engine.lab, engine.node)
    engine.lab.run(engine.node, "ip", "address", "add", "192.168.78.200/24", "dev", "eth0")
    try:
        name = serve(engine, "-p 192.168.78.200:8080:80 -p 8081-8082:80-81 -p 5353:53/udp")
        reached(engine.lab, "192.168.78.200", 8080)
        reached(engine.lab, host, 8081)
        assert NOBODY in seen(engine.lab, host, 8080)
        assert sorted(shown(engine, name)) == sorted(
            ["192.168.78.200:8080->80/tcp", "8081->80/tcp", "8082->81/tcp", "5353->53/udp"]
        )
    finally:
        engine.lab.run(engine.node, "ip", "address", "delete", "192.168.78.200/24", "dev", "eth0")


@pytest.mark.parametrize(
    ("options", "words"),
    [("-p 8080:80", "is taken by"), ("-p 127.0.0.1:8090:80", "127.0.0.1"), ("-p 64000:1/udp", "tunnels")],
    ids=["taken", "loopback", "tunnel"],
)
def test_what_cannot_be_had_ends_the_start_in_words(engine: Engine, options: str, words: str) -> None:
    serve(engine, "-p 8080:80")
    said = engine(f"run --rm --network dev {options} {IMAGE} true", check=False)
    assert words in said or (engine.word == "podman" and "address already in use" in said)


def test_a_container_that_is_started_again_has_its_port_again(engine: Engine) -> None:
    name, host = serve(engine, "-p 8080:80"), underlay(engine.lab, engine.node)
    reached(engine.lab, host, 8080)
    engine(f"restart -t 0 {name}")
    reached(engine.lab, host, 8080)
    engine(f"stop -t 0 {name}")
    assert NOBODY in seen(engine.lab, host, 8080)
    engine(f"start {name}")
    reached(engine.lab, host, 8080)


def test_a_killed_agent_takes_no_port_along(engine: Engine) -> None:
    serve(engine, "-p 8080:80")
    host = underlay(engine.lab, engine.node)
    reached(engine.lab, host, 8080)
    with engine.lab.without(engine.node, "agent"):
        assert seen(engine.lab, host, 8080) == str(LAN)
    reached(engine.lab, host, 8080)


@pytest.mark.parametrize(("first", "second"), [("dcos-1", "dev"), ("dev", "dcos-1")])
def test_the_port_goes_with_the_way_out_of_a_container_in_two_networks(engine: Engine, first: str, second: str) -> None:
    """For Docker that is by the network whose name comes first."""
    name, host = serve(engine, "-p 8080:80", first), underlay(engine.lab, engine.node)
    reached(engine.lab, host, 8080)
    engine(f"network connect {second} {name}")
    reached(engine.lab, host, 8080)
    engine(f"network disconnect {second} {name}")
    reached(engine.lab, host, 8080)


def test_a_killed_dockerd_leaves_no_port_taken(lab: RunningLab) -> None:
    with tidy(Engine(lab, NODES["docker"], "docker", "--init")) as docker:
        name = serve(docker, "-p 8080:80")
        reached(lab, underlay(lab, docker.node), 8080)
        lab.kill(docker.node, "dockerd")
        wait_for("dockerd", lambda: "Server" in docker("version -f '{{.Server.Version}} Server'", check=False))
        docker(f"start {name}")
        reached(lab, underlay(lab, docker.node), 8080)


def test_podman_shows_its_ports_and_reloads_them(lab: RunningLab) -> None:
    with tidy(Engine(lab, NODES["podman"], "podman", remove="rm -f -t 0")) as podman:
        name = serve(podman, "-p 8080:80")
        assert "0.0.0.0:8080->80/tcp" in podman("ps")
        podman(f"network reload {name}")
        reached(lab, underlay(lab, podman.node), 8080)


@pytest.mark.parametrize("type", ["DOCKER", "MESOS"])
def test_an_apps_host_ports_are_its_tasks_ports(lab: RunningLab, tmp_path: Path, type: str) -> None:
    mappings: list[dict[str, Any]] = [
        {"containerPort": 80, "hostPort": 0, "name": "web"},
        {"containerPort": 81, "hostPort": 8088},
        {"containerPort": 82},
    ]
    container = {"type": type, "docker": {"image": IMAGE}, "portMappings": mappings}
    with app(lab, tmp_path, instances=3, container=container, cmd=WEB) as found:
        tasks = found["tasks"]
        assert sorted(task["host"] for task in tasks) == ["n1", "n2", "n3"]
        for task in tasks:
            drawn, named = task["ports"]
            assert (named, drawn in range(31000, 32001)) == (8088, True)
            reached(lab, underlay(lab, task["host"]), drawn)
    host = underlay(lab, tasks[0]["host"])
    wait_for("the port is free again", lambda: NOBODY in seen(lab, host, tasks[0]["ports"][0]))
