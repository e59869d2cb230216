"""dockerd, the relay and a driver whose agent is killed inside a call: it comes again, whole and under one name."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.fakes import DCOS, FakeAttachments, FakeState, post
from contract.programs import Relay, build, fields, http, read_message, short_directory

from hedgerow.agent.engines.docker import app

ENDPOINT = {"NetworkID": "n1", "EndpointID": "e1", "SandboxKey": "/run/docker/netns/x", "Options": {}}
INTERFACE = {"Address": "9.0.0.1/32", "AddressIPv6": "", "MacAddress": ""}
LIFE: list[tuple[str, dict[str, Any]]] = [
    ("IpamDriver.RequestAddress", {"PoolID": DCOS.id, "Address": "", "Options": None}),
    ("NetworkDriver.CreateEndpoint", {**ENDPOINT, "Interface": INTERFACE}),
    ("NetworkDriver.Join", ENDPOINT),
    ("NetworkDriver.ProgramExternalConnectivity", ENDPOINT),
    ("NetworkDriver.EndpointOperInfo", ENDPOINT),
    ("NetworkDriver.RevokeExternalConnectivity", ENDPOINT),
    ("NetworkDriver.Leave", ENDPOINT),
    ("NetworkDriver.DeleteEndpoint", ENDPOINT),
    ("IpamDriver.ReleaseAddress", {"PoolID": DCOS.id, "Address": "9.0.0.1"}),
]
"""What dockerd says from the start of a container to its end."""


class MortalAgent:
    """An agent whose records outlive it. It is killed once over `victim`: before it does what it is asked, or after."""

    def __init__(self, path: Path, victim: str, moment: str) -> None:
        self.attachments = FakeAttachments(FakeState())
        self.deaths = 0
        self._app = app(self.attachments, self.attachments.state)  # type: ignore[arg-type]
        self._victim, self._moment = victim, moment
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                head, _, body = read_message(connection).partition(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                dies = path[1:] == self._victim and not self.deaths
                if dies and self._moment == "before":
                    self.deaths += 1
                    continue
                status, answer = post(self._app, path, body, Hedgerow_Call=fields(head)["hedgerow-call"])
                assert status == 200
                if dies:
                    self.deaths += 1
                    continue
                connection.sendall(http(answer))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Path, Path]]:
    with short_directory() as directory:
        defines: dict[str, str | int] = {"AGENT_SOCKET": f'"{directory}/calls.sock"'}
        yield build("relay/hedgerow-relay.c", directory / "hedgerow-relay", defines), directory


def live(place: tuple[Path, Path], victim: str, moment: str) -> tuple[list[Any], MortalAgent]:
    """The answers that dockerd got, and the agent afterwards."""
    agent = MortalAgent(place[1] / "calls.sock", victim, moment)
    serving = threading.Thread(target=agent.serve)
    serving.start()
    relay = Relay(*place)
    try:
        answers = []
        with relay.connect() as dockerd:
            for method, asked in LIFE:
                body = json.dumps(asked).encode()
                dockerd.sendall(
                    b"POST /%s HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (method.encode(), len(body)) + body
                )
                answers.append(json.loads(read_message(dockerd).partition(b"\r\n\r\n")[2]))
        return answers, agent
    finally:
        relay.end()
        agent.close()
        serving.join()
        (place[1] / "calls.sock").unlink()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("victim", [method for method, _ in LIFE])
def test_a_kill_inside_a_call_changes_no_answer_and_leaves_nothing(
    place: tuple[Path, Path], victim: str, moment: str
) -> None:
    undisturbed, _ = live(place, "none", moment)
    answers, agent = live(place, victim, moment)
    assert agent.deaths == 1
    assert answers == undisturbed
    assert not any("Err" in answer for answer in answers)
    assert agent.attachments.is_empty
