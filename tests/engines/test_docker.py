"""Docker's own client and daemon on the agent: what users type, and what happens when something dies over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network

import pytest
from engines import storm
from engines.command import IMAGE, Engine, tidy
from labkit import RunningLab, mark, wait_for

from hedgerow.lab.probe import Answer

NODE = "n1"


@pytest.fixture
def docker(lab: RunningLab) -> Iterator[Engine]:
    with tidy(Engine(lab, NODE, "docker", "--init")) as docker:
        yield docker


def test_a_container_has_the_address_that_docker_shows_and_the_subnet_by_its_gateway(docker: Engine) -> None:
    name = docker.start("--network dcos-1")
    seen = docker.network(name)
    assert f"inet {seen['IPAddress']}/32" in docker.inside(name, "ip -o addr show eth0")
    assert seen["MacAddress"] in docker.inside(name, "ip -o link show eth0")
    assert " mtu 1420 " in docker.inside(name, "ip -o link show eth0")
    routes = docker.inside(name, "ip route").splitlines()
    assert [row.strip() for row in routes] == [
        f"default via {seen['Gateway']} dev eth0",
        f"9.0.0.0/8 via {seen['Gateway']} dev eth0",
        f"{seen['Gateway']} dev eth0 scope link",
    ]


def test_the_controller_knows_the_endpoint(docker: Engine) -> None:
    address = str(docker.address(docker.start("--network dcos-1")))
    wait_for("the endpoint", lambda: address in json.dumps(docker.lab.api("/v1/endpoints")))


def test_containers_of_a_network_reach_each_other_and_those_of_another_are_refused(docker: Engine) -> None:
    one, two, other = docker.start("--network dcos-1"), docker.start("--network dcos-1"), docker.start("--network dev")
    assert docker.ping(one, docker.address(two)) is Answer.REACHED
    assert docker.ping(one, docker.address(other, "dev")) is Answer.REFUSED


def test_a_static_address_is_given_and_one_of_another_host_refused_in_words(docker: Engine) -> None:
    near = docker.address(docker.start("--network dcos-1"))
    wish = near + 100
    assert docker.address(docker.start(f"--network dcos-1 --ip {wish}")) == wish
    for refused, words in ((wish, f"{wish} on network dcos-1 is taken"), (IPv4Address("9.200.0.7"), "9.200.0.7")):
        assert words in docker(f"run --rm --network dcos-1 --ip {refused} {IMAGE} true", check=False)


def test_a_mac_of_the_users_is_kept(docker: Engine) -> None:
    name = docker.start("--network dcos-1 --mac-address 02:42:ac:11:00:99")
    assert docker.network(name)["MacAddress"] == "02:42:ac:11:00:99"
    other = docker.start("--network dcos-1")
    assert docker.ping(name, docker.address(other)) is Answer.REACHED


def test_a_container_in_two_networks_leaves_each_by_its_own_interface(docker: Engine) -> None:
    both, dcos, dev = docker.start("--network dcos-1"), docker.start("--network dcos-1"), docker.start("--network dev")
    docker(f"network connect dev {both}")
    assert docker.ping(both, docker.address(dcos)) is Answer.REACHED
    assert docker.ping(both, docker.address(dev, "dev")) is Answer.REACHED
    assert docker.ping(dev, docker.address(both, "dev")) is Answer.REACHED
    docker(f"network disconnect dev {both}")
    assert docker.ping(both, docker.address(dcos)) is Answer.REACHED
    assert docker.ping(both, docker.address(dev, "dev")) is Answer.REFUSED


def test_a_container_can_be_stopped_started_and_restarted(docker: Engine) -> None:
    name, other = docker.start("--network dcos-1"), docker.start("--network dcos-1")
    docker(f"stop -t 0 {name}")
    docker(f"start {name}")
    assert docker.ping(other, docker.address(name)) is Answer.REACHED
    docker(f"restart -t 0 {name}")
    assert docker.ping(other, docker.address(name)) is Answer.REACHED


def test_ten_start_and_end_at_once(docker: Engine) -> None:
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda _: docker(f"run --rm --network dcos-1 {IMAGE} ip -o addr show eth0"), range(10)))
    assert len({row.split("inet ")[1].split("/")[0] for row in found}) == 10


def test_a_network_without_a_subnet_is_refused_at_once_and_the_command_that_is_named_works(docker: Engine) -> None:
    said = docker("network create -d hedgerow --ipam-driver hedgerow --ipam-opt network=dev mine", check=False)
    name = mark()
    command = said[said.index("docker network create") :].replace("NAME", name).removeprefix("docker ")
    docker(command)
    try:
        container = docker.start(f"--network {name}")
        assert docker.address(container, name) in IPv4Network("10.64.0.0/12")
        docker.end()
    finally:
        docker(f"network rm {name}")


def test_pruned_networks_come_back(docker: Engine) -> None:
    docker("network prune -f")
    wait_for("the network", lambda: "prod" in docker("network ls --format '{{.Name}}'").split())
    docker(f"run --rm --network prod {IMAGE} true")


@pytest.mark.parametrize("moment", ["run", "rm"])
def test_with_the_agent_dead_a_call_waits_for_the_next_one(docker: Engine, moment: str) -> None:
    name = docker.start("--network dcos-1")
    act: Callable[[], object] = {
        "run": lambda: docker(f"run --rm --network dcos-1 {IMAGE} true"),
        "rm": lambda: docker(f"rm -f {name}"),
    }[moment]
    with ThreadPoolExecutor(1) as pool:
        with docker.lab.without(NODE, "agent"):
            doing = pool.submit(act)
            wait_for("a call that nobody takes", lambda: storm.calls_waiting(docker.lab, NODE))
            assert not doing.done()
        doing.result(60)


def test_runs_succeed_whenever_the_agent_is_killed(docker: Engine) -> None:
    storm.survived(docker.lab, NODE, lambda: docker(f"run --rm --network dcos-1 {IMAGE} true", timeout_s=120))


def test_what_a_killed_dockerd_had_is_gone_with_its_containers_and_they_start_again(docker: Engine) -> None:
    name, other = docker.start("--network dcos-1"), docker.start("--network dcos-1")
    docker.lab.kill(NODE, "dockerd")
    wait_for("dockerd", lambda: "Server" in docker("version -f '{{.Server.Version}} Server'", check=False))
    docker(f"start {name} {other}")
    assert docker.ping(name, docker.address(other)) is Answer.REACHED
