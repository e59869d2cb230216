"""The controller as a process, with real TLS on the loopback: killed at any moment it gives no block twice and loses
nothing that it has said.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import PROVING, Proof

from hedgerow.errors import HedgerowError
from hedgerow.model.agent import Agent, AgentId
from hedgerow.wire import pki, tls
from hedgerow.wire.listen import bind
from hedgerow.wire.messages import Hello, Report, Welcome
from hedgerow.wire.stream import dial

KILLS, ALL_KILLS = 8, 200
READY_S = 30.0
TOKEN = "0123456789abcdef0123456789abcdef"
CONFIG = """
dcos_overlay_network:
  vtep_subnet: 44.128.0.0/16
  vtep_mac_oui: 70:B3:D5:00:00:00
  overlays:
    - {name: dcos-1, subnet: 9.0.0.0/8, prefix: 24}
    - {name: dev, subnet: 10.64.0.0/12, prefix: 24}
"""
START = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "hedgerow.cli.main", *sys.argv[1:]])
"""


@dataclass
class Controller:
    """Its sockets are held here, as by systemd, so a restart refuses nobody."""

    directory: Path
    agents: socket.socket
    api: socket.socket
    process: subprocess.Popen[bytes] | None = None

    @property
    def agents_port(self) -> int:
        return int(self.agents.getsockname()[1])

    def start(self) -> None:
        command = [sys.executable, "-c", START, "controller", "--config", self.directory / "config.yaml"]
        command += ["--state", self.directory / "state", "--certificates", self.directory / "controller"]
        command += ["--token-file", self.directory / "token"]
        held = [os.dup(each.fileno()) for each in (self.agents, self.api)]
        # sh moves the two descriptors to 3 and 4, where sd_listen_fds(3) has them.
        moved = f'exec 8<&{held[0]} 9<&{held[1]} 3<&8 4<&9 8<&- 9<&-; exec "$@"'
        environment = os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "agents:api"}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", moved, "bash", *command], pass_fds=held, env=environment, stdout=log, stderr=log
            )
        for descriptor in held:
            os.close(descriptor)

    def end(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(READY_S)
        self.process = None
        return code

    def get(self, path: str, token: str | None = TOKEN) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self.api.getsockname(), timeout=READY_S)
        with contextlib.closing(connection):
            headers = {"Authorization": f"token={token}"} if token else {}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    authority = pki.make_authority(tmp_path / "ca")
    pki.issue(tmp_path / "controller", authority, "controller", ["127.0.0.1"])
    for number in range(1, (ALL_KILLS if PROVING else KILLS) + 1):
        pki.issue(tmp_path / f"agent-{number}", authority, agent_id(number))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "token").write_text(TOKEN)
    with bind("127.0.0.1:0") as agents, bind("127.0.0.1:0") as api:
        running = Controller(tmp_path, agents, api)
        try:
            yield running
        finally:
            if running.process is not None:
                running.end()


def agent_id(number: int) -> AgentId:
    return AgentId(f"{number:032x}")


async def register(controller: Controller, number: int) -> Agent:
    """One try, which the controller may die under."""
    context = tls.client_context(controller.directory / f"agent-{number}")
    stream = await dial("127.0.0.1", controller.agents_port, context)
    try:
        hello = Hello(
            protocol_min=1,
            protocol_max=1,
            agent=agent_id(number),
            name=f"n{number}",
            underlay=IPv4Address("192.0.2.0") + number,
            boot_id="boot",
            incarnation=None,
            revision=None,
            map_layout=1,
        )
        await stream.send(0, hello)
        _, welcome = await stream.receive()
        assert isinstance(welcome, Welcome), welcome
        return welcome.own
    finally:
        await stream.close()


async def register_at_last(controller: Controller, number: int) -> Agent:
    async with asyncio.timeout(READY_S):
        while True:
            with contextlib.suppress(HedgerowError):
                return await register(controller, number)


async def register_for_ever(controller: Controller, number: int) -> None:
    while True:
        with contextlib.suppress(HedgerowError):
            await register(controller, number)


@pytest.mark.timeout(120 + 15 * (ALL_KILLS if PROVING else KILLS))
def test_a_controller_killed_between_registrations_gives_no_block_twice(controller: Controller, proof: Proof) -> None:
    kills = proof.count("controller-kills", small=KILLS, full=ALL_KILLS, seed=KILLS)
    random = Random(KILLS)
    welcomed: dict[AgentId, Agent] = {}

    async def case() -> None:
        controller.start()
        await register_at_last(controller, 1)
        for number in range(1, kills + 1):
            following = asyncio.ensure_future(register(controller, number))
            # From before the hello to after the welcome: a registration takes some milliseconds.
            await asyncio.wait([following], timeout=random.uniform(0, 0.03))
            controller.end()
            controller.start()
            heard = (await asyncio.gather(following, return_exceptions=True))[0]
            own = await register_at_last(controller, number)
            assert heard == own or isinstance(heard, HedgerowError), heard
            welcomed[own.id] = own

    asyncio.run(case())
    owned = [str(prefix.block) for agent in welcomed.values() for prefix in agent.prefixes]
    assert len(set(owned)) == len(owned) == 2 * kills
    assert len({agent.vtep.ip for agent in welcomed.values()}) == kills
    status, answer = controller.get("/v1/agents")
    assert status == 200
    stored = {each["id"]: [prefix["block"] for prefix in each["prefixes"]] for each in answer["agents"]}
    assert stored == {agent.id: [str(prefix.block) for prefix in agent.prefixes] for agent in welcomed.values()}


def test_it_ends_at_sigterm_with_agents_connected_and_says_so(controller: Controller) -> None:
    async def case() -> None:
        controller.start()
        await register_at_last(controller, 1)
        context = tls.client_context(controller.directory / "agent-1")
        stream = await dial("127.0.0.1", controller.agents_port, context)
        coming_back = [asyncio.ensure_future(register_for_ever(controller, number)) for number in (2, 3, 4)]
        await register_at_last(controller, 5)
        ended = await asyncio.to_thread(controller.end, signal.SIGTERM)
        assert ended == 0
        for task in coming_back:
            task.cancel()
        await asyncio.wait(coming_back)
        await stream.close()

    asyncio.run(case())
    log = (controller.directory / "log").read_text()
    assert log.rstrip().endswith("stopped")
    assert "Traceback" not in log


def test_it_serves_its_api_to_who_has_the_token(controller: Controller) -> None:
    controller.start()
    assert controller.get("/v1/status")[1]["networks"] == 2
    assert controller.get("/v1/status", None)[0] == 401
    assert controller.get("/v1/status", TOKEN + "x")[0] == 401


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda d: (d / "config.yaml").write_text(CONFIG.replace("/8", "/99")), "9.0.0.0/99"),
        (lambda d: (d / "token").write_text("short"), "holds no token of at least 16"),
        (lambda d: (d / "controller" / "controller.key").unlink(), "does not hold usable certificates"),
    ],
)
def test_what_keeps_it_from_starting_is_said_with_exit_code_2(
    controller: Controller, break_it: Any, words: str
) -> None:
    break_it(controller.directory)
    controller.start()
    assert controller.process is not None
    assert controller.process.wait(READY_S) == 2
    controller.process = None
    log = (controller.directory / "log").read_text()
    assert words in log
    assert "Traceback" not in log


def test_a_report_that_is_none_ends_only_its_connection(controller: Controller) -> None:
    async def case() -> None:
        controller.start()
        await register_at_last(controller, 1)
        stream = await dial("127.0.0.1", controller.agents_port, tls.client_context(controller.directory / "agent-2"))
        await stream.send(0, Report(whole=True))
        with pytest.raises(HedgerowError):
            await stream.receive()
        await stream.close()
        await register_at_last(controller, 2)

    asyncio.run(case())
