"""CNI from the engine's side: environment and configuration in, results of each version out (CNI 0.2.0 to 1.0.0)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract.fakes import DCOS, DEV, DRAWN, FOR_APPS, NO_ROOM, FakeAttachments, FakeState, post, served, snapshot
from contract.programs import build, environment, short_directory
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from hedgerow.agent.engines import cni
from hedgerow.agent.engines.cni import Plugin
from hedgerow.agent.engines.cni_protocol import CniError, parse
from hedgerow.errors import Conflict
from hedgerow.model.endpoint import EndpointKey

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"]
VARIABLES = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0"}
KEY = EndpointKey("cni", "c1", "eth0")


def message(command: str, stdin: bytes, **variables: str) -> bytes:
    rows = {"CNI_COMMAND": command, **VARIABLES, **variables}
    return "".join(f"{name}={value}\0" for name, value in rows.items()).encode() + b"\0" + stdin


def config(version: str = "1.0.0", **more: Any) -> bytes:
    return json.dumps({"cniVersion": version, "name": "dcos-1", "type": "hedgerow-cni", **more}).encode()


class Engine:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = FakeState()
        self.attachments = FakeAttachments(self.state)
        self.queue = directory / "cni-queue"
        self.queue.mkdir()
        self.plugin = Plugin(self.attachments, self.state, self.queue)
        self.app = Starlette(routes=self.plugin.routes())

    def call(self, command: str, stdin: bytes = b"", /, **variables: str) -> tuple[int, Any]:
        return self.send(message(command, stdin or config(), **variables))

    def send(self, body: bytes, **headers: str) -> tuple[int, Any]:
        status, answer = post(self.app, "/cni", body, **headers)
        return status, json.loads(answer) if answer else None

    def refusal(self, command: str, stdin: bytes = b"", /, **variables: str) -> tuple[int, str]:
        status, answer = self.call(command, stdin, **variables)
        assert status == 500
        return answer["code"], answer["msg"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with short_directory() as directory:
        yield Engine(directory)


def test_add_attaches_and_answers_in_the_newest_shape(engine: Engine) -> None:
    status, answer = engine.call("ADD", CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web")
    assert status == 200
    assert answer == {
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "hr-" + KEY.tag},
            {"name": "eth0", "mac": "02:48:09:00:00:01", "sandbox": "/run/netns/x"},
        ],
        "ips": [{"address": "9.0.0.1/32", "gateway": "169.254.64.1", "interface": 1}],
        "routes": [
            {"dst": "169.254.64.1/32"},
            {"dst": "9.0.0.0/8", "gw": "169.254.64.1"},
            {"dst": "0.0.0.0/0", "gw": "169.254.64.1"},
        ],
        "dns": {},
    }
    assert engine.attachments.passing == {KEY: ("/run/netns/x", "eth0")}
    assert engine.attachments.rows[KEY].name == "web"


@pytest.mark.parametrize("version", VERSIONS[2:5])
def test_before_1_0_an_address_says_its_family(engine: Engine, version: str) -> None:
    _, answer = engine.call("ADD", config(version))
    assert answer["cniVersion"] == version
    assert answer["ips"] == [{"address": "9.0.0.1/32", "gateway": "169.254.64.1", "interface": 1, "version": "4"}]


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_the_oldest_shape_is_what_mesos_reads(engine: Engine, version: str) -> None:
    _, answer = engine.call("ADD", config(version))
    assert answer["cniVersion"] == version
    assert answer["ip4"]["ip"] == "9.0.0.1/32"
    assert {"interfaces", "ips"}.isdisjoint(answer)


def test_a_configuration_without_a_version_has_the_oldest_shape(engine: Engine) -> None:
    _, answer = engine.call("ADD", b'{"name":"dcos-1","type":"hedgerow-cni"}')
    assert answer["cniVersion"] == "0.1.0"
    assert "ip4" in answer


def test_all_but_a_networks_own_subnet_leads_by_the_first_interface(engine: Engine) -> None:
    for stdin, ifname, others in ((config(), "eth1", []), (config(network="vault"), "eth0", ["0.0.0.0/0"])):
        _, answer = engine.call("ADD", stdin, CNI_CONTAINERID=ifname, CNI_IFNAME=ifname)
        assert [row["dst"] for row in answer["routes"]][2:] == others


def with_ports(*rows: dict[str, Any]) -> bytes:
    return config(runtimeConfig={"portMappings": list(rows)})


def test_ports_are_published_once_by_the_first_interface(engine: Engine) -> None:
    rows = with_ports(
        {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": ""},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"containerPort": 81},
    )
    for ifname in ("eth1", "eth0"):
        assert engine.call("ADD", rows, CNI_IFNAME=ifname)[0] == 200
    shown = {key.ifname: [str(port) for port in row.published] for key, row in engine.attachments.rows.items()}
    assert shown == {"eth1": [], "eth0": ["8080->80/tcp", "192.0.2.1:5353->53/udp", f"{DRAWN}->81/tcp"]}


def test_check_names_a_port_that_is_not_published(engine: Engine) -> None:
    rows = with_ports({"hostPort": 8080, "containerPort": 80}, {"containerPort": 81})
    engine.call("ADD", rows)
    assert engine.call("CHECK", rows) == (200, None)
    engine.attachments.rows[KEY] = replace(engine.attachments.rows[KEY], published=())
    assert engine.refusal("CHECK", rows) == (103, f"port 80/tcp of {KEY} is not published")


def test_a_port_that_cannot_be_had_leaves_nothing(engine: Engine) -> None:
    engine.attachments.faults["publish"] = Conflict("port 8080/tcp of this host is taken by web", "x")
    code, words = engine.refusal("ADD", with_ports({"hostPort": 8080, "containerPort": 80}))
    assert (code, "taken by web" in words) == (102, True)
    assert engine.attachments.is_empty
    code, words = engine.refusal("ADD", with_ports({"hostPort": 80, "containerPort": 80, "hostIP": "127.0.0.1"}))
    assert (code, "127.0.0.1" in words) == (100, True)
    assert engine.attachments.is_empty


def test_add_and_del_may_be_repeated(engine: Engine) -> None:
    assert engine.call("ADD") == engine.call("ADD")
    assert engine.call("DEL") == engine.call("DEL") == (200, None)
    assert engine.attachments.is_empty


def test_del_needs_no_namespace_no_sound_configuration_and_no_network(engine: Engine) -> None:
    engine.call("ADD")
    engine.state.set(DEV)
    assert engine.call("DEL", b'{"name":', CNI_NETNS="") == (200, None)
    assert engine.attachments.is_empty


def test_del_frees_an_address_that_was_taken_and_never_bound(engine: Engine) -> None:
    """The agent died between the two."""
    asyncio.run(engine.attachments.reserve(DCOS, str(KEY), None))
    engine.call("DEL")
    assert engine.attachments.is_empty


@pytest.mark.parametrize("step", ["reserve", "create", "attach"])
def test_a_failed_add_leaves_nothing_and_says_why(engine: Engine, step: str) -> None:
    engine.attachments.faults[step] = NO_ROOM
    assert engine.refusal("ADD") == (100, "no room: make some")
    assert engine.attachments.is_empty


def test_an_add_that_fails_the_second_time_does_not_end_the_first(engine: Engine) -> None:
    engine.call("ADD")
    engine.attachments.faults["attach"] = NO_ROOM
    engine.refusal("ADD")
    assert KEY in engine.attachments.passing


def test_one_interface_is_on_one_network(engine: Engine) -> None:
    engine.call("ADD")
    code, text = engine.refusal("ADD", config(network="dev"))
    assert (code, "another network" in text) == (102, True)
    assert engine.attachments.rows[KEY].network == DCOS.id


@pytest.mark.parametrize(
    ("more", "args"),
    [
        ({"runtimeConfig": {"ips": ["9.0.0.77/8"]}, "args": {"cni": {"ips": ["9.0.0.78"]}}}, "IP=9.0.0.79"),
        ({"args": {"cni": {"ips": ["9.0.0.77"]}}}, "IP=9.0.0.79"),
        ({"args": {"org.apache.mesos": {"network_info": {"ip_addresses": [{"ip_address": "9.0.0.77"}]}}}}, ""),
        ({}, "IgnoreUnknown=1;IP=9.0.0.77"),
    ],
    ids=["runtimeConfig", "args.cni", "mesos", "CNI_ARGS"],
)
def test_a_static_address_is_given_wherever_it_is_asked_for(engine: Engine, more: dict[str, Any], args: str) -> None:
    engine.call("ADD", config(**more), CNI_ARGS=args)
    assert str(engine.attachments.rows[KEY].address) == "9.0.0.77"


@pytest.mark.parametrize(
    ("more", "args"), [({"runtimeConfig": {"mac": "02:00:00:00:00:07"}}, ""), ({}, "MAC=02:00:00:00:00:07")]
)
def test_a_mac_is_given_wherever_it_is_asked_for(engine: Engine, more: dict[str, Any], args: str) -> None:
    _, answer = engine.call("ADD", config(**more), CNI_ARGS=args)
    assert answer["interfaces"][1]["mac"] == "02:00:00:00:00:07"


@pytest.mark.parametrize(
    ("more", "args", "code", "words"),
    [
        ({}, "IP=nine", 7, "'nine'"),
        ({}, "IP=fd00::1", 100, "no addresses of this family"),
        ({"runtimeConfig": {"ips": ["9.0.0.7", "9.0.0.8"]}}, "", 7, "one address"),
        ({}, "IP=8.8.8.8", 100, "8.8.8.8"),
        ({}, "MAC=03:00:00:00:00:01", 7, "first octet"),
        ({"name": "nope"}, "", 7, "there are dcos-1, dev, vault"),
        ({"name": ""}, "", 7, "no name"),
        ({"name": 7}, "", 7, "$.name"),
        ({"ipam": {"type": "host-local"}}, "", 7, "host-local"),
        ({"prevResult": {"ips": []}}, "", 7, "first plug-in"),
        ({"cniVersion": "1.1.0"}, "", 1, "1.1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_named(engine: Engine, more: dict[str, Any], args: str, code: int, words: str) -> None:
    found, text = engine.refusal("ADD", config(**more), CNI_ARGS=args)
    assert found == code
    assert words in text
    assert engine.attachments.is_empty


def test_an_address_of_somebody_else_is_a_conflict(engine: Engine) -> None:
    engine.call("ADD")
    code, text = engine.refusal("ADD", CNI_CONTAINERID="c2", CNI_ARGS="IP=9.0.0.1")
    assert (code, "9.0.0.1" in text) == (102, True)


def test_all_missing_variables_are_named_at_once(engine: Engine) -> None:
    missing = engine.refusal("ADD", CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="")
    assert missing == (4, "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS] missing")


@pytest.mark.parametrize("name", ["-c", ".c", "a/b", "a b", "ü", "x" * 513])
def test_a_container_id_of_odd_characters_is_refused(engine: Engine, name: str) -> None:
    assert engine.refusal("ADD", CNI_CONTAINERID=name)[0] == 4


@pytest.mark.parametrize("name", [".", "..", "a/b", "a:b", "a b", "x" * 16, "ü" * 8])
def test_what_cannot_be_an_interface_is_refused(engine: Engine, name: str) -> None:
    assert engine.refusal("ADD", CNI_IFNAME=name)[0] == 4


def test_a_nested_mesos_container_is_taken(engine: Engine) -> None:
    status, _ = engine.call("ADD", CNI_CONTAINERID="3b6f4f0c-6d3c-4f7e-b1a5-a2b4a21f5ce7." * 2 + "3b6f4f0c")
    assert status == 200


@pytest.mark.parametrize("command", ["", "GC", "STATUS", "add"])
def test_other_commands_are_unknown(engine: Engine, command: str) -> None:
    assert engine.refusal(command)[0] == 4


@pytest.mark.parametrize("stdin", [b"", b"{", b'"text"', b"\xff\xfe"])
def test_stdin_that_is_no_configuration_is_refused(engine: Engine, stdin: bytes) -> None:
    status, answer = engine.send(message("ADD", stdin))
    assert (status, answer["code"] in (6, 7)) == (500, True)


@pytest.mark.parametrize("version", VERSIONS[:4])
def test_check_came_with_0_4_0(engine: Engine, version: str) -> None:
    engine.call("ADD", config(version))
    assert engine.refusal("CHECK", config(version))[0] == 1


@pytest.mark.parametrize("version", VERSIONS[4:])
def test_check_passes_after_add_and_fails_after_damage(engine: Engine, version: str) -> None:
    _, added = engine.call("ADD", config(version))
    assert engine.call("CHECK", config(version, prevResult=added)) == (200, None)
    engine.attachments.passing.clear()
    assert engine.refusal("CHECK", config(version, prevResult=added)) == (103, f"no link of {KEY}")
    engine.call("DEL")
    assert "not attached" in engine.refusal("CHECK", config(version, prevResult=added))[1]


def test_check_compares_the_address_with_what_the_engine_remembers(engine: Engine) -> None:
    engine.call("ADD")
    code, text = engine.refusal("CHECK", config(prevResult={"ips": [{"address": "9.0.0.5/32"}]}))
    assert (code, "9.0.0.1" in text, "9.0.0.5" in text) == (103, True, True)


def test_without_any_network_the_engine_is_told_to_try_again(engine: Engine) -> None:
    engine.state.snapshot = None
    assert engine.refusal("ADD")[0] == 11


def test_an_unforeseen_failure_is_an_answer_too(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.attachments.faults["attach"] = ZeroDivisionError("oops")
    assert engine.refusal("ADD") == (999, "oops")


def test_a_call_that_takes_too_long_is_to_be_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cni, "LIMIT_S", 0.01)
    engine.attachments.hangs = True
    code, text = engine.refusal("ADD")
    assert (code, "took longer than" in text) == (11, True)
    assert engine.call("DEL") == (200, None)


def test_a_call_whose_shim_has_given_up_is_left_alone(engine: Engine) -> None:
    now_ms = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
    status, _ = engine.send(message("ADD", config()), Hedgerow_Deadline=str(now_ms - 1))
    assert status == 408
    assert engine.attachments.is_empty
    status, _ = engine.send(message("ADD", config()), Hedgerow_Deadline=str(now_ms + 60_000))
    assert status == 200


def test_queued_dels_come_before_an_add(engine: Engine) -> None:
    """A container that restarts while no agent is there: its DEL is in the queue, its ADD in the socket."""
    engine.call("ADD")
    (engine.queue / "1.delete").write_bytes(message("DEL", config()))
    engine.attachments.calls.clear()
    engine.call("ADD")
    assert engine.attachments.calls[0] == f"delete {KEY}"
    assert KEY in engine.attachments.passing
    assert list(engine.queue.iterdir()) == []


def test_attachments_of_an_earlier_boot_are_forgotten_and_the_queue_is_worked_off_at_the_start(engine: Engine) -> None:
    keys = [EndpointKey("cni", name, "eth0") for name in ("before", "now", "queued")]
    for key, boot in zip(keys, ("an earlier boot", "this boot", "this boot"), strict=True):
        engine.call("ADD", CNI_CONTAINERID=key.container)
        engine.attachments.rows[key] = replace(engine.attachments.rows[key], boot_id=boot)
    (engine.queue / "1.delete").write_bytes(message("DEL", config(), CNI_CONTAINERID="queued"))

    async def start() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            keeping = group.create_task(engine.plugin.keep_queue(), name="queue")
            while list(engine.queue.iterdir()):
                await asyncio.to_thread(os.sched_yield)
            keeping.cancel()

    asyncio.run(start())
    assert engine.attachments.rows.keys() == {keys[1]}
    assert len(engine.attachments.reservations()) == 1


def test_a_queued_del_that_can_never_be_done_goes_and_one_that_failed_stays(engine: Engine) -> None:
    (engine.queue / "1.delete").write_bytes(b"rubbish")
    (engine.queue / "2.delete").write_bytes(message("DEL", config()))
    engine.attachments.faults["delete"] = ZeroDivisionError()
    engine.call("ADD", CNI_CONTAINERID="c2")
    assert [path.name for path in engine.queue.iterdir()] == ["2.delete"]


@settings(deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda stdin: message("ADD", stdin)))
def test_any_bytes_are_a_request_or_a_cni_error(body: bytes) -> None:
    with contextlib.suppress(CniError):
        assert parse(body).command in ("ADD", "CHECK", "DEL")


def test_shim_and_agent_together(engine: Engine) -> None:
    program = build("cni/hedgerow-cni.c", engine.directory / "shim", {"RUN_DIRECTORY": f'"{engine.directory}"'})

    def run(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        rows = environment(CNI_COMMAND=command, **{**VARIABLES, **variables})
        return subprocess.run([program], env=rows, input=config(), capture_output=True, check=False)

    with served(engine.app, engine.directory / "agent.sock"):
        added = run("ADD")
        assert added.returncode == 0
        assert json.loads(added.stdout)["ips"][0]["address"] == "9.0.0.1/32"
        assert (run("CHECK").returncode, run("CHECK").stdout) == (0, b"")
        refused = run("ADD", CNI_IFNAME="")
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["code"] == 4
        assert run("DEL").returncode == 0
    assert engine.attachments.is_empty


def test_a_network_for_apps_takes_containers_of_instances_only(engine: Engine) -> None:
    engine.state.snapshot = snapshot(FOR_APPS)
    engine.attachments.assign("web.1", FOR_APPS)
    for name in ("", "web"):
        _, told = engine.refusal("ADD", CNI_ARGS=f"K8S_POD_NAME={name}")
        assert "network dcos-1 is for apps only" in told
    assert engine.attachments.rows == {}
    assert engine.call("ADD", CNI_ARGS="K8S_POD_NAME=web.1")[0] == 200
