"""Who may join a network that is for apps only."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract.fakes import DCOS, DEV, FOR_APPS

from hedgerow.agent.launches import docker_body
from hedgerow.agent.passes import INSTANCE_OPTION, PASS_OPTION, Passes
from hedgerow.errors import Refused
from hedgerow.model.agent import AgentId
from hedgerow.model.app import AppId, Engine, Instance, InstanceId, Launch

LAUNCH = Launch(engine=Engine.DOCKER, network=DCOS.name, image="busybox", command=("true",))
WEB = Instance(
    id=InstanceId("web.1"), app=AppId("/web"), incarnation=1, agent=AgentId("a"), agent_incarnation=1, launch=LAUNCH
)
ELSEWHERE = replace(WEB, id=InstanceId("web.2"), launch=replace(LAUNCH, network=DEV.name))
OURS = Passes(b"a private key", lambda: {WEB.id: WEB, ELSEWHERE.id: ELSEWHERE})


def test_an_instance_that_is_ours_to_run_on_the_network_is_admitted() -> None:
    OURS.admit(FOR_APPS, "web.1")
    OURS.admit_with_options(FOR_APPS, OURS.options(WEB))


@pytest.mark.parametrize("name", ["", "web", "web.2", "web.3"])
def test_anybody_else_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="network dcos-1 is for apps only"):
        OURS.admit(FOR_APPS, name)


PASS = OURS.options(WEB)[PASS_OPTION]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {INSTANCE_OPTION: "web.1"},
        {PASS_OPTION: PASS},
        {INSTANCE_OPTION: "web.1", PASS_OPTION: ""},
        {INSTANCE_OPTION: "web.1", PASS_OPTION: PASS[:-1]},
        {INSTANCE_OPTION: "web.1", PASS_OPTION: "\u00e9" * 64},
        {INSTANCE_OPTION: "web.1", PASS_OPTION: 7},
        {INSTANCE_OPTION: ["web.1"], PASS_OPTION: PASS},
        {INSTANCE_OPTION: "web.2", PASS_OPTION: PASS},
        OURS.options(ELSEWHERE),
        OURS.options(replace(WEB, incarnation=2)),
        Passes(b"another key", dict).options(WEB),
    ],
)
def test_options_without_a_pass_of_ours_for_that_instance_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(Refused, match="network dcos-1 is for apps only"):
        OURS.admit_with_options(FOR_APPS, options)


def test_a_pass_ends_with_its_instance() -> None:
    with pytest.raises(Refused):
        Passes(b"a private key", dict).admit_with_options(FOR_APPS, OURS.options(WEB))


def test_where_anyone_may_join_nobody_is_asked_for_a_pass() -> None:
    OURS.admit(DCOS, "")
    OURS.admit_with_options(DCOS, {})


def test_the_pass_is_among_the_options_of_the_containers_network() -> None:
    body = docker_body(WEB, OURS.options(WEB))
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"dcos-1": {"DriverOpts": OURS.options(WEB)}}}
    assert PASS not in str(body["Labels"])
    assert "NetworkingConfig" not in docker_body(WEB)
