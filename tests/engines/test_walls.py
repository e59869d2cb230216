"""Walls as an operator writes them: rules by app and label, applied to running containers, on both engines."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import labkit
import pytest
from conftest import Proof
from engines.test_apps import address, app, containers
from labkit import RunningLab, wait_for

from hedgerow.cli.api import Api
from hedgerow.lab import probe
from hedgerow.lab.probe import Answer

APPLIED_S = 1.0 * float(os.environ.get("HEDGEROW_SLOWNESS", "1"))
CONFIG = """\
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/20
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: dcos-1, subnet: 9.0.0.0/8, prefix: 24}
    - name: shop
      subnet: 10.64.0.0/12
      prefix: 24
      rules: [RULE]
    - name: apps
      subnet: 10.80.0.0/14
      prefix: 24
      attach: apps
    - name: here
      subnet: 10.96.0.0/14
      prefix: 24
      agents: [n1]
"""
CLOSED = CONFIG.replace("RULE", "")
WEB = {"type": "DOCKER", "docker": {"image": "nginx"}}


@pytest.fixture(scope="module")
def walled() -> Iterator[RunningLab]:
    with labkit.lab(nodes=2, config=CLOSED) as running:
        yield running


def apply(lab: RunningLab, tmp_path: Path, text: str) -> str:
    """Without waiting for the agents."""
    return lab.command("apply", "--wait", "0s", str(written(tmp_path, text)), check=False)


def api_of(lab: RunningLab) -> Api:
    return Api(lab.record.api, lab.record.token)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return file


def namespace(lab: RunningLab, task: str) -> Path:
    [(node, engine, id)] = containers(lab, task)
    return lab.namespace(node, engine, id)


def answer(source: Path, target: IPv4Address, port: int = 80) -> Answer:
    return probe.tcp(source, target, port).answer


def opened(front: str) -> str:
    return CONFIG.replace("RULE", f"{{from: {{app: {front}}}, to: {{label: {{tier: back}}}}, ports: [80/tcp]}}")


@pytest.mark.parametrize("type", ["DOCKER", "MESOS"])
def test_a_rule_opens_an_app_to_another_and_apply_opens_and_closes_it_in_a_second(
    walled: RunningLab, tmp_path: Path, type: str, proof: Proof
) -> None:
    options = {"container": WEB | {"type": type}, "networks": [{"name": "shop"}]}
    with (
        app(walled, tmp_path, **options) as front,
        app(walled, tmp_path, labels={"tier": "back"}, **options) as back,
        walled.container("n1", "docker", "shop") as nobody,
    ):
        [one], [other] = front["tasks"], back["tasks"]
        assert one["host"] != other["host"]
        inside, api = namespace(walled, one["id"]), address(other)
        assert answer(inside, api) is Answer.REFUSED
        took_s: list[float] = []
        times = proof.count(f"rules applied within {APPLIED_S:g} s, {type}", small=2, full=25)
        for text, wanted in ((opened(front["id"]), Answer.REACHED), (CLOSED, Answer.REFUSED)) * times:
            began = time.monotonic()
            api_of(walled).put("/v1/config", text)
            wait_for(f"{wanted} at {api}", lambda want=wanted: answer(inside, api) is want)
            took_s.append(time.monotonic() - began)
            said = walled.command("can", front["id"], f"{back['id']}:80", check=False)
            assert said.startswith("yes: " if wanted is Answer.REACHED else "no: ")
        assert statistics.median(took_s) < APPLIED_S, took_s
        assert walled.command("apply", str(written(tmp_path, opened(front["id"])))).startswith("shop: rules\n")
        assert answer(inside, api) is Answer.REACHED
        assert apply(walled, tmp_path, opened(front["id"])).endswith("nothing changed\n")
        assert answer(inside, api, 81) is Answer.REFUSED
        assert answer(walled.namespace("n1", "docker", nobody), api) is Answer.REFUSED


@pytest.mark.parametrize(("type", "engine"), [("DOCKER", "docker"), ("MESOS", "podman")])
def test_a_network_for_apps_takes_instances_and_nobody_else(
    walled: RunningLab, tmp_path: Path, type: str, engine: str
) -> None:
    with app(walled, tmp_path, container=WEB | {"type": type}, networks=[{"name": "apps"}], instances=2) as found:
        assert all(IPv4Address(address(task)).is_private for task in found["tasks"])
    name = labkit.mark()
    try:
        refused = walled.run("n1", engine, "run", "--rm", "--name", name, "--network", "apps", "nginx", check=False)
        assert "network apps is for apps only" in refused
    finally:
        walled.run("n1", engine, "rm", "-f", name, check=False)


def test_a_network_of_some_agents_is_nowhere_else(walled: RunningLab, tmp_path: Path) -> None:
    shown = walled.api("/v1/networks/here")
    assert [block["agent"] for block in shown["prefixes"]] == ["n1"]
    with app(walled, tmp_path, container=WEB, networks=[{"name": "here"}], instances=2) as found:
        assert {task["host"] for task in found["tasks"]} == {"n1"}
    name = labkit.mark()
    refused = walled.run("n2", "docker", "run", "--rm", "--name", name, "--network", "here", "nginx", check=False)
    walled.run("n2", "docker", "rm", "-f", name, check=False)
    assert "here" in refused
    apply(walled, tmp_path, CLOSED.replace("agents: [n1]", "agents: ['n*']"))
    wait_for("a block for n2", lambda: len(walled.api("/v1/networks/here")["prefixes"]) == 2)
