"""Podman's own command and the CNI shim on the agent: what users type, and what happens when the agent dies over it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import Any

import pytest
from engines import storm, traces
from engines.command import IMAGE, Engine, tidy
from labkit import RunningLab, mark, wait_for

from hedgerow.lab import probe
from hedgerow.lab.probe import Answer

NODE = "n2"
SHIM = "/opt/cni/bin/hedgerow-cni"


@pytest.fixture
def podman(lab: RunningLab) -> Iterator[Engine]:
    with tidy(Engine(lab, NODE, "podman", remove="rm -f -t 0")) as podman:
        yield podman


def test_a_container_has_the_address_that_podman_shows_and_the_subnet_by_its_gateway(podman: Engine) -> None:
    name = podman.start("--network dcos-1")
    seen = podman.network(name)
    assert seen["IPPrefixLen"] == 32
    assert f"inet {seen['IPAddress']}/32" in podman.inside(name, "ip -o addr show eth0")
    assert seen["MacAddress"] in podman.inside(name, "ip -o link show eth0")
    assert " mtu 1420 " in podman.inside(name, "ip -o link show eth0")
    routes = podman.inside(name, "ip route").splitlines()
    assert [row.split(" dev ")[0] for row in routes] == [
        f"default via {seen['Gateway']}",
        f"9.0.0.0/8 via {seen['Gateway']}",
        seen["Gateway"],
    ]


def test_the_controller_knows_the_endpoint_by_the_containers_name(podman: Engine) -> None:
    name = podman.start("--network dcos-1")
    address = str(podman.address(name))
    wait_for("the endpoint", lambda: address in json.dumps(podman.lab.api("/v1/endpoints")))
    assert name in json.dumps(podman.lab.api("/v1/endpoints"))


def test_containers_of_a_network_reach_each_other_and_those_of_another_are_refused(podman: Engine) -> None:
    one, two, other = podman.start("--network dcos-1"), podman.start("--network dcos-1"), podman.start("--network dev")
    assert podman.ping(one, podman.address(two)) is Answer.REACHED
    assert podman.ping(one, podman.address(other, "dev")) is Answer.REFUSED


def test_docker_and_podman_containers_of_two_hosts_reach_each_other(podman: Engine) -> None:
    name = podman.start("--network dcos-1")
    with podman.lab.container("n1", "docker", "dcos-1") as other:
        target = IPv4Address(podman.lab.address("n1", "docker", other, "dcos-1"))
        assert podman.ping(name, target) is Answer.REACHED
        back = probe.ping(podman.lab.namespace("n1", "docker", other), podman.address(name))
        assert back.answer is Answer.REACHED


def test_a_static_address_and_mac_are_given_and_an_address_of_another_host_refused_in_words(podman: Engine) -> None:
    near = podman.address(podman.start("--network dcos-1"))
    wish = near + 100
    name = podman.start(f"--network dcos-1 --ip {wish} --mac-address 02:42:ac:11:00:99")
    assert podman.address(name) == wish
    assert "02:42:ac:11:00:99" in podman.inside(name, "ip -o link show eth0")
    for refused in (wish, IPv4Address("9.200.0.7")):
        said = podman(f"run --rm --network dcos-1 --ip {refused} {IMAGE} true", check=False)
        assert str(refused) in said.splitlines()[-1]


def test_a_container_in_two_networks_leaves_each_by_its_own_interface(podman: Engine) -> None:
    dcos, dev = podman.start("--network dcos-1"), podman.start("--network dev")
    for both in (podman.start("--network dcos-1,dev"), podman.start("--network dcos-1")):
        if "dev" not in json.loads(podman(f"inspect {both}"))[0]["NetworkSettings"]["Networks"]:
            podman(f"network connect dev {both}")
        assert podman.ping(both, podman.address(dcos)) is Answer.REACHED
        assert podman.ping(both, podman.address(dev, "dev")) is Answer.REACHED
        assert podman.ping(dev, podman.address(both, "dev")) is Answer.REACHED
        assert podman.inside(both, "ip route").count("default") == 1
    podman(f"network disconnect dev {both}")
    assert podman.ping(both, podman.address(dcos)) is Answer.REACHED
    assert podman.ping(both, podman.address(dev, "dev")) is Answer.REFUSED


def test_a_container_can_be_restarted_again_and_again(podman: Engine) -> None:
    """The same id and interface: the old link goes in the background while the new one is made."""
    name, other = podman.start("--network dcos-1"), podman.start("--network dcos-1")
    for _ in range(5):
        podman(f"restart -t 0 {name}")
        assert podman.ping(other, podman.address(name)) is Answer.REACHED


def test_ten_start_and_end_at_once(podman: Engine) -> None:
    with ThreadPoolExecutor(10) as pool:
        rows = pool.map(lambda _: podman(f"run --rm --network dcos-1 {IMAGE} ip -o -4 addr show eth0"), range(10))
        assert len({row.split("inet ")[1].split("/")[0] for row in rows}) == 10


def test_a_network_that_podman_removed_comes_back(podman: Engine) -> None:
    podman("network rm prod")
    wait_for("the network", lambda: "prod" in podman("network ls --format '{{.Name}}'").split())
    podman(f"run --rm --network prod {IMAGE} true")


def test_with_the_agent_dead_a_start_waits_for_the_next_one(podman: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        with podman.lab.without(NODE, "agent"):
            doing = pool.submit(lambda: podman(f"run --rm --network dcos-1 {IMAGE} true"))
            wait_for("a call that nobody takes", lambda: storm.calls_waiting(podman.lab, NODE))
            assert not doing.done()
        doing.result(60)


def test_with_the_agent_dead_a_removal_succeeds_and_is_done_by_the_next_one(podman: Engine) -> None:
    name = podman.start("--network dcos-1")
    before = traces.of(podman.lab, NODE)
    with podman.lab.without(NODE, "agent"):
        podman(f"rm -f -t 0 {name}")
        assert traces.of(podman.lab, NODE).endpoints == before.endpoints
    wait_for("the queue worked off", lambda: traces.of(podman.lab, NODE).endpoints < before.endpoints)


def test_runs_succeed_whenever_the_agent_is_killed(podman: Engine) -> None:
    storm.survived(podman.lab, NODE, lambda: podman(f"run --rm --network dcos-1 {IMAGE} true", timeout_s=120))


class Runtime:
    """A runtime that does what CNI says, by hand: a namespace, the shim, and a configuration of any version."""

    def __init__(self, lab: RunningLab) -> None:
        self.lab = lab
        self.name = mark()
        self.netns = f"/run/netns/{self.name}"

    def call(self, command: str, config: dict[str, Any], netns: str | None = None) -> tuple[bool, Any]:
        variables = [f"CNI_COMMAND={command}", f"CNI_CONTAINERID={self.name}", "CNI_IFNAME=eth0"]
        words = ["env", *variables, f"CNI_NETNS={self.netns if netns is None else netns}", SHIM]
        shell = f"{shlex.join(words)}; printf '\\n%s' $?"
        said = self.lab.run(NODE, "sh", "-c", shell, text=json.dumps(config))
        body, _, status = said.strip().rpartition("\n")
        return status.endswith("0"), json.loads(body) if body else None

    def inside(self, words: str) -> None:
        self.lab.run(NODE, "ip", "netns", "exec", self.name, *shlex.split(words))


@pytest.fixture
def runtime(lab: RunningLab) -> Any:
    before = traces.of(lab, NODE)
    runtime = Runtime(lab)
    lab.run(NODE, "ip", "netns", "add", runtime.name)
    yield runtime
    runtime.call("DEL", {})
    lab.run(NODE, "ip", "netns", "del", runtime.name)
    traces.gone(lab, NODE, before)


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_every_version_of_cni_gets_its_address_and_gives_it_back(runtime: Runtime, version: str) -> None:
    config = {"cniVersion": version, "name": "dev", "type": "hedgerow-cni"}
    done, added = runtime.call("ADD", config)
    assert done, added
    assert added["cniVersion"] == version
    address = added["ip4"]["ip"] if version == "0.2.0" else added["ips"][0]["address"]
    assert f"inet {address}" in runtime.lab.run(NODE, "ip", "netns", "exec", runtime.name, "ip", "-o", "addr")
    again, added_again = runtime.call("ADD", config)
    assert (again, added_again) == (True, added)
    assert runtime.call("DEL", {**config, "prevResult": added}) == (True, None)
    assert runtime.call("DEL", config, netns="") == (True, None)


@pytest.mark.parametrize(
    "damage",
    [
        "ip addr del {address} dev eth0",
        "ip route del default",
        "ip route del 10.64.0.0/12",
        "ip link set eth0 down",
    ],
)
def test_check_passes_until_something_is_taken_away(runtime: Runtime, damage: str) -> None:
    config = {"cniVersion": "1.0.0", "name": "dev", "type": "hedgerow-cni"}
    _, added = runtime.call("ADD", config)
    assert runtime.call("CHECK", {**config, "prevResult": added}) == (True, None)
    runtime.inside(damage.format(address=added["ips"][0]["address"]))
    done, said = runtime.call("CHECK", {**config, "prevResult": added})
    assert not done
    assert said["code"] == 103


@pytest.mark.parametrize("netns", ["/proc/1/ns/net", "/etc/passwd", "/run/netns/nobody"], ids=["host", "file", "none"])
def test_only_a_containers_namespace_is_taken(runtime: Runtime, netns: str) -> None:
    done, said = runtime.call("ADD", {"cniVersion": "1.0.0", "name": "dev", "type": "hedgerow-cni"}, netns=netns)
    assert not done
    assert netns in said["msg"]
