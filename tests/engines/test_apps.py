"""Apps on real engines: the example of DC/OS's documentation in each of its forms, and what an app must not do."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from conftest import Proof
from engines.escapes import CONTROLS, TRIES, script
from labkit import RunningLab, mark, wait_for

from hedgerow.lab import probe

EXAMPLES = Path(__file__).parents[2] / "examples"
FORMS = {
    "my-networking.json": "docker",
    "my-networking-network.json": "docker",
    "my-networking-new-form.json": "docker",
    "my-networking-mesos.json": "podman",
    "my-networking-no-container.json": "podman",
}
LABEL = "hedgerow.instance"


@contextlib.contextmanager
def app(lab: RunningLab, tmp_path: Path, **definition: Any) -> Iterator[dict[str, Any]]:
    """An app that runs; its definition with its tasks. Taken away afterwards."""
    name = mark()
    whole = {"id": name, "networks": [{"name": "dcos-1"}], "cpus": 0.1, "mem": 64, "backoffSeconds": 0} | definition
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(whole))
    try:
        lab.command("app", "run", str(file), timeout_s=120)
        yield lab.api(f"/v2/apps/{name}")["app"]
    finally:
        lab.command("app", "rm", name, check=False)


def tasks(lab: RunningLab, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lab.api(f"/v2/apps/{name.strip('/')}/tasks")["tasks"]
    return found


def address(task: dict[str, Any]) -> IPv4Address:
    [found] = task["ipAddresses"]
    return IPv4Address(found["ipAddress"])


def containers(lab: RunningLab, task: str | None = None) -> list[tuple[str, str, str]]:
    """Node, engine and id of each container of an app, of one task or of all."""
    words = ("ps", "-aq", "--no-trunc", "--filter", f"label={LABEL}" + (f"={task}" if task else ""))
    return [
        (node, engine, id)
        for node in lab.nodes
        for engine in ("docker", "podman")
        for id in lab.run(node, engine, *words).split()
    ]


def log_of(lab: RunningLab, name: str, end: str) -> str:
    """The app's log once it has this in it."""

    def text() -> str:
        found = lab.command("app", "logs", name)
        return found if end in found else ""

    return str(wait_for(f"{end!r} in the log of {name}", text))


@pytest.mark.parametrize(("file", "engine"), FORMS.items())
def test_the_example_reports_the_address_that_it_sees_and_leaves_nothing(
    lab: RunningLab, file: str, engine: str, proof: Proof
) -> None:
    for _ in range(proof.count(f"example {file.removesuffix('.json')}", small=1, full=5)):
        the_example_reports_the_address_that_it_sees(lab, file, engine)


def the_example_reports_the_address_that_it_sees(lab: RunningLab, file: str, engine: str) -> None:
    before = {each["id"] for each in lab.api("/v1/endpoints")["endpoints"]}
    try:
        lab.command("app", "run", str(EXAMPLES / file), timeout_s=120)
        [task] = tasks(lab, "my-networking")
        log = log_of(lab, "my-networking", "eth0")
        assert re.findall(r"eth0\s+inet (\S+)/32", log) == [str(address(task))]
        assert f"MESOS_TASK_ID={task['id']}\n" in log
        assert f"HOST={task['host']}\n" in log
        [(node, found_engine, _)] = containers(lab, task["id"])
        assert (node, found_engine) == (task["host"], engine)
    finally:
        lab.command("app", "rm", "my-networking")
    assert tasks_of_all(lab, "/my-networking") == []
    assert containers(lab, task["id"]) == []
    wait_for("the app's endpoint gone", lambda: not {e["id"] for e in lab.api("/v1/endpoints")["endpoints"]} - before)


def tasks_of_all(lab: RunningLab, id: str) -> list[dict[str, Any]]:
    return [task for task in lab.api("/v2/tasks")["tasks"] if task["appId"] == id]


@pytest.mark.parametrize("type", ["DOCKER", "MESOS"])
def test_any_number_of_instances_listen_on_one_port(lab: RunningLab, tmp_path: Path, type: str) -> None:
    web = {"type": type, "docker": {"image": "nginx"}}
    with app(lab, tmp_path, instances=7, container=web) as found, lab.container("n1", "docker", "dcos-1") as client:
        addresses = [address(task) for task in found["tasks"]]
        assert len(set(addresses)) == 7
        assert {task["host"] for task in found["tasks"]} == {"n1", "n2", "n3"}
        inside = lab.namespace("n1", "docker", client)
        for each in addresses:
            wait_for(f"{each} on port 80", lambda to=each: probe.tcp(inside, to, 80).answer is probe.Answer.REACHED)


def test_an_unknown_network_is_taken_and_fails_at_launch_with_the_reason(lab: RunningLab, tmp_path: Path) -> None:
    file = tmp_path / "app.json"
    name = mark()
    file.write_text(json.dumps({"id": name, "cmd": "sleep 9", "networks": [{"name": "nope"}], "backoffSeconds": 60}))
    try:
        lab.command("app", "run", str(file), "--wait", "0")
        last = wait_for("a failure", lambda: lab.api(f"/v2/apps/{name}")["app"].get("lastTaskFailure"))
        assert "nope" in last["message"]
        assert "dcos-1" in last["message"]
    finally:
        lab.command("app", "rm", name)


def test_one_that_ends_is_replaced_with_a_new_id(lab: RunningLab, tmp_path: Path) -> None:
    with app(lab, tmp_path, cmd="sleep 600", container={"type": "MESOS", "docker": {"image": "nginx"}}) as found:
        [old] = found["tasks"]
        [(node, engine, id)] = containers(lab, old["id"])
        lab.run(node, engine, "kill", id)

        def replaced() -> list[dict[str, Any]]:
            return [each for each in tasks(lab, found["id"]) if each["id"] != old["id"] and each["ipAddresses"]]

        assert len(wait_for("another in its place", replaced)) == 1
        last = lab.api(f"/v2/apps{found['id']}")["app"]["lastTaskFailure"]
        assert (last["taskId"], last["message"]) == (old["id"], "exit code 137")


@pytest.mark.parametrize("type", ["DOCKER", "MESOS"])
def test_an_app_outlives_the_agent(lab: RunningLab, tmp_path: Path, type: str) -> None:
    web = {"type": type, "docker": {"image": "nginx"}}
    with app(lab, tmp_path, container=web) as found:
        [old] = found["tasks"]
        before = containers(lab, old["id"])
        with lab.without(old["host"], "agent"):
            pass
        row = wait_for(
            "the agent's report",
            lambda: [each for each in tasks(lab, found["id"]) if each["state"] == "TASK_RUNNING"],
        )
        assert [(each["id"], each["ipAddresses"]) for each in row] == [(old["id"], old["ipAddresses"])]
        assert containers(lab, old["id"]) == before


@pytest.mark.parametrize("type", ["DOCKER", "MESOS"])
def test_agents_that_are_killed_while_instances_start_and_end_leave_none_too_many(
    lab: RunningLab, tmp_path: Path, type: str
) -> None:
    web = {"type": type, "docker": {"image": "nginx"}}
    name, file = mark(), tmp_path / "app.json"
    definition = {"id": name, "networks": [{"name": "dcos-1"}], "cpus": 0.1, "mem": 64, "container": web}
    file.write_text(json.dumps(definition | {"instances": 6, "backoffSeconds": 0}))
    try:
        lab.command("app", "run", str(file), "--wait", "0")
        for node in lab.nodes:
            wait_for("a container on " + node, lambda on=node: [each for each in containers(lab) if each[0] == on])
            lab.kill(node, "agent")

        def all_run() -> list[dict[str, Any]]:
            found = tasks(lab, name)
            return found if [each["state"] for each in found] == ["TASK_RUNNING"] * 6 else []

        running = wait_for("all six run", all_run, 60)
        assert len({address(task) for task in running}) == 6
        assert len(containers(lab)) == 6
        lab.command("app", "rm", name, "--wait", "0")
        for node in lab.nodes:
            lab.kill(node, "agent")
    finally:
        lab.command("app", "rm", name, check=False)
    wait_for("the last task gone", lambda: not tasks_of_all(lab, f"/{name}"), 60)
    assert containers(lab) == []
    wait_for("the endpoints gone", lambda: lab.api("/v1/endpoints")["endpoints"] == [], 60)


def test_a_log_can_be_followed_until_its_task_ends(lab: RunningLab, tmp_path: Path) -> None:
    words = "for n in 1 2 3 4 5; do echo line $n; sleep 0.3; done; echo gone >&2"
    with app(lab, tmp_path, cmd=words, container={"docker": {"image": "nginx"}}, backoffSeconds=60) as found:
        assert lab.command("app", "logs", "-f", found["id"]).splitlines()[-2:] == ["line 5", "gone"]
        assert lab.command("app", "logs", "--tail", "1", found["id"]) == "gone\n"


def test_an_app_without_an_image_cannot_read_or_change_what_is_the_hosts(
    lab: RunningLab, tmp_path: Path, proof: Proof
) -> None:
    """S34. The same tries, made by the host's root, show that each would have found something."""
    assert proof.count("S34", small=len(TRIES), full=len(TRIES)) >= 30
    with app(lab, tmp_path, cmd=script(TRIES) + "\nsleep 600") as found:
        [task] = found["tasks"]
        log = log_of(lab, found["id"], "tries are over")
        results = dict(line.split(": ", 1) for line in log.splitlines() if ": " in line)
        assert {name: results.get(name) for name in TRIES} == dict.fromkeys(TRIES, "held")
    harmless = {name: TRIES[name] for name in CONTROLS}
    control = lab.run(task["host"], "sh", "-c", script(harmless), timeout_s=120)
    assert [name for name in CONTROLS if f"{name}: held" in control] == []
