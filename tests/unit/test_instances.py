from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hedgerow.agent.containers import container_of, without_headers
from hedgerow.agent.instances import Container, Fault, Launch, Phase, Remove, own_instances, status_of, steps
from hedgerow.agent.launches import HIDDEN, MAX_PIDS, docker_body, full_reference, host_body, podman_body
from hedgerow.agent.seccomp import tightened
from hedgerow.errors import Refused
from hedgerow.model import app as model
from hedgerow.model.agent import Agent, AgentId, Vtep
from hedgerow.model.app import AppId, Engine, Instance, InstanceId, InstanceState
from hedgerow.model.network import ClusterSpec, NetworkName, VtepSpec
from hedgerow.model.snapshot import Revision, Snapshot

ID = InstanceId("web.1")
OWN = Agent(
    id=AgentId("n1"), name="n1", underlay=IPv4Address("10.0.0.1"), incarnation=2, vtep=Vtep(ip=None, mac=bytes(6))
)
WANTED = Instance(
    id=ID,
    app=AppId("/web"),
    incarnation=1,
    agent=OWN.id,
    agent_incarnation=2,
    launch=model.Launch(
        engine=Engine.DOCKER,
        network=NetworkName("dcos-1"),
        image="nginx",
        command=("/bin/sh", "-c", "x"),
        environment=(("A", "b"),),
        cpus=0.1,
        memory_bytes=64 << 20,
        grace_s=5,
    ),
)
KILLED = replace(WANTED, kill=True)
THERE = Container(
    engine=Engine.DOCKER, id="c" * 64, instance=ID, incarnation=1, phase=Phase.RUNNING,
    addresses=(IPv4Address("9.0.0.2"),), started_s=100.0,
)  # fmt: skip
MADE = replace(THERE, phase=Phase.CREATED, addresses=(), started_s=None)
ENDED = replace(THERE, phase=Phase.ENDED, addresses=(), exit_code=1, ended_s=130.0)
FAULT = Fault("no network is named nope", 90.0)


@pytest.mark.parametrize(
    ("instance", "container", "faults", "wanted"),
    [
        (WANTED, None, {}, [Launch(WANTED)]),
        (WANTED, MADE, {}, [Launch(WANTED)]),
        (WANTED, THERE, {}, []),
        (WANTED, ENDED, {}, []),
        (WANTED, None, {ID: FAULT}, []),
        (WANTED, MADE, {ID: FAULT}, []),
        (KILLED, None, {}, []),
        (KILLED, MADE, {}, [Remove(MADE, 5)]),
        (KILLED, THERE, {}, [Remove(THERE, 5)]),
        (KILLED, ENDED, {}, [Remove(ENDED, 5)]),
        (None, THERE, {}, [Remove(THERE)]),
        (WANTED, replace(THERE, incarnation=0), {}, [Remove(replace(THERE, incarnation=0))]),
    ],
)
def test_an_instance_is_started_once_and_removed_when_killed_or_unknown(
    instance: Instance | None, container: Container | None, faults: dict[InstanceId, Fault], wanted: list[Any]
) -> None:
    instances = {ID: instance} if instance else {}
    containers = {ID: container} if container else {}
    assert list(steps(instances, containers, faults, may_remove=True)) == wanted


def test_nothing_is_removed_on_the_word_of_a_saved_snapshot() -> None:
    assert list(steps({}, {ID: THERE}, {}, may_remove=False)) == []


@pytest.mark.parametrize(
    ("instance", "container", "fault", "state", "changed_s", "message"),
    [
        (WANTED, None, None, InstanceState.STAGING, 200, ""),
        (WANTED, MADE, None, InstanceState.STAGING, 200, ""),
        (WANTED, None, FAULT, InstanceState.FAILED, 90, "no network is named nope"),
        (WANTED, THERE, None, InstanceState.RUNNING, 100, ""),
        (WANTED, ENDED, None, InstanceState.FAILED, 130, "exit code 1"),
        (WANTED, replace(ENDED, exit_code=0), None, InstanceState.FINISHED, 130, ""),
        (WANTED, replace(ENDED, reason="out of memory"), None, InstanceState.FAILED, 130, "exit code 1: out of memory"),
        (KILLED, THERE, None, InstanceState.KILLING, 200, ""),
        (KILLED, ENDED, None, InstanceState.KILLING, 200, ""),
        (KILLED, None, FAULT, InstanceState.KILLED, 200, ""),
    ],
)
def test_what_is_said_of_an_instance(
    instance: Instance, container: Container | None, fault: Fault | None, state: InstanceState, changed_s: float,
    message: str,
) -> None:  # fmt: skip
    said = status_of(instance, container, fault, 200.0)
    assert (said.state, said.changed_s, said.message) == (state, changed_s, message)
    assert said.addresses == (THERE.addresses if state is InstanceState.RUNNING else ())


def test_only_records_of_this_agent_and_its_incarnation_are_its_own() -> None:
    others = [
        replace(WANTED, id=InstanceId("other"), agent=AgentId("n2")),
        replace(WANTED, id=InstanceId("old"), agent_incarnation=1),
    ]
    cluster = ClusterSpec(enable=True, mtu_bytes=1420, vtep=VtepSpec(subnet=None), networks=())
    instances = {each.id: each for each in [WANTED, *others]}
    snapshot = Snapshot(revision=Revision(1, 1), own=OWN.id, cluster=cluster, instances=instances)
    assert own_instances(snapshot, OWN) == {ID: WANTED}


def test_docker_gets_the_network_the_command_the_size_and_our_labels() -> None:
    body = docker_body(WANTED)
    assert body["HostConfig"]["NetworkMode"] == "dcos-1"
    assert (body["Entrypoint"], body["Cmd"], body["Env"]) == (["/bin/sh"], ["-c", "x"], ["A=b"])
    assert (body["HostConfig"]["CpuShares"], body["HostConfig"]["Memory"]) == (102, 64 << 20)
    assert body["Labels"] == {"hedgerow.instance": ID, "hedgerow.incarnation": "1", "MESOS_TASK_ID": ID}


def test_no_instance_may_fork_without_end() -> None:
    assert docker_body(WANTED)["HostConfig"]["PidsLimit"] == MAX_PIDS
    assert podman_body(WANTED)["resource_limits"]["pids"] == {"limit": MAX_PIDS}
    assert host_body(WANTED, [], Path("/s.json"))["resource_limits"]["pids"] == {"limit": MAX_PIDS}


def test_arguments_leave_the_entry_point_of_the_image_as_it_is() -> None:
    launch = replace(WANTED.launch, command=None, arguments=("a", "b"))
    assert "Entrypoint" not in docker_body(replace(WANTED, launch=launch))
    assert docker_body(replace(WANTED, launch=launch))["Cmd"] == ["a", "b"]
    assert "entrypoint" not in podman_body(replace(WANTED, launch=launch))
    assert podman_body(replace(WANTED, launch=launch))["command"] == ["a", "b"]


def test_an_app_without_an_image_is_nobody_without_rights_and_sees_no_secret() -> None:
    body = host_body(WANTED, [Path("/data/hedgerow")], Path("/s.json"))
    assert body["seccomp_profile_path"] == "/s.json"
    assert (body["rootfs"], body["rootfs_overlay"], body["user"]) == ("/", True, "65534:65534")
    assert (body["cap_drop"], body["no_new_privileges"]) == (["all"], True)
    assert {"/root", "/home", "/etc/shadow", "/etc/ssh", "/etc/hedgerow", "/data/hedgerow"} <= set(body["mask"])
    assert {"/run", "/tmp", "/var"} <= {each["destination"] for each in body["mounts"]}
    assert all("notmpcopyup" in each["options"] for each in body["mounts"])
    assert len(set(HIDDEN)) == len(HIDDEN)


def test_the_profile_of_system_calls_allows_no_new_namespace_and_no_mount() -> None:
    podman = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "clone", "clone3", "unshare", "mount"], "action": "SCMP_ACT_ALLOW", "args": []},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }
    rules = tightened(podman)["syscalls"]
    allowed = [rule for rule in rules if rule["action"] == "SCMP_ACT_ALLOW"]
    assert [name for rule in allowed if not rule["args"] for name in rule["names"]] == ["read"]
    [at_0, at_1] = [rule["args"][0] for rule in allowed if rule["names"] == ["clone"]]
    assert (at_0["op"], at_0["value"], at_0["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", 0x7E020000, 0)
    assert (at_0["index"], at_1["index"]) == (0, 1)


@pytest.mark.parametrize("user", ["root", "0", "daemon"])
def test_an_app_without_an_image_runs_as_nobody_else(user: str) -> None:
    with pytest.raises(Refused, match="may not run without an image"):
        host_body(replace(WANTED, launch=replace(WANTED.launch, user=user)), [], Path("/s.json"))


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("nginx", "docker.io/library/nginx"),
        ("a/b:1", "docker.io/a/b:1"),
        ("localhost/x", "localhost/x"),
        ("r:5000/x", "r:5000/x"),
    ],
)
def test_a_short_name_of_an_image_is_docker_hubs(image: str, full: str) -> None:
    assert full_reference(image) == full


INSPECTED = json.loads(
    """{"Id": "abc", "Config": {"Labels": {"hedgerow.instance": "web.1", "hedgerow.incarnation": "1"}},
    "State": {"Status": "running", "ExitCode": 0, "OOMKilled": false, "Error": "",
              "StartedAt": "2026-01-02T03:04:05.123456789Z", "FinishedAt": "0001-01-01T00:00:00Z"},
    "NetworkSettings": {"Networks": {"dcos-1": {"IPAddress": "9.0.0.2"}, "none": {"IPAddress": ""}, "odd": null}}}"""
)


def test_a_container_is_read_from_what_its_engine_says() -> None:
    found = container_of(Engine.DOCKER, INSPECTED)
    assert found is not None
    assert (found.instance, found.phase, found.ended_s) == ("web.1", Phase.RUNNING, None)
    assert found.addresses == (IPv4Address("9.0.0.2"),)
    assert found.started_s == 1767323045.123456


def test_an_address_that_stands_for_none_is_not_an_instances() -> None:
    """Docker gives every container of an IPv6-only network one of IPv4: link-local."""
    six = {"IPAddress": "169.254.64.5", "GlobalIPv6Address": "fd00:6::1"}
    found = container_of(Engine.DOCKER, INSPECTED | {"NetworkSettings": {"Networks": {"six": six}}})
    assert found is not None
    assert (found.addresses, found.addresses6) == ((), (IPv6Address("fd00:6::1"),))


def test_a_container_of_somebody_else_is_none_of_ours() -> None:
    assert container_of(Engine.DOCKER, INSPECTED | {"Config": {"Labels": None}}) is None


@given(st.lists(st.binary(max_size=20), max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_a_multiplexed_stream_gives_its_text_however_it_is_cut(texts: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(bytes([1, 0, 0, 0]) + len(text).to_bytes(4, "big") + text for text in texts)

    async def pieces() -> AsyncGenerator[bytes, None]:
        rest, turn = whole, 0
        while rest:
            size = cuts[turn % len(cuts)]
            yield rest[:size]
            rest, turn = rest[size:], turn + 1

    async def joined() -> bytes:
        return b"".join([text async for text in without_headers(pieces())])

    assert asyncio.run(joined()) == b"".join(texts)
